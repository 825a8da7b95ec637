"""Options declared once: the fields of a frozen dataclass are the flags of a command.

    @dataclass(frozen=True, kw_only=True)
    class Sampling:
        steps: int = option(250, "network evaluations", least=1)
        sampler: str = option("ddpm", "how a step is taken", choices=("ddpm", "ddim"))

    add_options(parser, Sampling)                     # --steps, --sampler
    from_arguments(Sampling, parser.parse_args())     # Sampling(steps=250, sampler="ddpm")

A Python caller sets the same fields by name, and both meet the same checks.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a value of a field may be: one of `choices`, or a number between `least` and `most`, both included."""

    choices: Sequence[Any] = ()
    least: float | None = None
    most: float | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, naming the field and what it may be, for a value out of bounds or not finite."""
        if self.choices and value not in self.choices:
            raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(map(str, self.choices))}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")
        if self.least is not None and value < self.least:
            raise ValueError(f"{name} must be at least {self.least:g}, not {value:g}")
        if self.most is not None and value > self.most:
            raise ValueError(f"{name} must be at most {self.most:g}, not {value:g}")


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    choices: Sequence[Any] = (),
    least: float | None = None,
    most: float | None = None,
    metavar: str | None = None,
    flag: str | None = None,
) -> Any:
    """A field of a dataclass of options, with its default, its help text and its bounds.

    `flag` replaces the name that follows from the field's.
    """
    metadata = {"help": help, "bounds": Bounds(choices, least, most), "metavar": metavar, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def check(options: Any) -> None:
    """Raise ValueError for the first field of a dataclass that is out of its bounds; for `__post_init__`."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and "bounds" in field.metadata:
                field.metadata["bounds"].check(field.name, one)


def add_options(
    parser: argparse._ActionsContainer, cls: type, *, skip: Sequence[str] = (), overrides_only: bool = False,
    shown: tuple[str, Any] | None = None,
) -> None:  # fmt: skip
    """One flag for each field of `cls` that `option` declares.

    With `overrides_only` a flag that is not given is None: a preset has the value. `shown` is the name and value of a
    preset whose fields the help states.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "bounds" not in field.metadata or field.name in skip:
            continue
        name = field.metadata["flag"] or f"--{field.name.replace('_', '-')}"
        kind, many = _kind(hints[field.name])
        required = field.default is dataclasses.MISSING
        default = None if overrides_only or required else field.default
        settings: dict[str, Any] = {"dest": field.name, "default": default, "help": _help(field, overrides_only, shown)}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction if field.default is True else "store_true"
        else:
            settings |= {"type": _reader(name, kind, field.metadata["bounds"]), "required": required}
            settings["metavar"] = field.metadata["metavar"] or _metavar(kind, field.metadata["bounds"])
            if many:
                settings["nargs"] = "+"
        if overrides_only:
            settings.pop("required", None)
        parser.add_argument(name, **settings)


def from_arguments(cls: type[T], arguments: argparse.Namespace, base: T | None = None, **changes: Any) -> T:
    """A `cls` of the flags that were given: its defaults, or the fields of `base`, where a flag is None.

    Raises ValueError as `cls` does.
    """
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()} | changes
    return cls(**given) if base is None else dataclasses.replace(base, **given)  # type: ignore[type-var]


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether a flag takes several."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _kind(next(one for one in arguments if one is not types.NoneType))
    if origin is tuple:
        return _kind(arguments[0])[0], True
    return hint, False


def _reader(name: str, kind: type, bounds: Bounds) -> Any:
    def read(text: str) -> Any:
        try:
            if kind in (int, float) and not text.isascii():
                raise ValueError
            value = _path(text) if kind is Path else kind(text)
        except ValueError:
            what = {int: "a whole number", float: "a number", Path: "a path"}.get(kind, kind.__name__)
            raise argparse.ArgumentTypeError(f"must be {what}, not {text!r}") from None
        try:
            bounds.check(name, value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{name} ")) from None
        return value

    return read


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


def _help(field: dataclasses.Field[Any], overrides_only: bool, preset: tuple[str, Any] | None = None) -> str:
    text: str = field.metadata["help"]
    choices = field.metadata["bounds"].choices
    if choices:
        text += f": {', '.join(map(str, choices))}"
    name, value = ("default", field.default) if preset is None else (preset[0], getattr(preset[1], field.name))
    nothing = value is None or value is False or value is dataclasses.MISSING or value in ((), "")
    if nothing or (overrides_only and preset is None):
        return text.replace("%", "%%")
    value = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{text} ({name}: {value})".replace("%", "%%")


def _metavar(kind: type, bounds: Bounds) -> str:
    if bounds.choices:
        return "NAME"
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")
