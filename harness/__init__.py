"""How it is measured: counters, clocks, trainers, metrics, tables."""

import importlib.util
import sys
from pathlib import Path


def _import_our_models() -> None:
    """Make `import models` find the package beside this one, whatever else has that name.

    `python -m` puts the working directory first on the path, and a project may well have a `models.py` there (DiT's
    repository has one).
    """
    home = Path(__file__).resolve().parents[1] / "models"
    known = sys.modules.get("models")
    if known is not None and home == Path(getattr(known, "__file__", None) or "/").resolve().parent:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        "models", home / "__init__.py", submodule_search_locations=[str(home)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["models"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["models"])


_import_our_models()
