"""The network of learned refinement: what the photos say about a Gaussian, in; how it changes, out.

Input: ``recon.refining.Feedback`` of every Gaussian and what it is like. Output: changed Gaussians.
Does not: draw, or see pixels.

A Gaussian is moved along what the errors ask of it; a few fully connected layers, the same for all, say how far, from how
strong and how unanimous the errors are, how large and opaque it is, and a memory of earlier rounds. Before training the rule is
colour matching (``recon.fusing.recolor``): every colour follows the mean error of the pixels it drew, and nothing else moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.records import Gaussians
from recon.refining import COLOR, COLUMNS, Feedback, apply_update

__all__ = ["LearnedUpdater", "RefinerConfig", "RefinerNetwork"]

GROUPS = ((0, 3), (3, 6), (6, 9), (9, 10), (10, 13), (13, 22))
"""Columns that are one thing: place, turn, size, opacity, colour, colour of degree 1."""
STEPS = (0.15, 0.1, 0.1, 0.25)
"""How far a gate of 1 moves each of the first four along a typical slope; colours go along the slope itself."""
MOST = (0.6, 0.4, 0.4, 1.0, 0.4, 0.4)
"""No round moves further than this."""
PLAIN, GATES = 13, 14
"""Columns but for those of degree 1, which the network sees by their strength alone; and gates: degree 1 has one in common."""
NEAR_PX = 24.0
"""Side of the cells within which Gaussians share what they know, pixels of the nearest camera."""
OWN = 11
"""Numbers that say what a Gaussian is like."""


@dataclass(frozen=True, kw_only=True)
class RefinerConfig:
    """Sizes of the refiner; stored with its weights."""

    width: int = 64
    """Channels of the hidden layers."""
    memory: int = 16
    """Numbers each Gaussian keeps from round to round."""
    rounds: int = 6
    """Rounds it was trained for."""
    context: int = 0
    """Numbers that Gaussians near each other share; 0 leaves every one alone."""


class RefinerNetwork(nn.Module):
    """One round for every Gaussian."""

    typical: Tensor
    most: Tensor
    steps: Tensor

    def __init__(self, config: RefinerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RefinerConfig()
        inputs = 2 * PLAIN + len(GROUPS) * 2 + OWN + config.memory
        self.enter = nn.Linear(inputs, config.width)
        self.share = nn.Linear(config.width, config.context) if config.context else None
        self.middle = nn.Linear(config.width + config.context, config.width)
        self.leave = nn.Linear(config.width, 2 * GATES + 4 + config.memory)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.register_buffer("typical", torch.ones(COLUMNS))
        spread = [b - a for a, b in GROUPS]
        self.register_buffer("most", torch.tensor(MOST).repeat_interleave(torch.tensor(spread)), persistent=False)
        self.register_buffer("steps", torch.tensor(STEPS).repeat_interleave(torch.tensor(spread[:4])), persistent=False)

    def forward(
        self, gaussians: Gaussians, spacing: Float[Tensor, " N"], feedback: Feedback, state: Float[Tensor, "N S"] | None
    ) -> tuple[Float[Tensor, "N 22"], Float[Tensor, "N S"]]:
        """Return the update of every Gaussian and what to remember. Differentiable in the weights and the memory."""
        if state is None:
            state = feedback.slope.new_zeros(len(gaussians), COLUMNS + self.config.memory)
        momentum, memory = state[:, :COLUMNS], state[:, COLUMNS:]
        slope = torch.asinh(feedback.slope / self.typical)
        scatter = torch.asinh(feedback.scatter / self.typical)
        momentum = 0.7 * momentum + 0.3 * slope
        strength = [torch.log1p(scatter[:, a:b].abs().mean(1)) for a, b in GROUPS]
        agreed = [slope[:, a:b].abs().sum(1) / (scatter[:, a:b].sum(1) + 1e-3) for a, b in GROUPS]
        own = self.describe(gaussians, spacing, feedback)
        marks = torch.stack([*strength, *agreed], dim=1)
        x = F.silu(self.enter(torch.cat([slope[:, :PLAIN], momentum[:, :PLAIN], marks, own, memory], dim=1)))
        if self.share is not None:
            x = torch.cat([x, near_mean(self.share(x), gaussians.means, spacing, feedback.weight)], dim=1)
        x = F.silu(self.middle(x))
        out = self.leave(x)
        gate, drift, rest = out[:, :GATES], out[:, GATES : 2 * GATES], out[:, 2 * GATES :]
        shape = -self.steps * (gate[:, :10] * slope[:, :10] + drift[:, :10] * momentum[:, :10])
        free = F.pad(0.1 * rest[:, :4], (6, 0))
        gain = torch.cat([1 + gate[:, COLOR], gate[:, PLAIN:].expand(-1, 9)], dim=1)
        later = torch.cat([drift[:, COLOR], drift[:, PLAIN:].expand(-1, 9)], dim=1)
        color = -(feedback.slope[:, 10:] * gain + self.typical[10:] * momentum[:, 10:] * later)
        update = torch.cat([shape + free, color], dim=1)
        update = self.most * torch.tanh(update / self.most)
        visible = (feedback.weight / (feedback.weight + 1))[:, None]
        memory = memory + torch.tanh(rest[:, 4:])
        return update * visible, torch.cat([momentum, memory], dim=1)

    def describe(self, gaussians: Gaussians, spacing: Tensor, feedback: Feedback) -> Float[Tensor, "N 11"]:
        """What a Gaussian is like, in numbers near 1 that do not depend on the scale of the scene."""
        sizes = (gaussians.scales / spacing.clamp_min(1e-12)[:, None]).clamp(1e-3, 1e4).log()
        pixels = feedback.weight / feedback.seen.clamp_min(1)
        color = gaussians.sh[:, 0] * 0.5
        return torch.cat(
            [
                sizes,
                (torch.logit(gaussians.opacities.clamp(1e-4, 0.9995)) / 3)[:, None],
                torch.log1p(pixels)[:, None] / 3,
                torch.log1p(feedback.seen)[:, None],
                (feedback.seen / max(1, feedback.photos))[:, None],
                color,
                (torch.log1p(feedback.weight) / 5)[:, None],
            ],
            dim=1,
        )


def near_mean(
    values: Float[Tensor, "N C"], means: Float[Tensor, "N 3"], spacing: Float[Tensor, " N"], weight: Float[Tensor, " N"]
) -> Float[Tensor, "N C"]:
    """Weighted mean over the Gaussians of the same cell, a cube of about ``NEAR_PX`` pixels. Differentiable in ``values``."""
    with torch.no_grad():
        level = torch.log2(spacing.clamp_min(1e-12) * NEAR_PX).round()
        cell = torch.floor(means / torch.exp2(level)[:, None]).long()
        key = ((cell[:, 0] * 73_856_093) ^ (cell[:, 1] * 19_349_663) ^ (cell[:, 2] * 83_492_791)) * 64 + level.long() % 64
        _, group = torch.unique(key, return_inverse=True)
        groups = int(group.max()) + 1 if len(group) else 0
    share = (weight + 0.1)[:, None]
    total = values.new_zeros(groups, values.shape[1]).index_add_(0, group, values * share)
    return (total / share.new_zeros(groups, 1).index_add_(0, group, share))[group]


class LearnedUpdater:
    """``recon.refining.Updater`` around a ``RefinerNetwork``.

    Args:
        network: the network; it is put in evaluation mode.
        device: 'cpu' or 'cuda'.
    """

    def __init__(self, network: RefinerNetwork, device: str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.rounds = network.config.rounds

    @torch.no_grad()
    def __call__(
        self, gaussians: Gaussians, spacing: Float[Tensor, " N"], feedback: Feedback, state: Tensor | None
    ) -> tuple[Gaussians, Tensor]:
        """Update every Gaussian once."""
        update, state = self.network(gaussians, spacing, feedback, state)
        return apply_update(gaussians, update), state
