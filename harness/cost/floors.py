"""Floors: the least time of a step on a card, below which no implementation comes.

A step needs matrix products, multiply-adds outside of them, exponentials, and bytes from memory. Each has a rate that
the card does not exceed, so each alone is a lower bound, and so is the largest of the four, the floor: it is met only
where everything overlaps and the unit that binds never waits.

What is taken for granted, and all that is:

- The arithmetic is that of the model's equations, each value computed once. An algorithm with fewer multiply-adds for a
  product (Strassen's) would come below, and so would one that trades bytes for arithmetic where bytes bind.
- Products run at the card's dense peak in the arithmetic that is named. On FP32 units ("float32") a floor is of those
  who use them: three products on tensor cores in tf32 come near to float32's accuracy, too.
- Exponentials run on special-function units. FP32 units can take over a part by polynomials, as FlashAttention-4 does
  (arXiv 2603.05451): where exponentials bind, and only there, a floor is of those who do not.
- The clock is the data sheet's.

Letters: B sequences of L tokens, D width, E inner width, S state, P parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.core.cards import Card
from harness.core.workload import Workload
from harness.cost.analytic import analytic
from harness.cost.operations import Cost
from harness.cost.training import PASSES
from models import ModelSpec

RESOURCES = ("matrix", "vector", "exponentials", "bytes")
"""Matrix products; multiply-adds outside of them, on FP32 units; exponentials; memory traffic."""

OF_DTYPE = {"float32": ("float32", "tf32"), "bfloat16": ("bfloat16",)}
"""In which arithmetics the products of a dtype can run."""

VALUE_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}
STATE_BYTES = 4
"""Of a weight, of each of AdamW's moments and of the EMA, in training: all are float32, whatever the products are."""

SIDES = 256
"""Patches a side up to which crossovers are searched: 4096 pixels for latents of an eighth in patches of two."""


@dataclass(frozen=True)
class Demand:
    """What a step needs: multiply-adds of products and outside of them, exponentials, and traffic with memory.

    `traffic` has (bytes, times): so many bytes cross the edge of the chip so many times, each time less by what the
    chip itself can hold.
    """

    matrix_macs: int
    vector_macs: int
    exponentials: int
    traffic: tuple[tuple[int, int], ...]

    def nbytes(self, on_chip_bytes: int) -> int:
        return sum(times * max(0, amount - on_chip_bytes) for amount, times in self.traffic)


@dataclass(frozen=True)
class Floor:
    """Seconds that a step takes of each resource, at the least."""

    seconds: dict[str, float]

    @property
    def value(self) -> float:
        """The floor: everything overlaps."""
        return max(self.seconds.values())

    @property
    def apart(self) -> float:
        """Nothing overlaps: what a step takes if every unit runs at its peak, and one at a time."""
        return sum(self.seconds.values())

    @property
    def binds(self) -> str:
        """The resource that makes the floor."""
        return max(self.seconds, key=lambda resource: self.seconds[resource])


def floor(workload: Workload, card: Card, arithmetic: str) -> Floor:
    """The floor of a workload in one of its dtype's arithmetics, whatever its implementation and checkpointing.

    Raises ValueError for an arithmetic that is not of its dtype or that the card has not, and for joint images.
    """
    if arithmetic not in OF_DTYPE[workload.dtype]:
        choices = ", ".join(OF_DTYPE[workload.dtype])
        raise ValueError(f"{workload.dtype} is not computed in {arithmetic!r}; choose from {choices}")
    if arithmetic not in card.flop_per_s:
        raise ValueError(f"{card.name} has no {arithmetic}; choose from {', '.join(card.flop_per_s)}")
    need = demand(workload, VALUE_BYTES[arithmetic])
    seconds = (
        2 * need.matrix_macs / card.flop_per_s[arithmetic],
        need.vector_macs / card.fp32_macs_per_s,
        need.exponentials / card.exponentials_per_s,
        need.nbytes(card.on_chip_bytes) / card.bytes_per_s,
    )
    return Floor(dict(zip(RESOURCES, seconds, strict=True)))


def demand(workload: Workload, value_bytes: int) -> Demand:
    """What a step needs, with weights and activations of so many bytes a value.

    Guidance (`sample`) evaluates the network on two conditions: a batch twice as large. A backward pass takes two
    products for each of the forward pass, and the scan's adjoint eight multiply-adds for its four (models/scan):
    training has three times the arithmetic.

    Training has no more exponentials for certain than its forward pass. The backward pass needs every decay and every
    weight of the softmax again, but these are values that the forward pass has: they can be kept, at 2·B·L·E·S and
    B·heads·L² values, instead of being evaluated twice, as fused kernels do.

    Raises ValueError for joint images.
    """
    if workload.joint_images:
        raise ValueError("there are no floors for joint images")
    return _demand(workload.spec, workload.resolution, workload.batch, workload.action, value_bytes)


