"""From the channels of a Gaussian head to physical Gaussians, and from those to our records.

Input: raw channels per point. Output: ``SplatFields`` as the networks define them, then ``recon.records.Gaussians``.
Does not: place points; the network gives the centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.records import Gaussians

from .camera_heads import matrix_to_quaternion, quaternion_to_matrix

SCALE_UNIT = 1e-3
"""Softplus of the scale channel times this is the standard deviation, in the network's unit."""
SCALE_LIMIT = 0.3
"""Largest standard deviation, in the network's unit."""
OPACITY_MARGIN = 1e-6
"""Our records keep opacities inside (0, 1) by this much."""
LEAST_SCALE = 1e-9
"""Our records keep scales above this."""
MOST_COEFFICIENTS = 16
"""SH coefficients of degree 3, the most that splat files carry."""


@dataclass(frozen=True, kw_only=True)
class SplatFields:
    """Gaussians as AnySplat and YoNoSplat define them."""

    opacities: Float[Tensor, " N"]
    scales: Float[Tensor, "N 3"]
    """Standard deviations."""
    quats_xyzw: Float[Tensor, "N 4"]
    """Near unit length (divided by the norm + 1e-8)."""
    harmonics: Float[Tensor, "N 3 K"]
    """Colour-major SH coefficients; colour = 0.5 + SH."""


def decode_splats(raw: Float[Tensor, "N C"]) -> SplatFields:
    """Activate [opacity logit, 3 scales, quaternion xyzw, SH colour by colour].

    Args:
        raw: C = 8 + 3 K with K SH coefficients; those above degree 0 are damped by 0.1 / 4^degree.
    """
    harmonics = raw[:, 8:].unflatten(1, (3, -1))
    quats = raw[:, 4:8]
    return SplatFields(
        opacities=raw[:, 0].sigmoid(),
        scales=(SCALE_UNIT * F.softplus(raw[:, 1:4])).clamp_max(SCALE_LIMIT),
        quats_xyzw=quats / (quats.norm(dim=-1, keepdim=True) + 1e-8),
        harmonics=harmonics * harmonic_damping(harmonics.shape[-1]).to(raw),
    )


def harmonic_damping(count: int) -> Float[Tensor, " K"]:
    """List the factor of each SH coefficient: 1 for degree 0, 0.1 / 4^degree above."""
    degrees = torch.arange(count).float().sqrt().floor()
    return torch.where(degrees == 0, 1.0, 0.1 * 0.25**degrees)


def covariances(fields: SplatFields) -> Float[Tensor, "N 3 3"]:
    """Compute R S S^T R^T of each Gaussian."""
    spread = quaternion_to_matrix(fields.quats_xyzw) * fields.scales[:, None, :]
    return spread @ spread.transpose(1, 2)


def to_records(
    means_world: Float[Tensor, "N 3"], fields: SplatFields, R_world_local: Float[Tensor, "N 3 3"] | None = None
) -> Gaussians:
    """Build our record: unit wxyz quaternions in the world frame, SH cut to degree 3, opacities inside (0, 1).

    Args:
        R_world_local: rotation from the frame the quaternions are in to the world; None when they are in the world frame.
    """
    quats = F.normalize(fields.quats_xyzw, dim=-1)
    if R_world_local is not None:
        quats = matrix_to_quaternion(R_world_local @ quaternion_to_matrix(quats))
    return Gaussians(
        means=means_world,
        quats=quats[:, [3, 0, 1, 2]],
        scales=fields.scales.clamp_min(LEAST_SCALE),
        opacities=fields.opacities.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN),
        sh=fields.harmonics[:, :, :MOST_COEFFICIENTS].transpose(1, 2).contiguous(),
    )
