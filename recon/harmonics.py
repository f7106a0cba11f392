"""Real spherical harmonics of the 3DGS basis up to degree 3, and how they turn with the world.

Input: directions, coefficients, rotations. Output: basis values or turned coefficients.
Does not: evaluate colours of pictures (the rasteriser does).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .geometry import SH_C0

C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
SAMPLES = 64
"""Directions in the fit of a rotation; 7 would do, more of them average the rounding."""


def sh_basis(directions: Float[Tensor, "*N 3"], degree: int) -> Float[Tensor, "*N K"]:
    """Evaluate the (degree + 1)² basis functions of the 3DGS sign convention at unit directions, world frame."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy), -C2[0] * x * z, C2[2] * (xx - yy)]
        if degree >= 3:
            values += [
                -C3[0] * y * (3 * xx - yy),
                C3[1] * x * y * z,
                -C3[2] * y * (4 * zz - xx - yy),
                C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
                -C3[2] * x * (4 * zz - xx - yy),
                C3[4] * z * (xx - yy),
                -C3[0] * x * (xx - 3 * yy),
            ]
    return torch.stack(values, dim=-1)


def rotate_sh(sh: Float[Tensor, "N K 3"], R_new_old: Float[Tensor, "3 3"]) -> Float[Tensor, "N K 3"]:
    """Turn coefficients so that the colour seen from a direction turned with the world stays the same.

    Every degree maps to itself. Its matrix is the solution of Y(R d) M = Y(d) over many directions d, which is exact: the
    functions of one degree span a space that rotations keep.
    """
    degree = round(sh.shape[1] ** 0.5) - 1
    if degree == 0:
        return sh
    R = R_new_old.double()
    directions = _spread_directions()
    before, after = sh_basis(directions, degree), sh_basis(directions @ R.T, degree)
    turned = [sh[:, :1]]
    for band in range(1, degree + 1):
        at = slice(band * band, (band + 1) * (band + 1))
        M = torch.linalg.lstsq(after[:, at], before[:, at]).solution
        turned.append(torch.einsum("kj,njc->nkc", M.to(sh), sh[:, at]))
    return torch.cat(turned, dim=1)


def _spread_directions() -> Float[Tensor, "M 3"]:
    """Unit vectors spread evenly over the sphere (golden-angle spiral)."""
    index = torch.arange(SAMPLES, dtype=torch.float64)
    z = 1.0 - (2.0 * index + 1.0) / SAMPLES
    angle = index * (torch.pi * (3.0 - 5.0**0.5))
    radius = (1.0 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
