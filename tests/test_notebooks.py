"""The notebooks: calls and prose alone, committed executed, and what they show is what the records say now."""

import ast
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install nbformat nbclient ipykernel")
nbclient = pytest.importorskip("nbclient", reason="pip install nbformat nbclient ipykernel")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
AGAIN = "execute it again: jupyter execute --inplace notebooks/*.ipynb"
LARGEST = 1 << 20  # bytes


def shown(notebook) -> list[list[tuple[str, str]]]:
    """What each code cell shows: kinds of output, with the text of those that are text, blanks at line ends dropped."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        found = []
        for output in cell.outputs:
            data = {output.name: output.text} if output.output_type == "stream" else output.get("data", {})
            for kind, value in sorted(data.items()):
                text = "" if kind.startswith("image/") else "".join(value)
                found.append((kind, "\n".join(line.rstrip() for line in text.strip().splitlines())))
        cells.append(found)
    return cells


def test_there_are_four():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_calls_and_prose_alone(path):
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
            kinds = {type(statement) for statement in ast.parse(code).body}
            assert kinds <= {ast.ImportFrom, ast.Assign, ast.Expr}, f"logic in {path.name}: {cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_the_project_on_colab_and_nothing_elsewhere(path):
    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    ran = []

    class Colab:
        run_line_magic = staticmethod(lambda *command: ran.append(command))

        def __str__(self):
            return "<google.colab._shell.Shell object at 0x7f>"

    source = first.source.replace('repository = ""', 'repository = "https://example.org/it"')
    exec(source, {"get_ipython": Colab})
    assert ran == [("pip", "install --quiet git+https://example.org/it")]
    exec(source, {"get_ipython": object})
    assert len(ran) == 1
    assert first.outputs == []


def test_binder_installs_this_checkout():
    lines = (FOLDER.parent / ".binder" / "requirements.txt").read_text().splitlines()
    assert "-e .[notebooks]" in lines


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_a_clean_kernel_and_shows_what_is_committed(path):
    committed = nbformat.read(path, as_version=4)
    again = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        again, timeout=300, kernel_name="python3", resources={"metadata": {"path": FOLDER}}
    ).execute()
    for number, (before, now) in enumerate(zip(shown(committed), shown(again), strict=True), start=1):
        assert before == now, f"{path.name}, code cell {number} is stale; {AGAIN}"
