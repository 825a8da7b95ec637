"""The backend for CUDA devices: Triton kernels, for one direction or for two in one launch."""
