"""Train a network that comes with the package, as its weights were trained: seconds on one thread.

    python -m harness.metrics.features.train digits --out digits.safetensors

The same versions of torch and numpy on the same type of CPU give the same bytes; others give other features, and what
the package loads is the file that it ships, not this one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.core.command import Parser, writable
from harness.core.files import write_atomically
from harness.metrics.features import SPACES

TRAINED = {name: space.train for name, space in SPACES.items() if space.train}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, write, compare with the shipped file."""
    parser = Parser(prog="python -m harness.metrics.features.train", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("space", choices=TRAINED)
    parser.add_argument("--out", type=writable, required=True, metavar="FILE", help="a .safetensors file")
    given = parser.parse_args(arguments)
    content = trained(given.space)
    out: Path = given.out
    write_atomically(out, lambda file: file.write(content))
    digest = hashlib.sha256(content).hexdigest()
    shipped = SPACES[given.space].weights.sha256
    print(f"{out}: sha256 {digest}, {'the' if digest == shipped else 'not the'} shipped weights")
    return 0


def trained(space: str) -> bytes:
    """The weights of a newly trained network, as the content of a .safetensors file."""
    from safetensors.torch import save

    return save(TRAINED[space]().state_dict())


if __name__ == "__main__":
    sys.exit(main())
