"""Where results lie: the project's own, which come with the package, and a user's, in a folder of their choosing."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "DIM_VS_DIT_HOME"
DEFAULT_HOME = "output"

_PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = _PACKAGE.parent
"""The folder that holds the package: a checkout, or site-packages."""

PROJECT = _PACKAGE / "results" if (_PACKAGE / "results").is_dir() else CHECKOUT / "results"
"""The project's published tables, records and samples: of the installed package, else of the checkout."""


def home() -> Path:
    """Where commands write: the folder that DIM_VS_DIT_HOME names, else `output` in the working directory."""
    return Path(os.environ.get(VARIABLE) or DEFAULT_HOME)


def measurements() -> Path:
    """Records of a user's measurements, one file a kind."""
    return home() / "measurements"


def runs() -> Path:
    """Checkpoints, samples and caches."""
    return home() / "runs"
