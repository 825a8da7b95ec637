"""Imports point one way: doors, rooms, shared nouns, models, scan."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("harness.cost", "harness.diffusion", "harness.metrics")
DOORS = ("flops", "bench", "train", "sample", "eval", "tables", "plots", "reproduce")
FILES = sorted([*(ROOT / "models").rglob("*.py"), *(ROOT / "harness").rglob("*.py")])


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    found = set()
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in ("models", "harness")}


def layer(module: str) -> int:
    """The higher may import the lower, never the other way."""
    parts = module.split(".")
    if parts[0] == "models":
        return 0 if parts[1:2] == ["scan"] else 1
    if len(parts) > 1 and parts[1] in DOORS:
        return 4
    return 3 if module.startswith(ROOMS) else 2


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    module = module_of(path)
    for imported in imports_of(path) - {"harness"}:
        assert layer(imported) <= layer(module), f"{module} imports {imported}"
        if layer(module) == 4:
            assert layer(imported) < 4, f"door {module} imports door {imported}"
        if layer(module) == 3 and layer(imported) == 3:
            assert module.split(".")[1] == imported.split(".")[1], f"room {module} imports room {imported}"


def test_the_rule_can_fail():
    assert layer("harness.flops") > layer("harness.cost.trace") > layer("harness.store") > layer("models.dim")
    assert layer("models.dim") > layer("models.scan.op")


def test_the_catalogue_and_the_closed_form_need_no_torch():
    code = "import sys; from harness.cost import analytic; from models import spec; " \
           "print(analytic(spec('DiM-XL/2'), 256).macs, 'torch' in sys.modules)"  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["181895380992", "False"]
