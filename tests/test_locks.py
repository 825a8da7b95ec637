"""A directory has one writer; the kernel takes the lock back from a writer that dies."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.core.files import write_atomically, write_text
from harness.core.locks import LockedError, locked

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from harness.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start(code: str, directory: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", code, str(directory)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path):
    process = start(HOLDER, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_and_reads_who_holds_the_directory(holder, tmp_path):
    with pytest.raises(LockedError, match=rf"is in use by process {holder.pid} on .*: python"), locked(tmp_path):
        pass


def test_a_killed_holder_leaves_no_lock(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path):
        pass


def test_a_second_process_that_waits_goes_on_when_the_first_ends(holder, tmp_path):
    second = start(HOLDER.replace("sys.argv[1])", "sys.argv[1]), wait=True").replace("60", "0"), tmp_path)
    assert second.stderr.readline().startswith(f"waiting for process {holder.pid}")
    assert second.poll() is None
    holder.kill()
    out, _ = second.communicate(timeout=30)
    assert out == "held\n"


def test_a_child_keeps_the_lock_of_a_parent_that_dies(tmp_path):
    child = "import time; print('up', flush=True); time.sleep(60)"
    parent = f"""
import subprocess, sys, time
from pathlib import Path
from harness.core.locks import locked
with locked(Path(sys.argv[1])) as lock:
    child = subprocess.Popen([sys.executable, "-c", {child!r}], pass_fds=[lock])
    print(child.pid, flush=True)
    time.sleep(60)
"""
    process = start(parent, tmp_path)
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    with pytest.raises(LockedError), locked(tmp_path):
        pass
    subprocess.run(["kill", "-9", str(pid)], check=True)
    for _ in range(100):
        try:
            with locked(tmp_path):
                break
        except LockedError:
            time.sleep(0.05)
    else:
        pytest.fail("the lock outlived everyone")


def test_of_two_writers_of_one_file_the_second_begins_when_the_first_has_ended(tmp_path):
    path, order = tmp_path / "table.md", []
    second = threading.Thread(target=lambda: (write_text(path, "second"), order.append("second")))

    def first(file):
        file.write(b"fir")
        second.start()
        time.sleep(0.2)  # the second one may try as long as it likes
        assert path.with_name(".table.md.tmp").read_bytes() in (b"", b"fir")
        file.write(b"st, and longer than the second")
        order.append("first")

    write_atomically(path, first)
    second.join()
    assert order == ["first", "second"]
    assert [file.name for file in tmp_path.iterdir()] == ["table.md"]
    assert path.read_text() == "second"


def test_a_writer_that_fails_leaves_the_file_as_it_was_and_the_next_one_writes(tmp_path):
    path = tmp_path / "table.md"
    write_text(path, "before")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_atomically(path, fail)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["table.md"]
    path.with_name(".table.md.tmp").write_text("what a killed writer left, which is longer")
    write_text(path, "after")
    assert path.read_text() == "after"
