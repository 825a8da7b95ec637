"""What all commands promise: an interrupt, a warning and a place that cannot be written are one line each."""

import importlib
import signal
import warnings

import pytest

from harness.core import command, paths
from harness.core.command import BAD_INPUT, FAILED, STOPPED, Parser


@pytest.fixture
def ended(capsys):
    """The exit code of some work, and its lines on stderr."""

    def run(work):
        code = command.run(Parser(prog="harness.some"), work)
        return code, capsys.readouterr().err.strip().splitlines()

    return run


def test_an_interrupt_is_one_line_and_an_exit_code_of_its_own(ended):
    def work():
        raise KeyboardInterrupt

    assert ended(work) == (STOPPED, ["harness.some: stopped; run the same command again"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_that_ends_a_command_is_an_interrupt(ended, number):
    def work():
        signal.raise_signal(number)

    assert ended(work) == (STOPPED, ["harness.some: stopped; run the same command again"])
    assert signal.getsignal(number) == signal.SIG_DFL


def test_memory_that_is_not_there_is_one_line(ended):
    def work():
        raise MemoryError("Unable to allocate 59.6 GiB")

    assert ended(work) == (FAILED, ["harness.some: error: Unable to allocate 59.6 GiB"])


def test_a_device_whose_memory_ends_is_one_line(ended):
    class OutOfMemoryError(RuntimeError):  # as torch's is
        pass

    def work():
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert ended(work) == (
        FAILED, ["harness.some: error: CUDA out of memory. Tried to allocate 2.00 GiB.; lower the batch"]
    )  # fmt: skip


def test_a_warning_is_one_line_without_its_place_in_the_program():
    before = warnings.formatwarning
    shown = []

    def work():
        shown.append(warnings.formatwarning("line 1 is damaged", UserWarning, "store.py", 99))
        shown.append(warnings.formatwarning("soon gone", DeprecationWarning, "store.py", 99))

    assert command.run(Parser(prog="harness.some"), work) == 0
    assert shown[0] == "warning: line 1 is damaged\n"
    assert "store.py:99" in shown[1], "what is the programmer's to read"
    assert warnings.formatwarning is before


@pytest.mark.parametrize("stopped_by", [PermissionError, NotADirectoryError])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("flops", ["--res", "256"]), ("flops", ["--table", "5"]),
        ("flops", ["--model", "torch.nn:Identity", "--input", "1x3"]),
        ("bench", ["--res", "64", "--model", "DiT-P/2"]), ("bench", ["--predict"]), ("tables", []), ("plots", []),
        ("report.__main__", []), ("reproduce", ["--suite", "smoke"]),
        ("eval", ["--samples", "none.npz", "--metric", "fd32@digits"]),
    ],
)  # fmt: skip
def test_the_place_of_results_is_looked_at_before_there_are_any(
    tmp_path, monkeypatch, capsys, module, arguments, stopped_by
):
    home = tmp_path / "home"
    if stopped_by is NotADirectoryError:
        home.write_text("a file")
    else:  # whoever runs the tests may be allowed everything
        home.mkdir()
        monkeypatch.setattr(command.os, "access", lambda *_: False)
    monkeypatch.setenv(paths.VARIABLE, str(home))
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"harness.{module}").main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == BAD_INPUT
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert str(home) in line


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_no_file_of_results(capsys, device):
    with pytest.raises(SystemExit):
        importlib.import_module("harness.flops").main(["--res", "256", "--records", device])
    assert f"cannot write '{device}': it is not a file that keeps what is written" in capsys.readouterr().err
