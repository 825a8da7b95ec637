"""The scan on CPUs, in float32: packs the operands for the compiled kernels, and runs these on torch's threads."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from models.scan.cpu import pages, threads
from models.scan.operands import Buffer, Gradients, ScanOperands

BLOCK = 128  # channels in a work item of the backward, unless that makes fewer items than threads
WIDEST = 384  # at most, of the forward: longer rows of memory are read faster, up to about here
CELLS_PER_THREAD = 1 << 16  # tokens x channels x states that are worth waking a thread for (some 20 microseconds)


@cache
def missing() -> str:
    """Why it does not run on this machine, or ""."""
    try:
        from models.scan.cpu import kernels  # noqa: F401  numba is slow to import, and only needed once a scan runs
    except ImportError as error:
        return f"numba cannot be imported ({error}); pip install numba"
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    """Why it does not take such tensors, or ""."""
    if device.type != "cpu":
        return f"it runs on CPU tensors, not on {device.type}"
    if dtype == torch.float64:
        return "its state is float32, and float64 inputs need a float64 state"
    return ""


def states_shape(scan: ScanOperands) -> tuple[int, ...]:
    """The inter-chunk states: that before every chunk, (B, chunks, strips of channels, N, channels in a strip)."""
    from models.scan.cpu.lanes import CHUNK, LANES
    from models.scan.cpu.tiles import GROUP

    batch, length, channels, states = scan.sizes
    return batch, -(-length // CHUNK), -(-channels // LANES), -(-states // GROUP) * GROUP, LANES


def forward(scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    job = _Job(scan, backward=False)
    out = job.sequence("out")
    states = job.packed("kept_states", pages.empty(*states_shape(scan)) if keep_states else torch.empty(0))
    job.run(keep_states)
    return job.unpad(out, scan.u).to(scan.u.dtype).contiguous(), states


def backward(scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    job = _Job(scan, backward=True)
    job.packed("kept_states", states)
    job.sequence("dout", dout)
    du, ddelta = job.sequence("du"), job.sequence("ddelta")
    dz = None if scan.z is None else job.sequence("dz")
    dA = job.packed("dA", torch.zeros(job.batch, *job.A.shape))
    dB = job.packed("dB", torch.empty(job.blocks, job.batch, job.length, job.states))
    dC = job.packed("dC", torch.empty(job.blocks, job.batch, job.length, job.states))
    dD = job.packed("dD", torch.zeros(job.batch, job.channels))
    ddelta_bias = job.packed("ddelta_bias", torch.zeros(job.batch, job.channels))
    job.run()
    # Each work item has written a part of its own: summed here, in one order whatever thread took which item.
    dA = dA.sum(0).transpose(1, 2).reshape(job.channels, job.states)
    gradients = (du, ddelta, dA, dB.sum(0), dC.sum(0), dD.sum(0), dz, ddelta_bias.sum(0))
    return tuple(
        None if operand is None or gradient is None else job.unpad(gradient, operand)
        for gradient, operand in zip(gradients, scan.tensors, strict=True)
    )


def workspace(scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
    """See `Backend.workspace`: copies of what is not float32 or not in whole vectors, the kernel's output, results."""
    from models.scan.cpu import kernels

    (scan,) = scans
    plan = _Plan(scan, backward)
    sequence, row = (plan.batch, plan.length, plan.channels), (plan.batch, plan.length, plan.states)
    given = {"u": scan.u, "delta": scan.delta, "z": scan.z} | ({"dout": scan.u} if backward else {})
    copied = [name for name, t in given.items() if t is not None and not plan.taken_as_it_is(t)]
    shapes: dict[str, tuple[int, ...]] = {f"copy of {name}": sequence for name in copied}
    shapes |= {
        f"copy of {name}": row
        for name, t in (("B", scan.B), ("C", scan.C))
        if t.shape[2] != plan.states or t.dtype != torch.float32 or not t.is_contiguous()
    }
    scratch = kernels.scratch_bytes(plan.strips, plan.states, backward)
    shapes["scratch"] = (plan.threads, scratch // 4)
    if backward:
        gradients = ("du", "ddelta", "dz")[: 2 + (scan.z is not None)]
        shapes |= dict.fromkeys(gradients, sequence)
        shapes |= dict.fromkeys(("dB", "dC"), (plan.blocks + 1, *row))  # a part of each block, and their sum
        shapes["dA"] = (plan.batch, plan.channels, plan.states)
    else:
        shapes |= {"kernel's out": sequence} | ({"kept states": states_shape(scan)} if keep_states else {})
    buffers = [Buffer(name, shape, torch.float32) for name, shape in shapes.items()]
    if not backward and not (scan.u.dtype == torch.float32 and scan.u.shape[2] == plan.channels):
        buffers.append(Buffer("out", tuple(scan.u.shape), scan.u.dtype))
    return buffers


class _Plan:
    """How a call's work is divided: the operands padded to whole vectors, work items, threads."""

    def __init__(self, scan: ScanOperands, backward: bool) -> None:
        from models.scan.cpu.lanes import LANES
        from models.scan.cpu.tiles import GROUP

        self.backward = backward
        self.batch, self.length, channels, states = scan.sizes
        self.channels = -(-channels // LANES) * LANES
        self.states = -(-states // GROUP) * GROUP
        cells = self.batch * self.length * self.channels * self.states
        self.threads = min(torch.get_num_threads(), max(1, cells // CELLS_PER_THREAD))
        self.total_strips = self.channels // LANES
        self.strips = self._summed(BLOCK // LANES) if backward else self._balanced(WIDEST // LANES)
        self.blocks = -(-self.total_strips // self.strips)

    def _balanced(self, most: int) -> int:
        """The strips of a work item with which the threads end together; of several such the most."""

        def of_the_busiest(strips: int) -> int:
            return -(-self.batch * -(-self.total_strips // strips) // self.threads) * strips

        return min(range(min(most, self.total_strips), 0, -1), key=of_the_busiest)

    def _summed(self, most: int) -> int:
        """Those of an item whose parts are summed over blocks: the same, up to many threads, so that sums are, too."""
        strips = min(most, self.total_strips)
        while strips > 1 and self.batch * -(-self.total_strips // strips) < self.threads:
            strips = -(-strips // 2)
        return strips

    def taken_as_it_is(self, tensor: Tensor) -> bool:
        """Whether the kernel reads a (B, L, E) operand where it lies."""
        return tensor.dtype == torch.float32 and tensor.shape[2] == self.channels and tensor.stride(2) == 1


class _Job(_Plan):
    """One call's operands, padded to whole vectors, and what the threads are given of them (`kernels.JOB`)."""

    def __init__(self, scan: ScanOperands, backward: bool) -> None:
        from models.scan.cpu import kernels
        from models.scan.cpu.lanes import LANES, LOG2_E

        super().__init__(scan, backward)
        self.kernels = kernels
        self.alive: list[Tensor] = []  # the tensors that the job points to must outlive the run
        self.fields = dict.fromkeys(kernels.JOB.names or (), 0)
        self.fields.update(items=self.batch * self.blocks, batch=self.batch, blocks=self.blocks)
        self.fields.update(strips=self.strips, total_strips=self.total_strips, length=self.length, states=self.states)
        self.fields.update(reverse=scan.reverse, softplus=scan.delta_softplus, gated=scan.z is not None)

        A = self._pad(scan.A.float() * LOG2_E, self.channels, self.states)
        self.A = self.packed("A", A.view(self.total_strips, LANES, self.states).transpose(1, 2).contiguous())
        self.packed("B", self._pad(scan.B, self.batch, self.length, self.states))
        self.packed("C", self._pad(scan.C, self.batch, self.length, self.states))
        for name, tensor in (("D", scan.D), ("delta_bias", scan.delta_bias)):
            self.packed(name, torch.zeros(self.channels) if tensor is None else self._pad(tensor, self.channels))
        for name, tensor in (("u", scan.u), ("delta", scan.delta), ("z", scan.z)):
            if tensor is not None:
                self.sequence(name, tensor)

    def packed(self, name: str, tensor: Tensor) -> Tensor:
        """Point to a contiguous float32 tensor."""
        assert tensor.is_contiguous(), name
        assert tensor.dtype == torch.float32, name
        self._point(name, tensor)
        return tensor

    def sequence(self, name: str, given: Tensor | None = None) -> Tensor:
        """Point to a (B, L, E) operand; to a new one if none is given. It is copied only if it is not float32, if
        neighbouring channels are not neighbours in memory, or if they do not fill whole vectors."""
        if given is None:
            tensor = pages.empty(self.batch, self.length, self.channels)
        else:
            tensor = given.float()
            if not self.taken_as_it_is(tensor):
                tensor = self._pad(tensor, self.batch, self.length, self.channels)
        self._point(name, tensor)
        batch_pitch, row_pitch, _ = (tensor.element_size() * stride for stride in tensor.stride())
        self.fields.update({f"{name}_row_pitch": row_pitch, f"{name}_batch_pitch": batch_pitch})
        return tensor

    def unpad(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Without the padding, in the shape of `like`."""
        return tensor if tensor.shape == like.shape else tensor[tuple(slice(size) for size in like.shape)]

    def run(self, keep_states: bool = False) -> None:
        """Run the compiled kernel on as many threads as torch uses."""
        scratch_bytes = self.kernels.scratch_bytes(self.strips, self.states, self.backward)
        self.packed("scratch", torch.zeros(self.threads, scratch_bytes // 4))
        self.fields.update(scratch_bytes=scratch_bytes, keep_states=keep_states)
        record = np.array([tuple(self.fields.values())], self.kernels.JOB)
        worker = self.kernels.backward_worker() if self.backward else self.kernels.forward_worker()
        threads.run(worker, record.ctypes.data, self.threads)

    def _point(self, name: str, tensor: Tensor) -> None:
        self.alive.append(tensor)
        self.fields[name] = tensor.data_ptr()

    def _pad(self, tensor: Tensor, *shape: int) -> Tensor:
        """A contiguous float32 tensor of that shape, zero beyond what is given."""
        if tuple(tensor.shape) == shape:
            return tensor.float().contiguous()
        padded = torch.zeros(shape)
        padded[tuple(slice(size) for size in tensor.shape)] = tensor
        return padded
