"""Small scenes for tests of file formats, and how far two readings of one scene are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from recon.geometry import SH_C0
from recon.records import Gaussians


def cloud(count: int = 400, degree: int = 3, *, seed: int = 0, spread: float = 2.0) -> Gaussians:
    """Random Gaussians whose colours stay in [0, 1], so that no format has to clamp."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    quats = normal(count, 4)
    colour = torch.rand(count, 1, 3, generator=generator) * 0.8 + 0.1
    return Gaussians(
        means=normal(count, 3) * spread,
        quats=quats / quats.norm(dim=1, keepdim=True),
        scales=torch.exp(normal(count, 3) * 0.5 - 2.5),
        opacities=torch.sigmoid(normal(count) * 1.5),
        sh=torch.cat([(colour - 0.5) / SH_C0, (normal(count, (degree + 1) ** 2 - 1, 3) * 0.1).clamp(-0.9, 0.9)], dim=1),
    )


@dataclass(frozen=True)
class Apart:
    """Largest differences over all Gaussians, each paired with the nearest centre."""

    position: float
    rotation_deg: float
    log_scale: float
    opacity: float
    colour: float
    sh_rms: float


def apart(wanted: Gaussians, read: Gaussians) -> Apart:
    """Pair Gaussians by position (files may reorder them) and measure the differences."""
    assert len(read) == len(wanted)
    nearest = torch.cdist(wanted.means.double(), read.means.double()).argmin(dim=1)
    assert len(nearest.unique()) == len(wanted), "two Gaussians were read at one place"
    other = read.select(nearest)
    w, x, y, z = other.quats.double().unbind(dim=1)
    # an ellipsoid looks the same after half a turn about one of its axes
    same = torch.stack([torch.stack(q, dim=1) for q in ((w, x, y, z), (-x, w, z, -y), (-y, -z, w, x), (-z, y, -x, w))])
    cosine = (wanted.quats.double() * same).sum(dim=2).abs().amax(dim=0).clamp(max=1.0)
    count = min(wanted.sh.shape[1], other.sh.shape[1])
    rest = (wanted.sh - other.sh[:, : wanted.sh.shape[1]])[:, 1:count] if count > 1 else torch.zeros(1)
    return Apart(
        position=float((wanted.means - other.means).norm(dim=1).max()),
        rotation_deg=math.degrees(2 * float(torch.arccos(cosine).max())),
        log_scale=float((wanted.scales.log() - other.scales.log()).abs().max()),
        opacity=float((wanted.opacities - other.opacities).abs().max()),
        colour=float((wanted.sh[:, 0] - other.sh[:, 0]).abs().max() * SH_C0),
        sh_rms=float(rest.square().mean().sqrt()),
    )
