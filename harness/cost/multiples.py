"""From a forward pass of one image to a denoising step, a sample and a whole training: how many passes each is."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.options import check, option

BACKWARD = 2
"""Forward passes that a backward pass costs: the gradients of inputs and of weights."""

UNITS = ("image", "step", "sample", "training-run")


@dataclass(frozen=True, kw_only=True)
class Multiple:
    """What a cost is per, and what decides how many forward passes of one image, or clip, that is.

    "image" is one pass; "step" one denoising step of a sample; "sample" all of its steps; "training-run" all steps of
    a training. Guidance evaluates the conditional and the unconditional network. A training step costs three passes an
    image, and with recomputation of activations a fourth. The defaults are DiT's recipe (Peebles & Xie, arXiv
    2212.09748): 250 steps a sample, 400,000 training steps of 256 images.
    Raises ValueError for a field out of bounds.
    """

    per: str = option("image", "unit of the exact cost", choices=UNITS)
    guidance: bool = option(True, "count two passes for a denoising step (classifier-free guidance)")
    sampling_steps: int = option(250, "denoising steps of a sample", least=1)
    training_steps: int = option(400_000, "steps of a training run", least=1)
    training_batch: int = option(256, "images in a training step", least=1)
    recompute: bool = option(False, "training recomputes activations: one more forward pass")

    def __post_init__(self) -> None:
        check(self)

    @property
    def passes(self) -> int:
        """Forward passes of one image."""
        product = 1
        for factor, _ in self.factors():
            product *= factor
        return product

    def factors(self) -> list[tuple[int, str]]:
        """What `passes` is the product of, each with its name."""
        step = [(2, "passes of guidance")] if self.guidance else []
        training = [
            (self.training_steps, "training steps"),
            (self.training_batch, "images a step"),
            (
                1 + BACKWARD + self.recompute,
                "passes, forward, backward" + (" and recomputed" if self.recompute else ""),
            ),
        ]
        return {
            "image": [],
            "step": step,
            "sample": [(self.sampling_steps, "denoising steps"), *step],
            "training-run": training,
        }[self.per]

    def __str__(self) -> str:
        """The product in words: "250 denoising steps x 2 passes of guidance = 500 forward passes"."""
        if not self.factors():
            return "1 forward pass"
        words = " x ".join(f"{factor} {name}" for factor, name in self.factors())
        return f"{words} = {self.passes} forward passes"
