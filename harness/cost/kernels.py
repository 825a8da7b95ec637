"""Stand-ins for the fused kernels of mamba_ssm and its forks, so that a model built of them runs on meta tensors.

mamba_ssm's modules hand their weights to CUDA kernels, which no counter sees into (state-spaces/mamba issues 110, 303,
559, 817) and which refuse meta tensors. While a model is traced, each kernel function is replaced, wherever it has been
imported, by torch operators of the same shapes and arithmetic around `models.scan.selective_scan` (meta tensors have no
values to get right); then all is put back.
The stand-ins take the signatures of mamba_ssm 2.3, Vim's fork of 1.1 and causal_conv1d 1.5, and return the same shapes.
Mamba-2's scan is counted by Mamba-1's rule, four multiply-adds per state, channel and token: its recurrence, not the
matrix products by which its kernel evaluates it in chunks.
"""

# The stand-ins' signatures are those of the packages, which declare no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.scan import selective_scan

KERNEL_PACKAGES = ("mamba_ssm", "causal_conv1d")


@contextmanager
def traceable_kernels() -> Iterator[None]:
    """Replace the kernels of mamba_ssm and causal_conv1d, where those packages are loaded, as long as this lasts."""
    originals = {
        id(function): STAND_INS[name]
        for module_name, module in list(sys.modules.items())
        if module_name.split(".")[0] in KERNEL_PACKAGES
        for name, function in vars(module).items()
        if name in STAND_INS and callable(function)
    }
    replaced: list[tuple[dict[str, Any], str, object]] = []
    try:
        if originals:
            for module in list(sys.modules.values()):
                names = getattr(module, "__dict__", {})
                for name, value in list(names.items()):
                    if id(value) in originals:
                        replaced.append((names, name, value))
                        names[name] = originals[id(value)]
        yield
    finally:
        for names, name, value in replaced:
            names[name] = value


def _selective_scan_fn(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
):
    """mamba_ssm's own layout: u, delta, z (B, E, L); B, C (B, S, L) or (B, 1, S, L) or (E, S)."""
    batch, _, L = u.shape
    B, C = (_per_token(m, batch, L) for m in (B, C))
    z = None if z is None else z.transpose(1, 2)
    out = selective_scan(u.transpose(1, 2), delta.transpose(1, 2), A, B, C, D, z, delta_bias, delta_softplus)
    out = out.transpose(1, 2)
    return (out, u.new_empty(batch, u.shape[1], A.shape[1])) if return_last_state else out


def _per_token(matrix: Tensor, batch: int, L: int) -> Tensor:
    """B or C as (batch, L, S), whichever of mamba_ssm's shapes it has."""
    if matrix.dim() == 2:
        return matrix[0].expand(batch, L, -1)
    return (matrix.squeeze(1) if matrix.dim() == 4 else matrix).transpose(1, 2)


def _mamba_inner_no_out_proj(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A,
    B=None, C=None, D=None, delta_bias=None, B_proj_bias=None, C_proj_bias=None, delta_softplus=True, **_,
):  # fmt: skip
    """xz (B, 2E, L) to (B, E, L): convolution, projections and one scan."""
    x, z = xz.chunk(2, dim=1)
    x = _causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    R, S = delta_proj_weight.shape[1], A.shape[1]
    projected = F.linear(x.transpose(1, 2), x_proj_weight)
    split = [R] + [S] * ((B is None) + (C is None))
    dt, *rest = projected.split(split, dim=-1)
    B = rest.pop(0).transpose(1, 2) if B is None else B
    C = rest.pop(0).transpose(1, 2) if C is None else C
    delta = F.linear(dt, delta_proj_weight).transpose(1, 2)
    return _selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)


def _mamba_inner_fn(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, out_proj_bias, A, *args, **kwargs
):
    """The same, then the output projection: (B, 2E, L) to (B, L, D)."""
    y = _mamba_inner_no_out_proj(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, *args[:7], **kwargs
    )
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def _bimamba_inner_fn(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, out_proj_bias, A, A_b,
    *args, **kwargs,
):  # fmt: skip
    """Vim's first version: two scans over one convolution and one set of projections."""
    weights = (conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight)
    y = _mamba_inner_no_out_proj(xz, *weights, A, *args[:7], **kwargs)
    E, S = A_b.shape
    u, BC = y.transpose(1, 2), y.new_empty(y.shape[0], y.shape[2], S)
    y_b = selective_scan(u, u, A_b, BC, BC, y.new_empty(E), u)
    return F.linear(y.transpose(1, 2) + y_b, out_proj_weight, out_proj_bias)


