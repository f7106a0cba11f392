"""What the matcher is asked for: the right cell, honesty about cells without partner, the exact place, and photos of one place.

Input: network output and exact correspondences. Output: one scalar, and numbers for the log. Does not: know about worlds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..matcher import CELL, CellMatches, MatcherNetwork, PhotoFeatures, window_middle

__all__ = ["cell_loss", "fine_loss", "match_metrics", "place_loss"]

ASTRAY_PX = 4.0
"""Farthest that the middle of a window is moved from that of the right cell in training: inference may take the next cell."""
WARMTH = 0.07
"""Temperature of the likeness of photos."""
FINE_PER_BATCH = 800
"""Places refined in a step."""


def shares(at: Float[Tensor, "... 2"], rows: int, columns: int) -> tuple[Int[Tensor, "... 4"], Float[Tensor, "... 4"]]:
    """The four points around a place on a grid, row-major, and the share of each; places outside count as on the border.

    Args:
        at: x, y in steps of the grid.
    """
    at = at.clamp(min=0.0).minimum(at.new_tensor([columns - 1.0, rows - 1.0]))
    low = at.floor().minimum(at.new_tensor([columns - 2.0, rows - 2.0])).long()
    x, y = (at - low).unbind(-1)
    base = low[..., 1] * columns + low[..., 0]
    points = torch.stack([base, base + 1, base + columns, base + columns + 1], dim=-1)
    return points, torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], dim=-1)


def cell_loss(matches: CellMatches, target_px: Tensor, state: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the seen cells' choice, from both sides, and of every cell's own word on whether it is seen.

    Args:
        matches: N pairs.
        target_px: ``N 2 cells 2``.
        state: ``N 2 cells``.
        size: rows and columns of cells.
    """
    chosen, told = [], []
    for side in (0, 1):
        logits = (matches.scores if side == 0 else matches.scores.transpose(1, 2)).float().log_softmax(dim=2)
        cells, parts = shares(target_px[:, side] / CELL - 0.5, *size)
        right = -(logits.gather(2, cells) * parts).sum(dim=2)
        seen = state[:, side] == 1
        chosen.append(right[seen])
        known = state[:, side] >= 0
        told.append(F.binary_cross_entropy_with_logits(matches.sure[side].float()[known], seen[known].float(), reduction="none"))
    none = matches.scores.sum() * 0.0
    picked, said = torch.cat(chosen), torch.cat(told)
    return picked.mean() if len(picked) else none, said.mean() if len(said) else none


def fine_loss(
    network: MatcherNetwork,
    first: PhotoFeatures,
    second: PhotoFeatures,
    query_px: Float[Tensor, "N 2 cells 2"],
    target_px: Float[Tensor, "N 2 cells 2"],
    state: Int[Tensor, "N 2 cells"],
) -> tuple[Tensor, Float[Tensor, " M"]]:
    """Cross-entropy over the window and distance of the expected place, for some of the seen places.

    The middle of a window is near that of the cell the place lies in. Also returns the distances in pixels.
    """
    losses, distances = [], []
    for side, (one, other) in enumerate(((first, second), (second, first))):
        pair, cell = torch.nonzero(state[:, side] == 1, as_tuple=True)
        kept = torch.randperm(len(pair), device=pair.device)[: FINE_PER_BATCH // 2]
        pair, cell = pair[kept], cell[kept]
        if not len(pair):
            continue
        wanted = target_px[pair, side, cell]
        guess = (wanted / CELL).floor() * CELL + CELL / 2
        guess = guess + ASTRAY_PX * (2 * torch.rand_like(guess) - 1)
        logits, px = network.locate(one.fine, other.fine, pair, query_px[pair, side, cell], guess)
        across = logits.shape[1]
        points, parts = shares((wanted - window_middle(guess)) / 2 + across // 2, across, across)
        chosen = -(logits.flatten(1).log_softmax(dim=1).gather(1, points) * parts).sum(dim=1)
        away = (px - wanted).norm(dim=1)
        losses.append(chosen + torch.log1p(away))
        distances.append(away.detach())
    if not losses:
        return network.fine_sharpness * 0.0, query_px.new_zeros(0)
    return torch.cat(losses).mean(), torch.cat(distances)


def place_loss(place: Float[Tensor, "B P"], pairs: Int[Tensor, "N 2"], world: Int[Tensor, " B"], others: Tensor) -> Tensor:
    """Photos that overlap shall be more alike than photos of other worlds, those of earlier steps included.

    Source: InfoNCE, van den Oord et al. 2018, equation 4.

    Args:
        place: descriptors of the photos.
        pairs: photos that overlap, or of different worlds (these are left out).
        world: of every photo.
        others: descriptors of earlier photos.
    """
    pairs = pairs[world[pairs[:, 0]] == world[pairs[:, 1]]]
    if not len(pairs):
        return place.sum() * 0.0
    both = torch.cat([pairs, pairs.flip(1)])
    apart = world[:, None] != world[None]
    with torch.autocast(place.device.type, enabled=False):
        place = place.float()
        alike = place @ place.T / WARMTH
        against = torch.cat([alike.masked_fill(~apart, -1e4), place @ others.float().T / WARMTH], dim=1)[both[:, 0]]
        own = alike[both[:, 0], both[:, 1]]
        return (torch.logsumexp(torch.cat([own[:, None], against], dim=1), dim=1) - own).mean()


@torch.no_grad()
def match_metrics(
    matches: CellMatches, target_px: Tensor, state: Tensor, size: tuple[int, int], least: float = 0.2
) -> dict[str, float]:
    """How well cells of the first photos are matched.

    Returns:
        ``right``: share of the seen cells whose best cell is the right one or next to it. ``precision`` and ``recall`` of choices
        that both sides make with at least ``least`` confidence.
    """
    confidence = matches.confidence()
    best = confidence.max(dim=2)
    mutual = confidence.max(dim=1).indices.gather(1, best.indices) == torch.arange(confidence.shape[1], device=state.device)
    middle = torch.stack([best.indices % size[1], best.indices // size[1]], dim=-1) * CELL + CELL / 2
    near = (middle - target_px[:, 0]).abs().amax(dim=-1) <= 1.5 * CELL
    seen, known = state[:, 0] == 1, state[:, 0] >= 0
    taken = mutual & (best.values > least) & known
    return {
        "right": float(near[seen].float().mean()),
        "precision": float((near & seen)[taken].float().mean()) if bool(taken.any()) else 0.0,
        "recall": float((taken & near & seen).sum() / seen.sum().clamp(min=1)),
    }