@lru_cache(maxsize=1 << 14)
def _demand(spec: ModelSpec, resolution: int, batch: int, action: str, value_bytes: int) -> Demand:
    evaluated = 2 * batch if action == "sample" else batch
    cost = analytic(spec, resolution, evaluated)
    scan_macs = sum(op.macs for op in cost.ops if op.kind == "scan")
    passes = PASSES if action == "train" else 1
    return Demand(
        matrix_macs=passes * (cost.macs - scan_macs),
        vector_macs=passes * scan_macs,
        exponentials=exponentials(cost, spec),
        traffic=traffic(spec, resolution, batch, action, cost.params, value_bytes),
    )


def exponentials(cost: Cost, spec: ModelSpec) -> int:
    """Exponentials of a forward pass, and functions of their kind, one for each result that needs one at least.

    The scan: a decay exp(Δ_t A) for each of (B, L, E, S) in each direction; A has a value of its own in each of (E, S),
    so that none follows from another. Its step sizes, softplus: an exponential and a logarithm for each of (B, L, E).
    Softmax: L² a head. SiLU and GELU: a sigmoid or a tanh each. What the scan's gate needs is not in the closed form
    and not counted.
    """
    decays = sum(op.elementwise for op in cost.ops if op.kind == "scan")
    activations = sum(op.elementwise for op in cost.ops if op.kind == "activation")
    return decays + 2 * (decays // spec.state) + activations


def traffic(
    spec: ModelSpec, resolution: int, batch: int, action: str, params: int, value_bytes: int
) -> tuple[tuple[int, int], ...]:
    """The bytes that cross the edge of the chip, and how often: (bytes, times).

    Once: every weight is read and the latents are read and written, in steps that follow each other all alike; the
    chip can keep a part from one step to the next, no larger than it is. Of the table of classes a row a sample is
    read, and the table of positions can be computed.

    Between layers: a mixing gives no token before it has seen all of them. When its first result is there, the
    residual stream of the whole sequence, L·D values, has been computed and is needed later, to be added to. What of it
    the chip cannot hold is written and read again; so it is for each sample by itself, since samples can go one by one.
    Blocks that alternate between space and time mix all tokens two by two. (No block's input is computed twice.)

    Training: the forward pass reads the weights; the update reads and writes them, both moments of AdamW and the
    average, 32 bytes a parameter, and the backward pass can share that reading. Gradients need not leave the chip. The
    inputs of a sample's blocks wait for its backward pass, as with checkpointing; what else is kept could be computed
    anew.
    """
    side, frames = resolution // spec.downsample, max(1, spec.frames)
    used = params - max(0, spec.num_classes + 1 - batch) * spec.width
    latents = batch * frames * side**2 * (spec.channels + spec.out_channels) * value_bytes
    residual = frames * spec.tokens(resolution) * spec.width * value_bytes
    mixings = spec.depth // 2 if spec.frames and spec.arrangement == "alternating" else spec.depth
    if action == "train":
        update = 2 * 4 * STATE_BYTES * used
        return (STATE_BYTES * used + latents, 1), (update, 1), (mixings * residual, 2 * batch)
    samples = 2 * batch if action == "sample" else batch
    return (value_bytes * used + latents, 1), (residual, 2 * mixings * samples)


@dataclass(frozen=True)
class Crossover:
    """Resolutions in pixels at which the faster of two models changes on a card, of those that both can have.

    Where every unit runs at its peak, a model is `slower_to` a resolution and `faster_from` another however much of
    either step overlaps. Its floor is the lower one from `lower_from` on: at its floor it is faster than the other can
    be. What lies between the first two depends on the overlap, which floors do not tell. None: nowhere.
    """

    slower_to: int | None
    lower_from: int | None
    faster_from: int | None


def crossover(one: Workload, other: Workload, card: Card, arithmetic: str) -> Crossover:
    """Where the step of `one` overtakes that of `other`, over all resolutions up to SIDES patches a side.

    Both must cut images into the same tokens. A `from` holds at every larger resolution, too, as far as is searched.
    """
    unit = one.spec.downsample * one.spec.patch
    resolutions = range(unit, (SIDES + 1) * unit, unit)
    pairs = [[floor(replace(w, resolution=px), card, arithmetic) for w in (one, other)] for px in resolutions]
    slower = [a.value > b.apart for a, b in pairs]
    return Crossover(
        slower_to=max(itertools.compress(resolutions, slower), default=None),
        lower_from=_from([a.value < b.value for a, b in pairs], resolutions),
        faster_from=_from([a.apart < b.value for a, b in pairs], resolutions),
    )


def _from(holds: Sequence[bool], resolutions: Sequence[int]) -> int | None:
    """The first resolution from which on all hold."""
    last = max((i for i, one in enumerate(holds) if not one), default=-1) + 1
    return resolutions[last] if last < len(resolutions) else None
