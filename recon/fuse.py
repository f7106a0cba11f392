"""From depth maps to one compact set of Gaussians.

Input: posed photos, depth with confidence from any source, a head that turns them into appearance.
Output: Gaussians in the world frame, within a budget. Does not: draw or optimise (``recon.fusing.recolor`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .errors import CannotReconstruct
from .fusing.evidence import Evidence, at_photo_size, gather_evidence
from .fusing.largest import largest
from .fusing.leaves import Leaves, Pyramid, build_pyramid, cut_leaves, leaves_to_gaussians, pool_attributes, price_for_budget
from .fusing.ownership import Ownership, assign_pixels
from .fusing.shell import build_shell
from .neighbours import choose_neighbours
from .posed import PosedViews
from .progress import Progress
from .records import Gaussians, Prediction


@dataclass(frozen=True, kw_only=True)
class SplatAttributes:
    """What a head says about every pixel of a view."""

    opacity: Float[Tensor, "H W"]
    """In (0, 1)."""
    log_scale: Float[Tensor, "H W 2"]
    """Natural log of the factors on the tangential and normal deviations."""
    color_delta: Float[Tensor, "H W 3"]
    """Added to the photo's colour."""
    importance: Float[Tensor, "H W"]
    """> 0, near 1: how much a Gaussian is worth here; larger values cut smaller blocks."""


SplatHead = Callable[
    [Float[Tensor, "H W 3"], Float[Tensor, "H W"], Float[Tensor, "H W"], Float[Tensor, "H W 4"]],
    SplatAttributes,
]
"""(photo, z-depth, confidence, cross-view residuals as in ``Evidence.residuals``) -> attributes."""


@dataclass(frozen=True, kw_only=True)
class FuseConfig:
    """How depth becomes Gaussians."""

    max_gaussians: int | None = None
    """Most Gaussians in the scene; None picks 60,000 on a CPU and 400,000 on CUDA."""
    evidence_views: int = 6
    """Neighbours that check a view's depth."""
    sure_above: float = 0.5
    """Trust in [0, 1] from which depth is used as it is."""
    soft_above: float = 0.02
    """Trust in [0, 1] below which a pixel is not drawn."""
    soft_side_px: int = 4
    """Finest block side where depth is a guess; a power of two up to 16."""
    soft_share: float = 0.06
    """Most of the budget that guesses may take."""
    spread: float = 0.52
    """Sigma of a Gaussian over the side of its block."""
    shell: int = 4000
    """Directions of the far shell on the whole sphere; 0 leaves it out."""
    shell_radius: float = 3.0
    """Radius of the shell over the farthest depth."""
    recolor_steps: int = 4
    """Passes of colour matching through the rasteriser where nothing is refined (--refine 0); 0 leaves the photo's block means."""
    frugal: bool = False
    """Hold block sums of one photo at a time instead of all: much less memory, the same scene, a little slower. --max-memory turns
    it on when it has to."""


@dataclass(frozen=True, kw_only=True)
class ViewLayer:
    """One view's part of a scene before appearance: the leaves and where they came from."""

    leaves: Leaves
    drawn: Bool[Tensor, "H W"]
    """Pixels averaged into the leaves."""
    soft: bool
    """True when the depth is a guess."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A fused scene."""

    gaussians: Gaussians
    """Surface first, then the far shell."""
    shell_count: int
    """How many Gaussians at the end belong to the far shell."""

    @property
    def surface(self) -> Gaussians:
        """The scene without its far shell."""
        return self.gaussians.select(torch.arange(len(self.gaussians) - self.shell_count))


def default_budget(device: str) -> int:
    """Gaussians that suit a device when the user names no number."""
    return 400_000 if device.startswith("cuda") else 60_000


