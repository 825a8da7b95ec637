"""Models of a user's own, in a working directory whose modules have our names; what is wrong with them is one line."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import harness
import models
from harness import flops

ROOT = Path(__file__).parents[1]
NET = """
    from torch import nn

    def net():
        import siblings_of_net  # found late, inside the factory
        head = nn.Linear(8 * 32 * 32, siblings_of_net.CLASSES)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), head)
"""
GMACS = (32 * 32 * 8 * 27 + 8 * 32 * 32 * 10) / 1e9
INPUT = ["--input", "1x3x32x32"]


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A working directory with a `models.py`, and a module that it imports late."""
    write(tmp_path / "models.py", NET)
    write(tmp_path / "siblings_of_net.py", "CLASSES = 10")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("siblings_of_net", None)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))


def row(capsys, *arguments: str) -> dict:
    flops.main(["--records", "records.jsonl", "--format", "json", *arguments])
    return json.loads(capsys.readouterr().out)[0]


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def test_a_models_py_is_counted_and_ours_is_put_back(directory, capsys):
    before = dict(sys.modules)
    found = row(capsys, "--model", "models:net", *INPUT)
    assert found["exact_gmacs"] == pytest.approx(GMACS)
    assert str(directory) not in sys.path
    ours = [name for name in before if name.partition(".")[0] in ("models", "harness")]
    assert all(sys.modules[name] is before[name] for name in ours)
    assert sys.modules["models"] is models


def test_a_tool_that_computes_the_model_is_given_one_with_values(directory, capsys):
    found = row(capsys, "--model", "models:net", *INPUT, "--convention", "fvcore")
    assert found["fvcore_gmacs"] == pytest.approx(GMACS)


def test_a_harness_py_beside_it_is_theirs_too(directory, capsys):
    write(directory / "harness.py", "CLASSES = 10")
    write(directory / "siblings_of_net.py", "from harness import CLASSES")
    assert row(capsys, "--model", "models:net", *INPUT)["exact_gmacs"] == pytest.approx(GMACS)
    assert sys.modules["harness"] is harness


def test_a_folder_of_theirs_without_an_init_holds_their_models(directory, capsys):
    (directory / "models.py").unlink()
    write(directory / "models" / "small.py", NET)
    write(directory / "models" / "large.py", "from models.small import net")
    assert row(capsys, "--model", "models.large:net", *INPUT)["exact_gmacs"] == pytest.approx(GMACS)
    assert sys.modules["models"] is models


def test_a_folder_of_checkpoints_does_not_hide_our_models(directory, capsys):
    (directory / "models.py").unlink()
    write(directory / "models" / "weights.txt", "")
    write(
        directory / "thin.py",
        """
        from models import create_model
        def net(): return create_model("DiT-N/8", resolution=64)
        """,
    )
    found = row(capsys, "--model", "thin:net", "--input", "1x4x8x8", "1", "1:int64")
    assert found["exact_gmacs"] > 0


def test_our_own_models_can_be_named_from_the_checkout(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    records = ["--records", str(tmp_path / "records.jsonl")]
    assert row(capsys, "--model", "models.block:GELUTanh", "--input", "3", *records)["exact_gmacs"] == 0
    assert sys.modules["models"] is models


def test_python_m_works_where_a_models_py_lies(directory):
    done = run(directory, "-m", "harness.flops", "--model", "models:net", *INPUT, "--records", "records.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "models:net" in done.stdout


def test_the_console_command_works_where_a_harness_py_lies(directory):
    write(directory / "harness.py", "raise SystemExit('the wrong one')")
    done = run(directory, "-P", "-m", "harness", "flops", "--model", "DiT-N/8", "--res", "64", "--by-op")
    assert (done.returncode, done.stderr) == (0, "")
    assert "blocks.*.attn" in done.stdout


def test_importing_harness_makes_sure_of_our_models_and_needs_no_torch(directory):
    code = "import models; import harness, sys; from models import spec; " \
           "print(sys.modules['models'].__file__, spec('DiT-N/2').depth, 'torch' in sys.modules)"  # fmt: skip
    write(directory / "models.py", "spec = 'not ours'")
    done = run(directory, "-c", code)
    assert done.stdout.split() == [str(ROOT / "models" / "__init__.py"), "3", "False"], done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "raise RuntimeError('no weights\\nanywhere')",
            "cannot import 'mine' of --model mine:net: RuntimeError: no weights",
        ),
        ("def net(:", "cannot import 'mine' of --model mine:net: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import sys; sys.exit(3)", "cannot import 'mine' of --model mine:net: it calls sys.exit(3)"),
        ("import sys; sys.exit()", "cannot import 'mine' of --model mine:net: it calls sys.exit()"),
        ("import no_such_package", "cannot import 'mine' of --model mine:net: No module named 'no_such_package'"),
        ("def net(): raise KeyError('width')", "mine:net() failed: KeyError: 'width'"),
        ("def net(): raise SystemExit(1)", "mine:net() failed: it calls sys.exit(1)"),
        ("net = 3", "mine:net() failed: TypeError: 'int' object is not callable"),
    ],
)
def test_what_is_wrong_with_a_users_module_is_one_line(tmp_path, monkeypatch, capsys, text, complaint):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(SystemExit) as stopped:
        flops.main(["--model", "mine:net", *INPUT, "--records", "records.jsonl"])
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.out) == (2, "")
    assert captured.err == f"harness.flops: error: {complaint}\n"
    assert not (tmp_path / "records.jsonl").exists()
