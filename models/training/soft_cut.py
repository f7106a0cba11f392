"""The cut of a scene into blocks, such that where Gaussians are worth having can be learnt.

Input: what ``recon.fuse`` cuts (photos, evidence between them, what a head says of them) and a budget. Output: Gaussians whose
opacities say how far each block is cut, differentiable in the head's importance. Does not: draw, or cut a scene for use.

``recon.fuse`` cuts every block whose price, and that of all blocks around it, is above a threshold that the budget sets. No
gradient passes such a choice. Here the threshold lies anywhere within a factor, and a block counts by how often it is then a leaf:

    importance, averaged over each block  -> log price, the least of it and those around  -> how often it is cut: 0 to 1
    budget                                -> threshold at which so many leaves are expected   ^
    cut of the block around less its own  -> how often it is a leaf  -> share of its optical depth

The expected number of leaves is the count loss. It is not added with some weight: the threshold follows every change of importance
such that the number stays that of the budget, and the gradient passes through the threshold, too. That is the Lagrange multiplier
which holds the budget, solved at each step: what one more Gaussian at the threshold would take off the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recon.fuse import FuseConfig, SplatAttributes, ViewLayer, choose_owners, layer_to_gaussians
from recon.fusing.evidence import Evidence
from recon.fusing.leaves import SIZES, Pyramid, blocks_to_leaves, build_pyramid
from recon.posed import PosedViews
from recon.records import Gaussians

__all__ = ["Tree", "cut_softly", "find_threshold", "grow_tree", "leaf_shares", "thin"]

WIDTH = 1.0
"""Natural logarithm of the factor within which the threshold lies anywhere with equal chance."""
HALVINGS = 50


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One view's blocks, each with the threshold above which it is no longer cut."""

    pyramid: Pyramid
    bound: tuple[Float[Tensor, "_ _"], ...]
    """Per size but the finest: log of the least price of a block and of those around it. Differentiable in the importance."""
    filled: tuple[Bool[Tensor, "_ _"], ...]
    """Per size: blocks with drawn pixels."""

    @property
    def cuts(self) -> tuple[Tensor, Tensor]:
        """Of all blocks that may be cut: their bound, and how many leaves more a cut makes."""
        bounds = [bound[filled] for bound, filled in zip(self.bound, self.filled, strict=False)]
        more = [_pool(below.float(), 2)[filled] - 1 for filled, below in zip(self.filled, self.filled[1:], strict=False)]
        return torch.cat(bounds), torch.cat(more)


def _pool(maps: Float[Tensor, "h w"], size: int) -> Float[Tensor, "_ _"]:
    return torch.nn.functional.avg_pool2d(maps[None], size)[0] * (size * size)


def _grow(maps: Float[Tensor, "h w"]) -> Float[Tensor, "_ _"]:
    return maps.repeat_interleave(2, -2).repeat_interleave(2, -1)


def grow_tree(pyramid: Pyramid, importance: Float[Tensor, "H W"], drawn: Bool[Tensor, "H W"]) -> Tree:
    """Price a view's blocks as ``build_pyramid`` does with a boost. Differentiable in ``importance``.

    Args:
        pyramid: of the same drawn pixels, without a boost.
    """
    big = SIZES[0]
    pad = (0, -drawn.shape[1] % big, 0, -drawn.shape[0] % big)
    weighed = torch.nn.functional.pad(importance * drawn, pad)
    bounds: list[Tensor] = []
    for level in range(pyramid.levels - 1):
        mean = _pool(weighed, SIZES[level]) / pyramid.sums[level][0].clamp_min(1e-6)
        own = (pyramid.error[level] * mean).clamp_min(1e-12).log()
        bounds.append(torch.minimum(own, _grow(bounds[-1])) if bounds else own)
    filled = tuple(sums[0] > 0 for sums in pyramid.sums[: pyramid.levels])
    return Tree(pyramid=pyramid, bound=tuple(bounds), filled=filled)


def cut_share(bound: Tensor, threshold: Tensor) -> Tensor:
    """How often a block is cut when the threshold lies anywhere within the width."""
    return (0.5 + (bound - threshold) / WIDTH).clamp(0, 1)


