"""The backend for CPUs: kernels that numba compiles, run on torch's threads."""
