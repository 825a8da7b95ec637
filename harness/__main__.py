"""`python -m harness` and `dim-vs-dit`: the commands by name."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "flops": "exact cost of every model, and what other tools say of it",
    "bench": "memory and latency, predicted and measured",
    "train": "train a DiT or a DiM",
    "sample": "draw samples from a checkpoint",
    "eval": "score samples or a checkpoint: FID, sFID, IS, precision, recall, FVD",
    "tables": "the paper's tables, printed and measured",
    "plots": "the figures",
    "report": "all of it as one page, to be opened in a browser",
    "reproduce": "train, sample and score a whole comparison",
    "data": "encode an image tree into latents",
}

PACKAGES = ("data", "report")
"""Commands that are packages."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names on the others; without one, list the commands."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print("usage: dim-vs-dit COMMAND [FLAGS]   (or: python -m harness.COMMAND [FLAGS])\n")
        print("\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items()))
        print("\nCOMMAND --help explains a command.")
        return 0
    name = given[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=3) or list(COMMANDS)
        print(f"dim-vs-dit: error: unknown command {name!r}; nearest: {', '.join(near)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"harness.{name}.__main__" if name in PACKAGES else f"harness.{name}")
    sys.argv = [f"{sys.argv[0]} {name}", *given[1:]]
    return int(module.main(given[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
