"""Imports point one way: commands, report, suites, cost and diffusion and metrics, data, core, models, scan."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("models.scan", "models", "harness.core", "harness.data", "harness.cost harness.diffusion harness.metrics",
          "harness.suites", "harness.report")  # fmt: skip
"""From the bottom up; packages on one line do not know each other. Commands are above all."""
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


def layer(module: str) -> tuple[int, str]:
    """How high a module lies, and in which package: the higher may import the lower, never the other way."""
    for height, packages in enumerate(LAYERS):
        for package in packages.split():
            if module == package or (module.startswith(f"{package}.") and module != f"{package}.__main__"):
                return height, package
    return len(LAYERS), module


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    module = module_of(path)
    height, package = layer(module)
    for imported in imports_of(path) - {"harness", module}:
        under, of = layer(imported)
        assert under < height or of == package, f"{module} imports {imported}"


def test_the_rule_can_fail():
    names = "flops report.cost suites.run cost.trace data.npz core.store"
    heights = [layer(name)[0] for name in [*(f"harness.{name}" for name in names.split()), "models.families.dim"]]
    assert heights == sorted(set(heights), reverse=True)
    assert layer("harness.cost.trace")[0] == layer("harness.metrics.recipes")[0]


def test_the_catalogue_and_the_closed_form_need_no_torch():
    code = "import sys; from harness.cost import analytic; from models import spec; " \
           "print(analytic(spec('DiM-XL/2'), 256).macs, 'torch' in sys.modules)"  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["181895380992", "False"]
