"""What a head makes of depth with its gradients kept: first what it says, then how that is cut.

Input: posed photos, depth, a ``HeadNetwork``. Output: ``Described``, and Gaussians of it as ``recon.fuse`` makes them, or with
blocks near the threshold cut in part (``soft_cut``). Does not: know of lessons, losses or optimisers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recon.fuse import FuseConfig, SplatAttributes, all_evidence, cut_layers, layer_to_gaussians
from recon.fusing.evidence import Evidence, at_photo_size
from recon.fusing.shell import build_shell
from recon.polishing.targets import Targets
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Gaussians, Prediction, Rasterizer
from recon.refining import OPACITY_RANGE, Updater, refine

from ..head import HeadNetwork
from .soft_cut import cut_softly

__all__ = ["Described", "cut_capture", "cut_capture_softly", "describe_capture", "settle", "splat_capture"]


@dataclass(frozen=True)
class Described:
    """What depth and a head say about the input views, before anything is cut."""

    posed: PosedViews
    evidence: list[Evidence]
    attributes: list[SplatAttributes]
    """With the head's gradients."""
    shell: Gaussians | None


def describe_capture(
    posed: PosedViews, prediction: Prediction, head: HeadNetwork, config: FuseConfig, device: str = "cpu"
) -> Described:
    """Check depth across photos and ask the head, keeping its gradients.

    Args:
        device: where the head lies. What it says comes to the CPU, where blocks are cut.
    """
    size = (posed.cameras.height[0], posed.cameras.width[0])
    with torch.no_grad():
        depth = [at_photo_size(d, *size, inverse=True) for d in prediction.depth]
        confidence = [at_photo_size(c, *size, inverse=False) for c in prediction.confidence]
        evidence = all_evidence(posed, depth, confidence, config, Progress())
        shell = build_shell(posed, depth, [e.trust for e in evidence], count=config.shell, radius_factor=config.shell_radius)
    given = (
        [posed.image(i) for i in range(len(posed))],
        [e.depth for e in evidence],
        confidence,
        [e.residuals for e in evidence],
    )
    outputs = [maps.cpu() for maps in head(*(torch.stack(maps).to(device) for maps in given))]
    names = ("opacity", "log_scale", "color_delta", "importance")
    attributes = [SplatAttributes(**dict(zip(names, maps, strict=True))) for maps in zip(*outputs, strict=True)]
    return Described(posed, evidence, attributes, shell)


def cut_capture(described: Described, config: FuseConfig) -> Gaussians | None:
    """Fuse as ``recon.fuse.fuse`` does; differentiable in the appearance. None when nothing supports any depth."""
    posed, attributes = described.posed, described.attributes
    budget = config.max_gaussians or posed.cameras.height[0] * posed.cameras.width[0] // 3
    with torch.no_grad():
        layers = cut_layers(posed, described.evidence, [a.importance for a in attributes], budget, config)
    parts = [layer_to_gaussians(layer, attributes[layer.leaves.view], config) for layer in layers if len(layer.leaves)]
    if not parts:
        return None
    return Gaussians.concatenate([*parts, described.shell] if described.shell is not None else parts)


def splat_capture(
    posed: PosedViews, prediction: Prediction, head: HeadNetwork, config: FuseConfig, device: str = "cpu"
) -> Gaussians | None:
    """Describe and cut in one go."""
    return cut_capture(describe_capture(posed, prediction, head, config, device), config)


def cut_capture_softly(described: Described, config: FuseConfig) -> Gaussians | None:
    """The same with blocks near the threshold cut in part, differentiable in the importance alone; None when nothing is drawn."""
    still = [
        SplatAttributes(
            opacity=a.opacity.detach(), log_scale=a.log_scale.detach(), color_delta=a.color_delta.detach(), importance=a.importance
        )
        for a in described.attributes
    ]
    budget = config.max_gaussians
    assert budget is not None
    parts = cut_softly(described.posed, described.evidence, still, budget, config)
    if not parts:
        return None
    return Gaussians.concatenate([*parts, described.shell] if described.shell is not None else parts)


def settle(gaussians: Gaussians, posed: PosedViews, rasterizer: Rasterizer, updater: Updater, rounds: int) -> Gaussians:
    """Refine as the product does after the cut.

    What refinement changes is taken as given: the gradient is that of the opacities before it.
    """
    with torch.no_grad():
        targets = Targets(posed, gaussians.means.device)
        refined, _ = refine(gaussians.detach(), targets, rasterizer, updater, rounds=rounds, progress=Progress())
    before = torch.logit(gaussians.opacities.clamp(*OPACITY_RANGE))
    change: Tensor = torch.logit(refined.opacities.clamp(*OPACITY_RANGE)) - before.detach()
    return replace(refined, opacities=torch.sigmoid(before + change))