def _causal_conv1d_fn(x, weight, bias=None, seq_idx=None, initial_states=None, activation=None, **_):
    """x (B, E, L), weight (E, K)."""
    E, K = weight.shape
    out = F.conv1d(F.pad(x, (K - 1, 0)), weight.unsqueeze(1), bias, groups=E)
    return out if activation is None else F.silu(out)


def _mamba_chunk_scan_combined(
    x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None, cu_seqlens=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, return_varlen_states=False,
):  # fmt: skip
    """Mamba-2: x (B, L, H, P), dt (B, L, H), B and C (B, L, G, S); channels of a group share B and C."""
    (batch, L, H, P), (G, S) = x.shape, B.shape[-2:]
    u = x.reshape(batch, L, G, -1)
    delta = dt.unsqueeze(-1).expand(-1, -1, -1, P).reshape(batch, L, G, -1)
    decay = A.new_empty(H * P // G, S)
    groups = [selective_scan(u[:, :, g], delta[:, :, g], decay, B[:, :, g], C[:, :, g]) for g in range(G)]
    y = torch.cat(groups, dim=-1).reshape(batch, L, H, P)
    if z is not None:
        y = y * F.silu(z)
    return (y, x.new_empty(batch, H, P, S)) if return_final_states else y


def _mamba_split_conv1d_scan_combined(
    zxbcdt, conv1d_weight, conv1d_bias, dt_bias, A, D, chunk_size, initial_states=None, seq_idx=None,
    dt_limit=(0.0, float("inf")), return_final_states=False, activation="silu", rmsnorm_weight=None, rmsnorm_eps=1e-6,
    outproj_weight=None, outproj_bias=None, headdim=None, ngroups=1, norm_before_gate=True,
):  # fmt: skip
    """Mamba-2's whole mixer after its input projection."""
    H = A.shape[0]
    inner = H * (headdim if headdim is not None else D.shape[1])
    S = (conv1d_weight.shape[0] - inner) // (2 * ngroups)
    spare = (zxbcdt.shape[-1] - 2 * inner - 2 * ngroups * S - H) // 2
    z0, x0, z, xBC, dt = zxbcdt.split([spare, spare, inner, inner + 2 * ngroups * S, H], dim=-1)
    xBC = _causal_conv1d_fn(xBC.transpose(1, 2), conv1d_weight, conv1d_bias, activation=activation).transpose(1, 2)
    x, B, C = xBC.split([inner, ngroups * S, ngroups * S], dim=-1)
    heads, groups = (*x.shape[:2], H, -1), (*x.shape[:2], ngroups, -1)
    y = _mamba_chunk_scan_combined(x.reshape(heads), dt, A, B.reshape(groups), C.reshape(groups), chunk_size, D)
    y = y.reshape(x.shape) * F.silu(z)
    if rmsnorm_weight is not None:
        y = F.rms_norm(y, y.shape[-1:], rmsnorm_weight, rmsnorm_eps)
    if spare:
        y = torch.cat([F.silu(z0) * x0, y], dim=-1)
    return y if outproj_weight is None else F.linear(y, outproj_weight, outproj_bias)


def _layer_norm_fn(
    x, weight, bias=None, residual=None, x1=None, weight1=None, bias1=None, eps=1e-6, dropout_p=0.0, rowscale=None,
    prenorm=False, residual_in_fp32=False, is_rms_norm=False, **_,
):  # fmt: skip
    """Residual addition and normalisation in one."""
    x = x if residual is None else x + residual
    norm = F.rms_norm(x, x.shape[-1:], weight, eps) if is_rms_norm else F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return (norm, x) if prenorm else norm


def _rms_norm_fn(x, weight, bias=None, **kwargs):
    return _layer_norm_fn(x, weight, bias, is_rms_norm=True, **kwargs)


def _gated_norm_fn(x, weight, bias=None, z=None, eps=1e-6, *_, **__):
    """Mamba-2's normalisation, gated by z."""
    y = F.rms_norm(x, x.shape[-1:], weight, eps)
    return y if z is None else y * F.silu(z)


STAND_INS: dict[str, Callable[..., Any]] = {
    "selective_scan_fn": _selective_scan_fn,
    "mamba_inner_fn": _mamba_inner_fn,
    "mamba_inner_fn_no_out_proj": _mamba_inner_no_out_proj,
    "bimamba_inner_fn": _bimamba_inner_fn,
    "causal_conv1d_fn": _causal_conv1d_fn,
    "mamba_chunk_scan_combined": _mamba_chunk_scan_combined,
    "mamba_split_conv1d_scan_combined": _mamba_split_conv1d_scan_combined,
    "layer_norm_fn": _layer_norm_fn,
    "rms_norm_fn": _rms_norm_fn,
    "rmsnorm_fn": _gated_norm_fn,
}
