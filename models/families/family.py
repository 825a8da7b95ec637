"""What a model family is, as one value: all that it does not share with the others. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.operations import Op

if TYPE_CHECKING:
    from models.block import Block
    from models.spec import ModelSpec
    from models.video import VideoBlock


@dataclass(frozen=True, kw_only=True, eq=False)
class Implementations:
    """The ways of running a family's mixer. They differ in time and memory, never in the function that is computed.

    `field` is what a record and a flag of harness.bench call the choice, as "attention".
    `usual` are the names that a sweep runs where none is given; the first is the default.
    `choices()` gives every name. `resolve(name, device)` gives what a name such as "auto" stands for on a device of
    that name; it is None where a name says it already. Both may import torch.
    """

    field: str
    usual: tuple[str, ...]
    choices: Callable[[], Sequence[str]]
    resolve: Callable[[str, str], str] | None = None

    @property
    def default(self) -> str:
        return self.usual[0]

    def words(self, name: str) -> str:
        """As tables and figures print it: "sdpa attention"."""
        return f"{name} {self.field}"

    def check(self, name: str) -> None:
        """Raises ValueError, with the choices, for an unknown name."""
        if name not in self.usual and name not in self.choices():
            raise ValueError(f"unknown {self.field} backend {name!r}; choose from {', '.join(self.choices())}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A family of models: the shared skeleton (models/denoiser.py) with blocks of its own.

    `name` is what public names begin with: DiT of `DiT-XL/2`.
    `depths` maps a variant to the number of blocks by size. The variant "" has the depths of the family's paper;
    another is a part of the public name: `DiM-XL/2-matched`.
    `operations(spec, axes, B, L)` is the closed form of one block that mixes over those axes in turn (see
    `ModelSpec.axes`), for a batch of B and L tokens a frame. `adaln_zero` gives it for an adaLN-Zero block.
    `block()` and `video_block()` import and return the types of its blocks over images and over clips, so that the
    value itself needs no torch; without a `video_block` there are no models of video.
    `implementations` are the ways of running its mixer, None where there is one.
    `recomputes` says that the backward makes the mixer's operands again, unless its blocks are to `keep_operands`.
    `counterpart` names the family that this one is compared with.
    """

    name: str
    depths: Mapping[str, Mapping[str, int]]
    operations: Callable[[ModelSpec, tuple[str, ...], int, int], list[Op]]
    block: Callable[[], type[Block]]
    video_block: Callable[[], type[VideoBlock]] | None = None
    implementations: Implementations | None = None
    recomputes: bool = False
    counterpart: str | None = None
