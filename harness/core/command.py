"""What commands share: the parser, argument types, exit codes, and the flags that choose models."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import itertools
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from harness.core import paths
from harness.core.signals import interrupted_by_signals
from harness.core.workload import Workload
from models import catalogue, spec
from models.families import named
from models.spec import MERGES

PAPER_SIZES = ("S", "B", "L", "XL")
"""The sizes of the paper's tables, of the smallest first."""

FAILED, BAD_INPUT, STOPPED = 1, 2, 75
"""Exit codes: the work failed (disk full); the input was bad; stopped after a checkpoint, to be continued
(EX_TEMPFAIL of sysexits.h)."""

FAILURES = (ValueError, OSError, FloatingPointError, MemoryError)
"""What a command reports in a line; any other exception is a defect of the program, and keeps its traceback."""

OUT_OF_MEMORY = "OutOfMemoryError"
"""What torch raises where a device's memory ends; by name, since most commands begin without torch."""

MOST_THREADS = 1024
"""Of a process: far more than that, and OpenMP cannot make them."""

GRACE_S = 10.0
"""How long a process waits for the first one to report what both have met; torchrun meanwhile ends them all."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line on stderr and exit code 2."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse, which gives an empty list for `--flag=--`: here that flag lacks its value."""
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if action.nargs is None and action.option_strings and getattr(found, action.dest, None) == []:
                self.error(f"argument {'/'.join(action.option_strings)}: expected one argument")
        return found, rest

    def flags(self) -> set[str]:
        """All flags, by their first names."""
        return {action.option_strings[0] for action in self._actions if action.option_strings}

    def given(self, arguments: Sequence[str] | None = None) -> set[str]:
        """The flags that stand on a command line, by their first name, whatever their defaults."""
        absent = object()
        blank = argparse.Namespace(**dict.fromkeys((action.dest for action in self._actions), absent))
        found = vars(self.parse_args(arguments, blank))
        return {
            action.option_strings[0]
            for action in self._actions
            if action.option_strings and found[action.dest] is not absent
        }

    def error(self, message: str) -> NoReturn:
        given = re.fullmatch(r"unrecognized arguments: (-[\w-]+).*", message)
        if given:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(given[1], flags, n=3) or flags
            message = f"unknown flag {given[1]}; nearest: {', '.join(near)}"
        self.complain(message)
        raise SystemExit(BAD_INPUT)

    def complain(self, message: str) -> None:
        """One line on stderr.

        Of many processes that were given the same flags the first prints it, and the others wait to be ended by
        torchrun, which would otherwise end the first before it has printed. One that nobody ends has met what the
        first has not, such as a folder that is absent on its machine: it prints the line itself, with its rank.
        """
        which = ""
        if not first_process():
            time.sleep(GRACE_S)
            which = f" in process {os.environ['RANK']}"
        print(f"{self.prog}: error{which}: {message}", file=sys.stderr, flush=True)


def only_with(mode: str, flags: Iterable[str], not_with: bool = False) -> None:
    """Raise ValueError for the first of some flags, which change nothing without (or with) another."""
    for flag in sorted(flags):
        raise ValueError(f"{flag} changes nothing {'with' if not_with else 'without'} {mode}")


def run(parser: Parser, work: Callable[[], int | None]) -> int:
    """Do the work of a command; returns its exit code.

    ValueError is bad input: one line, exit code 2. OSError is a failure: one line that names the file, exit code 1; so
    are FloatingPointError, a result that is not finite, and MemoryError. An interrupt, SIGTERM or SIGUSR1 is one line,
    exit code 75. A reader of the output that goes away (`| head`) does not stop the work.
    """
    sys.stdout = _Patient(sys.stdout)
    try:
        with plain_warnings(), interrupted_by_signals():
            return work() or 0
    except KeyboardInterrupt:
        if first_process():
            print(f"\n{parser.prog}: stopped; run the same command again", file=sys.stderr, flush=True)
        return STOPPED
    except ValueError as error:
        parser.error(one_line(error))
    except OSError as error:
        where = f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
        parser.complain(where)
        return FAILED
    except (FloatingPointError, MemoryError) as error:
        parser.complain(one_line(error))
        return FAILED
    except RuntimeError as error:
        if type(error).__name__ != OUT_OF_MEMORY:
            raise
        parser.complain(f"{one_line(error)}; lower the batch")
        return FAILED
    finally:
        sys.stdout = sys.stdout.stream


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings to the user as one line each, without the place in the program that they come from."""

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return f"warning: {message}\n" if category is UserWarning else usual(message, category, filename, lineno, line)

    usual, warnings.formatwarning = warnings.formatwarning, plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def first_process() -> bool:
    """Whether this is the one process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Patient:
    """A stream that drops its text once nobody reads it, and writes `?` for a character that it cannot encode."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            return self._closed(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._closed("")

    def _closed(self, text: str) -> int:
        """Point the file descriptor nowhere, so that the interpreter can flush it at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    value = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return value


