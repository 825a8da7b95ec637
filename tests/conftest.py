"""What all tests share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # of several workers each has one thread, or they fight for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# A bounded budget by default; `--hypothesis-profile long` for an evening. Nothing depends on the clock.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("usual", max_examples=60, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=20_000, **COMMON)
settings.load_profile("usual")


LONGEST = ("test_reproduce", "test_slurm", "test_bench", "test_train", "test_efficientnet_lite0", "test_rehearsal")
"""Files that take longest: of several workers each begins with one, so that none is left alone with it at the end."""


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist would begin with the files of most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="module")
def one_thread():
    """Here and in child processes: enough for small models, and many small parallel operators wait for each other."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)
