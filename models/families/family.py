"""What a model family is, as one value: all that it does not share with the others. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.families.skeleton import ADALN, BlockForm, Skeleton
from models.sizes import PATCHES, SIZES, Size

if TYPE_CHECKING:
    from models.block import Block
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
class Kernel:
    """What a counter must know of an operator that a family adds to torch's dispatcher, beside its FLOP formula.

    `kind` is that of its operations, as "recurrence". `exponentials(arguments)` are those inside, counted as
    elementwise work. `body`, a function of the same arguments, allocates what the operator does: memory is predicted by
    running it on fake tensors. Without one the operator is taken to allocate its results alone.
    """

    kind: str
    exponentials: Callable[[Sequence[Any]], int] = lambda arguments: 0
    body: Callable[[], Callable[..., Any]] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A family of models: blocks of its own in a skeleton, which is DiT's unless it has one of its own.

    `name` is what public names begin with: DiT of `DiT-XL/2`.
    `depths` maps a variant to the number of blocks by size. The variant "" has the depths of the family's paper;
    another is a part of the public name: `DiM-XL/2-matched`. In "matched" stand the depths whose parameters are nearest
    to those of the counterpart, where that is not the paper's.
    `sizes` and `patches` are the widths and patches of its catalogue, `fields` the values of those fields of ModelSpec
    in which it differs from the usual.
    `operations(spec, axes, B, L)` is the closed form of one block that mixes over those axes in turn (see
    `ModelSpec.axes`), for a batch of B and L tokens a frame. `adaln_zero` gives it for an adaLN-Zero block.
    `block()` and `video_block()` import and return the types of its blocks over images and over clips, so that the
    value itself needs no torch; without a `video_block` there are no models of video.
    `implementations` are the ways of running its mixer, None where there is one.
    `recomputes` says that the backward makes the mixer's operands again, unless its blocks are to `keep_operands`.
    `counterpart` names the family that this one is compared with.
    `kernels` are operators of its own, by the name that torch's dispatcher knows.
    `counterpart` names the family that this one is compared with, size by size; `against` has the size of the
    counterpart where it is not of that name, "" where there is none.
    """

    name: str
    depths: Mapping[str, Mapping[str, int]]
    operations: BlockForm
    block: Callable[[], type[Block]]
    video_block: Callable[[], type[VideoBlock]] | None = None
    skeleton: Skeleton = ADALN
    sizes: Mapping[str, Size] = field(default_factory=lambda: SIZES)
    patches: Sequence[int] = PATCHES
    fields: Mapping[str, Any] = field(default_factory=dict)
    implementations: Implementations | None = None
    recomputes: bool = False
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    counterpart: str | None = None
    against: Mapping[str, str] = field(default_factory=dict)