def fuse(
    posed: PosedViews, prediction: Prediction, head: SplatHead, config: FuseConfig, progress: Progress, *, device: str = "cpu"
) -> Fused:
    """Merge the views' depth maps into one scene.

    Evidence between views averages agreeing depths and exposes flying pixels; every surface is drawn by the view that
    sees it finest; blocks are as large as the picture allows within the budget; guesses are drawn large and soft where
    nothing trusted stands; a far shell closes the rest.

    Args:
        prediction: depth and confidence per view of ``posed``, in its world frame, at any size of the same aspect.
        head: turns photo, depth, confidence and residuals into appearance.
    Raises:
        CannotReconstruct: no view has a depth that any other view supports.
    """
    budget = config.max_gaussians or default_budget(device)
    sizes = [(posed.cameras.height[i], posed.cameras.width[i]) for i in range(len(posed))]
    depth = [at_photo_size(d.float().cpu(), *size, inverse=True) for d, size in zip(prediction.depth, sizes, strict=True)]
    confidence = [
        at_photo_size(c.float().cpu(), *size, inverse=False) for c, size in zip(prediction.confidence, sizes, strict=True)
    ]
    evidence = all_evidence(posed, depth, confidence, config, progress)
    attributes = []
    for i in range(len(posed)):
        progress.update("gaussians", 0.3 + 0.2 * i / len(posed), "appearance")
        attributes.append(head(posed.image(i), evidence[i].depth, confidence[i], evidence[i].residuals))
        if config.frugal:
            nothing = evidence[i].residuals.new_zeros(1, 1, 1).expand_as(evidence[i].residuals)  # one number for all
            evidence[i] = replace(evidence[i], residuals=nothing)
    shell = None
    if config.shell:
        trust = [e.trust for e in evidence]
        shell = build_shell(posed, depth, trust, count=min(config.shell, budget // 8), radius_factor=config.shell_radius)
    surface_budget = budget - (len(shell) if shell is not None else 0)
    layers = cut_layers(posed, evidence, [a.importance for a in attributes], surface_budget, config)
    progress.update("gaussians", 0.65, "placing Gaussians")
    parts = [layer_to_gaussians(layer, attributes[layer.leaves.view], config) for layer in layers if len(layer.leaves)]
    if not parts:
        raise CannotReconstruct(
            "No photo's depth is supported by another photo.", "Take photos that overlap more, from positions closer together."
        )
    surface = largest(Gaussians.concatenate(parts), surface_budget)  # the largest blocks alone may be more than were asked for
    joined = surface if shell is None else Gaussians.concatenate([surface, shell])
    return Fused(gaussians=joined.detach(), shell_count=len(shell) if shell is not None else 0)


def all_evidence(
    posed: PosedViews, depth: list[Tensor], confidence: list[Tensor], config: FuseConfig, progress: Progress
) -> list[Evidence]:
    """Cross-check every view with its neighbours."""
    neighbours = choose_neighbours(posed, count=config.evidence_views)
    evidence = []
    for i in range(len(posed)):
        progress.update("gaussians", 0.3 * i / len(posed), "checking depth across photos")
        evidence.append(gather_evidence(posed, depth, confidence, neighbours[i], i))
    return evidence


def cut_layers(
    posed: PosedViews, evidence: list[Evidence], importance: list[Tensor], budget: int, config: FuseConfig
) -> list[ViewLayer]:
    """Decide who draws what and cut it into blocks within the budget."""
    cameras, owned = posed.cameras, choose_owners(posed, evidence, config)
    layers: list[ViewLayer] = []
    left = budget
    for masks, soft in ((owned.soft, True), (owned.sure, False)):
        finest = config.soft_side_px if soft else 1
        make = partial(_pyramid, posed, evidence, masks, importance, finest)
        pyramids = MadeWhenAsked(make, len(posed)) if config.frugal else [make(i) for i in range(len(posed))]
        price = price_for_budget(pyramids, int(budget * config.soft_share) if soft else left)
        for i, pyramid in enumerate(pyramids):
            leaves = cut_leaves(pyramid, price, view=i, K=cameras.K[i].float(), T_world_cam=cameras.T_world_cam[i].float())
            layers.append(ViewLayer(leaves=leaves, drawn=masks[i], soft=soft))
            left -= len(leaves)
    return layers


def choose_owners(posed: PosedViews, evidence: list[Evidence], config: FuseConfig) -> Ownership:
    """Decide which view draws which piece of surface."""
    valid = [posed.pixels(i)[1] for i in range(len(posed))]
    return assign_pixels(
        posed.cameras, [e.depth for e in evidence], [e.trust for e in evidence], valid,
        sure_above=config.sure_above, soft_above=config.soft_above,
    )  # fmt: skip


def _pyramid(
    posed: PosedViews, evidence: list[Evidence], masks: Sequence[Tensor], importance: list[Tensor], finest: int, index: int
) -> Pyramid:
    boost = importance[index].detach()
    return build_pyramid(posed.image(index), evidence[index].depth, masks[index], finest=finest, boost=boost)


class MadeWhenAsked(Sequence):
    """Items that are made each time they are asked for, so that one is held at a time."""

    def __init__(self, make: Callable[[int], Pyramid], count: int) -> None:
        self._make = make
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index)


def layer_to_gaussians(layer: ViewLayer, attributes: SplatAttributes, config: FuseConfig) -> Gaussians:
    """Give one view's leaves the head's appearance. Differentiable in the attributes."""
    maps = torch.cat([attributes.opacity[..., None], attributes.log_scale, attributes.color_delta], dim=-1)
    pooled = pool_attributes(layer.leaves, maps, layer.drawn)
    return leaves_to_gaussians(
        layer.leaves, opacity=pooled[:, 0], log_scale=pooled[:, 1:3], color_delta=pooled[:, 3:], spread=config.spread
    )