def find_threshold(trees: Sequence[Tree], budget: float) -> Float[Tensor, ""]:
    """The log threshold at which as many leaves are expected as the budget allows.

    Its gradient is that of the implicit function: importance that would add leaves lifts the threshold until they are gone.
    Where all blocks fit the budget uncut, or none may be cut, nothing holds the threshold and it has no gradient.
    """
    bound, more = (torch.cat(column) for column in zip(*(tree.cuts for tree in trees), strict=True))
    spare = budget - sum(int(tree.filled[0].sum()) for tree in trees)
    if spare <= 0 or not len(bound):
        return torch.tensor(torch.inf)
    still = bound.detach()
    low, high = still.min() - WIDTH, still.max() + WIDTH
    if float(more.sum()) <= spare:
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_many = (more * cut_share(still, middle)).sum() > spare
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    expected = (more * cut_share(bound, high)).sum()
    fewer = more[(still - high).abs() < WIDTH / 2].sum() / WIDTH
    return high + (expected - expected.detach()) / fewer.clamp_min(1e-6)


def leaf_shares(tree: Tree, threshold: Float[Tensor, ""]) -> list[Float[Tensor, "_ _"]]:
    """How often each block is a leaf, per size; over a drawn pixel they sum to 1."""
    reached, shares = tree.filled[0].float(), []
    for bound, filled, below in zip(tree.bound, tree.filled, tree.filled[1:], strict=False):
        cut = cut_share(bound, threshold) * filled
        shares.append(reached - cut)
        reached = _grow(cut) * below
    return [*shares, reached]


def thin(gaussians: Gaussians, shares: Float[Tensor, " N"]) -> Gaussians:
    """Leave each Gaussian a share of its optical depth, so that a block and what it is cut into together hide what one would."""
    opacities = -torch.expm1(shares * torch.log1p(-gaussians.opacities))
    return replace(gaussians, opacities=opacities)


def cut_softly(
    posed: PosedViews,
    evidence: list[Evidence],
    attributes: Sequence[SplatAttributes],
    budget: int,
    config: FuseConfig,
) -> list[Gaussians]:
    """Cut as ``recon.fuse.cut_layers`` does, blocks near the threshold in part. Differentiable in importance and appearance.

    Returns:
        Gaussians of every view and layer that draws any; more than the budget, since blocks that are cut in part are drawn
        whole and cut.
    """
    owned, parts, left = choose_owners(posed, evidence, config), [], float(budget)
    for masks, soft in ((owned.soft, True), (owned.sure, False)):
        trees = []
        for i, drawn in enumerate(masks):
            finest = config.soft_side_px if soft else 1
            pyramid = build_pyramid(posed.image(i), evidence[i].depth, drawn, finest=finest)
            trees.append(grow_tree(pyramid, attributes[i].importance, drawn))
        threshold = find_threshold(trees, int(budget * config.soft_share) if soft else left)
        for i, tree in enumerate(trees):
            shares = leaf_shares(tree, threshold)
            left -= sum(float(share.detach().sum()) for share in shares)
            parts.append(_partial_leaves(posed, i, tree, shares, masks[i], attributes[i], config))
    return [part for part in parts if part is not None]


def _partial_leaves(
    posed: PosedViews,
    view: int,
    tree: Tree,
    shares: Sequence[Tensor],
    drawn: Bool[Tensor, "H W"],
    attributes: SplatAttributes,
    config: FuseConfig,
) -> Gaussians | None:
    """Gaussians of the blocks that are leaves now and then."""
    chosen = [share > 0 for share in shares]
    if not any(bool(mask.any()) for mask in chosen):
        return None
    cameras = posed.cameras
    leaves = blocks_to_leaves(
        tree.pyramid, chosen, view=view, K=cameras.K[view].float(), T_world_cam=cameras.T_world_cam[view].float()
    )
    layer = ViewLayer(leaves=leaves, drawn=drawn, soft=False)
    return thin(layer_to_gaussians(layer, attributes, config), torch.cat([s[mask] for s, mask in zip(shares, chosen, strict=True)]))
