"""The process group: alone it is the identity, together all processes see the same."""

import os

import pytest
import torch
import torch.multiprocessing as mp

from harness.core import distributed
from harness.core.distributed import Agreement, Ranks, choose_device, exclusively, ranks
from harness.core.locks import LockedError


def _worker(rank, port, results):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with ranks(torch.device("cpu")) as here:
        agreement = Agreement()
        votes = [agreement.reached(rank == 1 and step == 3) for step in range(6)]  # one process alone says yes, once
        mean = distributed.mean(torch.tensor([1.0, 5.0]) * (rank + 1))
        results[rank] = (here.rank, here.world, here.first, list(here.rows(6)), votes, mean.tolist())


def test_two_processes_agree_and_share(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_worker, args=(29_000 + os.getpid() % 1000, results), nprocs=2)
        first, second = results[0], results[1]
    assert first[:4] == (0, 2, True, [0, 1, 2])
    assert second[:4] == (1, 2, False, [3, 4, 5])
    assert first[4] == second[4] == [False, False, False, False, True, False], "all learn it at the same, next step"
    assert first[5] == second[5] == [1.5, 7.5]


def test_alone_everything_is_the_identity(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with ranks(torch.device("cpu")) as here:
        assert (here.rank, here.world, here.first) == (0, 1, True)
        assert Agreement().reached(True)
        assert distributed.mean(torch.tensor([2.0])).tolist() == [2.0]
        distributed.barrier()


def test_work_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="7 do not divide evenly among 2"):
        Ranks(0, 2, torch.device("cpu")).rows(7)


def test_an_unknown_or_absent_device_is_named():
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            choose_device("cuda")


def _fails_alone(rank, port, error):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with ranks(torch.device("cpu")) as here:
        if here.rank == 1:
            raise error
        distributed.barrier()  # which the other never reaches


@pytest.mark.parametrize("error", [ValueError("no such data"), OSError("disk full")])
def test_a_process_that_fails_alone_ends_the_others_and_says_why(capfd, error):
    context = mp.spawn(_fails_alone, args=(31_000 + os.getpid() % 1000, error), nprocs=2, join=False)
    for process in context.processes:
        process.join(60)
    assert [process.exitcode for process in context.processes] == [1, 1]
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("process ")] == [
        f"process 1 of 2: {error}"
    ]


def test_the_first_process_holds_a_directory_for_all(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    first, second = Ranks(0, 2, torch.device("cpu")), Ranks(1, 2, torch.device("cpu"))
    with (
        exclusively(tmp_path, first),
        exclusively(tmp_path, second),
        pytest.raises(LockedError, match="is in use by process"),
        exclusively(tmp_path, first),
    ):
        pass


def test_more_processes_than_gpus_are_one_line(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    complaint = "process 4 of this machine has no GPU: torch sees 2"
    with pytest.raises(ValueError, match=complaint), ranks(torch.device("cuda")):
        pass