def threads(text: str) -> int:
    """argparse type: a number of threads."""
    value = positive(text)
    if value > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_THREADS}, not {text!r}")
    return value


def size(text: str) -> int:
    """argparse type: bytes, as `80GiB`, `512MiB`, `24GB` or a number of them; from 1 MiB to 1 PiB."""
    match = re.fullmatch(r"([0-9]{1,16}(?:\.[0-9]{1,6})?)\s*(GiB|MiB|GB|MB|)", text)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 80GiB, 24GB or 512MiB")
    nbytes = int(float(match[1]) * {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6, "": 1}[match[2]])
    if not 2**20 <= nbytes <= 2**50:
        raise argparse.ArgumentTypeError(f"must be at least 1MiB and at most {2**20}GiB, not {text!r}")
    return nbytes


def writable(text: str) -> Path:
    """argparse type: a file that can be written; the folders above it are made when it is."""
    path = Path(text) if text and "\0" not in text else Path()
    try:
        if path == Path() or (path.exists() and not path.is_file()):
            what = "no path" if not text else "a folder" if path.is_dir() else "not a file that keeps what is written"
            raise argparse.ArgumentTypeError(f"cannot write {text!r}: it is {what}")
        require_writable(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    return path


def folder(text: str) -> Path:
    """argparse type: a folder that can be written into; it is made when something is."""
    path = Path(text) if text and "\0" not in text else Path()
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"cannot write into {text!r}: it is {'no folder' if text else 'no path'}")
    try:
        require_writable(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write into {text!r}: {error.strerror}") from None
    return path


def require_writable(path: Path) -> None:
    """Raise OSError, naming it, for a file or folder that cannot be written, or created below the first that exists."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing != path and not existing.is_dir():
        raise NotADirectoryError(20, f"{existing} is not a folder", str(path))
    if not os.access(existing, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))


def require_folder(path: Path) -> Path:
    """The path, of a folder that can be written into or made. Raises ValueError, naming it, for any other."""
    try:
        if path.exists() and not path.is_dir():
            raise ValueError(f"cannot write into {path}: it is a file")
        require_writable(path)
    except OSError as error:
        raise ValueError(f"cannot write into {path}: {error.strerror or error}") from error
    return path


def records_file(given: Path | None, name: str) -> Path:
    """The file that records are added to: the given one, or that of this name among the user's measurements.

    Raises ValueError, naming it, for a folder that cannot be written.
    """
    return given or require_folder(paths.measurements()) / name


def add_model_flags(parser: argparse.ArgumentParser, models: list[str], resolutions: list[int]) -> None:
    """The flags that choose models, their resolutions, and departures from the paper's architecture."""
    everything = f"`all`: sizes {', '.join(PAPER_SIZES)} of all families"
    parser.add_argument(
        "--model", nargs="+", default=models, metavar="NAME", help=f"{everything} (default: %(default)s)"
    )
    parser.add_argument(
        "--res", nargs="+", type=positive, default=resolutions, metavar="PX", help="default: %(default)s"
    )
    parser.add_argument("--batch", type=positive, default=1, help="images or clips a forward pass (default 1)")
    parser.add_argument("--frames", type=positive, help="of a clip, for models of video (default 16)")
    parser.add_argument("--depth", type=positive, help="blocks, instead of the catalogue's")
    parser.add_argument(
        "--merge", choices=MERGES, help="how both scan directions are combined (default: DiM mean, DiS sum)"
    )
    parser.add_argument("--no-mlp", action="store_true", help="blocks without their MLP (adaLN of 3 chunks)")


def sweep(args: argparse.Namespace) -> list[Workload]:
    """The product of `--model` and `--res`, models first. Raises ValueError for what no model can do."""
    overrides: dict[str, object] = {}
    if args.frames is not None:
        overrides["frames"] = args.frames
    if args.depth is not None:
        overrides["depth"] = args.depth
    if args.no_mlp:
        overrides["mlp"] = False
    names = [name for given in args.model for name in (catalogue(PAPER_SIZES) if given == "all" else [given])]
    specs = [spec(name, **overrides) for name in dict.fromkeys(names)]
    if args.merge is not None:
        merging = {s.family: "merge" in named(s.family).fields for s in specs}
        if not any(merging.values()):
            raise ValueError(f"--merge is of none of the models {', '.join(args.model)}")
        specs = [dataclasses.replace(s, merge=args.merge) if merging[s.family] else s for s in specs]
    return [Workload(spec=s, resolution=r, batch=args.batch) for s, r in itertools.product(specs, args.res)]
