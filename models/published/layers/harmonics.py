"""Real spherical harmonics of ray directions up to degree 4.

Input: unit directions. Output: 25 values, index n (n + 1) + m, in the 3DGS sign convention (Condon-Shortley).
Does not: evaluate colours; degrees 0 to 3 are ``recon.harmonics``, this file adds the fourth.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from recon.harmonics import sh_basis

COUNT = 25
C4 = tuple(0.75 * math.sqrt(value / math.pi) for value in (35.0, 35.0 / 2, 5.0, 5.0 / 2, 1.0 / 16))
"""Factors of the functions of degree 4."""


def real_harmonics(directions: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 25"]:
    """Evaluate the basis in closed form.

    Source: Sloan, Efficient Spherical Harmonic Evaluation, JCGT 2013, listing of the first five bands.
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    fourth = [
        C4[0] * x * y * (xx - yy),
        -C4[1] * y * z * (3 * xx - yy),
        C4[2] * x * y * (7 * zz - 1),
        -C4[3] * y * z * (7 * zz - 3),
        C4[4] * (zz * (35 * zz - 30) + 3),
        -C4[3] * x * z * (7 * zz - 3),
        0.5 * C4[2] * (xx - yy) * (7 * zz - 1),
        -C4[1] * x * z * (xx - 3 * yy),
        0.25 * C4[0] * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
    ]
    return torch.cat((sh_basis(directions, 3), torch.stack(fourth, dim=-1)), dim=-1)
