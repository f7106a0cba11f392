"""Group-wise correlation of one view's features with its neighbours' over inverse-depth hypotheses.

Input: channels-last features and the two-view geometry. Output: a cost volume per neighbour, and which samples fell inside it.
Two versions with one result: a Numba kernel for the CPU (values and gradients) and a torch version for other devices, which
is also the witness of the tests. Does not: weigh neighbours, or choose hypotheses.

Geometry: a pixel ``p = (u, v, 1)`` of the reference view at inverse z-depth ``i`` is seen by a neighbour at
``q = A p + i b``, with ``A = K_n R_n_r K_r^-1`` and ``b = K_n t_n_r``; no depth is ever divided by.
Channel ``c`` belongs to group ``c % groups``, so that sums over a group run along contiguous memory.
Source: group-wise correlation as in GwcNet, Guo et al. 2019, section 3.2, over plane-sweep hypotheses (Collins 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["Sweep", "relative_geometry", "sweep_correlation", "sweep_correlation_torch"]


@dataclass(frozen=True)
class Sweep:
    """Where each hypothesis of a reference pixel falls in its neighbours. Pixels are those of the feature maps."""

    A: Float[Tensor, "B S 3 3"]
    """From ``relative_geometry``."""
    b: Float[Tensor, "B S 3"]
    """From ``relative_geometry``."""
    base: Float[Tensor, "B h w"]
    """Inverse depth per reference pixel, 1 / world units; zeros for a plain sweep."""
    offsets: Float[Tensor, "B D"]
    """Inverse depths added to ``base``, one per hypothesis."""
    extent: Float[Tensor, "B S 2"] | None = None
    """Width and height of the picture inside each neighbour's map; None means the whole map."""


def relative_geometry(
    K_ref: Float[Tensor, "B 3 3"],
    T_world_ref: Float[Tensor, "B 4 4"],
    K_src: Float[Tensor, "B S 3 3"],
    T_world_src: Float[Tensor, "B S 4 4"],
) -> tuple[Float[Tensor, "B S 3 3"], Float[Tensor, "B S 3"]]:
    """Return ``A`` and ``b`` such that a reference pixel p at inverse depth i lands at ``A p + i b`` in the neighbour.

    Computed in float64: camera positions far from the origin would lose the baseline in float32.
    """
    K_ref, T_world_ref, K_src, T_world_src = (t.double() for t in (K_ref, T_world_ref, K_src, T_world_src))
    T_src_ref = torch.linalg.inv(T_world_src) @ T_world_ref[:, None]
    A = K_src @ T_src_ref[..., :3, :3] @ torch.linalg.inv(K_ref)[:, None]
    b = (K_src @ T_src_ref[..., :3, 3:])[..., 0]
    return A.float(), b.float()


def sweep_correlation(
    ref: Float[Tensor, "B h w C"],
    src: Float[Tensor, "B S h2 w2 C"],
    sweep: Sweep,
    groups: int,
) -> tuple[Float[Tensor, "B S D h w G"], Float[Tensor, "B S D h w"]]:
    """Correlate reference features with each neighbour's, warped over its hypotheses.

    Args:
        ref: features of the reference view, channels last.
        src: features of its neighbours, channels last, of one common size.
        sweep: the hypotheses.
        groups: number of channel groups; divides C.

    Returns:
        The mean product per group (0 where unseen), and 1.0 where the sample lies between pixel centres of the neighbour.
    """
    if ref.device.type == "cpu" and ref.dtype == torch.float32:
        tensors = (sweep.A, sweep.b, sweep.base, sweep.offsets, picture_extent(src, sweep))
        return _SweepCorrelation.apply(ref, src, *tensors, groups)  # pyright: ignore[reportReturnType]
    return sweep_correlation_torch(ref, src, sweep, groups)


def picture_extent(src: Float[Tensor, "B S h2 w2 C"], sweep: Sweep) -> Float[Tensor, "B S 2"]:
    """Width and height of each neighbour's picture in feature pixels."""
    if sweep.extent is not None:
        return sweep.extent.float()
    return torch.tensor([src.shape[3], src.shape[2]], dtype=torch.float32, device=src.device).expand(*src.shape[:2], 2)


