"""What all tests share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # of several workers each has one thread, or they fight for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