def sweep_correlation_torch(ref, src, sweep, groups):
    """Compute ``sweep_correlation`` with ``grid_sample``, on any device; in float32 also where others are in half precision.

    Pixel coordinates in bfloat16 would be off by a pixel of the features.
    """
    with torch.autocast(ref.device.type, enabled=False):
        return _correlated(ref.float(), src.float(), sweep, groups)


def _correlated(ref, src, sweep, groups):
    batch, height, width, channels = ref.shape
    neighbours, h2, w2 = src.shape[1:4]
    A, b, offsets = sweep.A, sweep.b, sweep.offsets
    limit = picture_extent(src, sweep)[:, :, None, None, None]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).to(ref.device)
    rotated = torch.einsum("bsij,hwj->bshwi", A, pixels)
    inverse = sweep.base[:, None] + offsets[:, :, None, None]
    q = rotated[:, :, None] + inverse[:, None, ..., None] * b[:, :, None, None, None]
    z = q[..., 2]
    front = z > 1e-6
    xy = q[..., :2] / torch.where(front, z, 1.0)[..., None]
    inside = front & (xy >= 0.5).all(dim=-1) & (xy <= limit - 0.5).all(dim=-1)
    xy = torch.where(inside[..., None], xy, 0.5)
    grid = xy / xy.new_tensor([w2, h2]) * 2 - 1
    flat = src.permute(0, 1, 4, 2, 3).reshape(batch * neighbours, channels, h2, w2)
    grid = grid.reshape(batch * neighbours, -1, width, 2).to(flat.dtype)
    warped = F.grid_sample(flat, grid, align_corners=False, padding_mode="border").reshape(
        batch, neighbours, channels, offsets.shape[1], height, width
    )
    product = warped.permute(0, 1, 3, 4, 5, 2) * ref[:, None, None]
    grouped = product.reshape(*product.shape[:-1], channels // groups, groups).mean(dim=-2)
    return grouped * inside[..., None].to(grouped.dtype), inside.to(grouped.dtype)


class _SweepCorrelation(torch.autograd.Function):
    """The Numba kernels behind autograd; gradients flow to both feature maps, not to the geometry."""

    @staticmethod
    def forward(ctx, ref, src, A, b, base, offsets, extent, groups):
        batch, height, width, _ = ref.shape
        neighbours, planes = src.shape[1], offsets.shape[1]
        inputs = [t.detach().float().contiguous() for t in (ref, src, A, b, base, offsets, extent)]
        out = torch.empty(batch, neighbours, planes, height, width, groups)
        inside = torch.empty(batch, neighbours, planes, height, width)
        _forward(*(t.numpy() for t in inputs), out.numpy(), inside.numpy())
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(inside)
        return out, inside

    @staticmethod
    def backward(ctx, *grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs = ctx.saved_tensors
        ref, src = inputs[:2]
        d_ref = torch.zeros(ref.shape[0], src.shape[1], *ref.shape[1:])
        d_src = torch.zeros_like(src)
        _backward(*(t.numpy() for t in inputs), grads[0].contiguous().float().numpy(), d_ref.numpy(), d_src.numpy())
        return d_ref.sum(dim=1), d_src, None, None, None, None, None, None


@nb.njit(inline="always")
def _locate(A, b, u, v, inverse, extent):
    """Project one hypothesis: (inside, left column, top row, fraction x, fraction y)."""
    z = A[2, 0] * u + A[2, 1] * v + A[2, 2] + inverse * b[2]
    if z <= 1e-6:
        return False, 0, 0, np.float32(0), np.float32(0)
    x = (A[0, 0] * u + A[0, 1] * v + A[0, 2] + inverse * b[0]) / z - np.float32(0.5)
    y = (A[1, 0] * u + A[1, 1] * v + A[1, 2] + inverse * b[1]) / z - np.float32(0.5)
    if not (x >= 0 and y >= 0 and x <= extent[0] - 1 and y <= extent[1] - 1):
        return False, 0, 0, np.float32(0), np.float32(0)
    column, row = int(x), int(y)
    return True, column, row, np.float32(x - column), np.float32(y - row)


@nb.njit(parallel=True, fastmath=True, nogil=True, cache=True)
def _forward(ref, src, A, b, base, offsets, extent, out, inside):
    batch, height, width, channels = ref.shape
    neighbours, h2, w2 = src.shape[1:4]
    planes, groups = offsets.shape[1], out.shape[5]
    scale = np.float32(groups / channels)
    for job in nb.prange(batch * neighbours * height):
        i, s, y = job // (neighbours * height), (job // height) % neighbours, job % height
        product = np.empty(channels, np.float32)
        v = np.float32(y + 0.5)
        for d in range(planes):
            for x in range(width):
                inverse = base[i, y, x] + offsets[i, d]
                ok, column, row, fx, fy = _locate(A[i, s], b[i, s], np.float32(x + 0.5), v, inverse, extent[i, s])
                cell = out[i, s, d, y, x]
                for g in range(groups):
                    cell[g] = 0.0
                inside[i, s, d, y, x] = 1.0 if ok else 0.0
                if not ok:
                    continue
                right, below = min(column + 1, w2 - 1), min(row + 1, h2 - 1)
                w11 = fx * fy
                w01 = fx - w11
                w10 = fy - w11
                w00 = np.float32(1.0) - fx - w10
                f00, f01 = src[i, s, row, column], src[i, s, row, right]
                f10, f11 = src[i, s, below, column], src[i, s, below, right]
                r = ref[i, y, x]
                for c in range(channels):
                    product[c] = r[c] * (w00 * f00[c] + w01 * f01[c] + w10 * f10[c] + w11 * f11[c])
                for k in range(0, channels, groups):
                    for g in range(groups):
                        cell[g] += product[k + g] * scale


@nb.njit(parallel=True, fastmath=True, nogil=True, cache=True)
def _backward(ref, src, A, b, base, offsets, extent, d_out, d_ref, d_src):
    batch, height, width, channels = ref.shape
    neighbours, h2, w2 = src.shape[1:4]
    planes, groups = offsets.shape[1], d_out.shape[5]
    scale = np.float32(groups / channels)
    for job in nb.prange(batch * neighbours):
        i, s = job // neighbours, job % neighbours
        weight = np.empty(channels, np.float32)
        for y in range(height):
            for d in range(planes):
                for x in range(width):
                    inverse = base[i, y, x] + offsets[i, d]
                    u, v = np.float32(x + 0.5), np.float32(y + 0.5)
                    ok, column, row, fx, fy = _locate(A[i, s], b[i, s], u, v, inverse, extent[i, s])
                    if not ok:
                        continue
                    right, below = min(column + 1, w2 - 1), min(row + 1, h2 - 1)
                    w11 = fx * fy
                    w01 = fx - w11
                    w10 = fy - w11
                    w00 = np.float32(1.0) - fx - w10
                    f00, f01 = src[i, s, row, column], src[i, s, row, right]
                    f10, f11 = src[i, s, below, column], src[i, s, below, right]
                    g00, g01 = d_src[i, s, row, column], d_src[i, s, row, right]
                    g10, g11 = d_src[i, s, below, column], d_src[i, s, below, right]
                    r, dr = ref[i, y, x], d_ref[i, s, y, x]
                    for k in range(0, channels, groups):
                        for g in range(groups):
                            weight[k + g] = d_out[i, s, d, y, x, g] * scale
                    for c in range(channels):
                        dr[c] += weight[c] * (w00 * f00[c] + w01 * f01[c] + w10 * f10[c] + w11 * f11[c])
                    for c in range(channels):
                        value = weight[c] * r[c]
                        g00[c] += w00 * value
                        g01[c] += w01 * value
                        g10[c] += w10 * value
                        g11[c] += w11 * value
