"""One optimiser step for every Gaussian that a picture touched.

Input: parameters and the rasteriser's gradients with respect to physical values. Output: parameters, changed in place.
Chain rule, priors, Adam and the way back to physical values are one pass over memory on a CPU; the torch version is its twin
and runs on other devices. Does not: touch Gaussians without a gradient (their memory does not fade either).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .parameters import COLOR, MEANS, NAMES, OPACITY, QUATS, SCALES, Parameters, physical
from .workers import kernel, over_rows

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-15
"""Decay of the running means. The second is shorter than Adam's 0.999 because a polish takes hundreds of steps."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates of one step and the pull of the priors."""

    means: float
    """In units of ``spacing``."""
    quats: float
    scales: float
    """On log scales."""
    opacities: float
    """On logits."""
    color: float
    """On the degree 0 SH coefficient; higher degrees take ``color * high_share``."""
    high_share: float = 0.05
    opacity_pull: float = 0.0
    """Weight of the sum of opacities in the loss."""
    scale_pull: float = 0.0
    """Weight of the sum of log scales above ``scale_limit`` in the loss."""


def take_step(parameters: Parameters, gradients: tuple[Tensor, ...], spacing: Float[Tensor, " N"], rates: Rates) -> None:
    """Adam on every Gaussian whose gradient is not zero.

    Source: Kingma and Ba, "Adam", ICLR 2015, algorithm 1; skipping unseen Gaussians as in Mallick et al., "Taming 3DGS",
    SIGGRAPH Asia 2024.

    Args:
        gradients: with respect to ``parameters.values`` in the order of NAMES.
        spacing: world units that one unit of the means' rate moves each Gaussian; a pixel at its distance.
    """
    if parameters.raw.device.type != "cpu":
        take_step_twin(parameters, gradients, spacing, rates)
        return
    values = [parameters.values[name].numpy() for name in NAMES]
    over_rows(
        _step,
        len(parameters),
        parameters.raw.numpy(),
        parameters.first.numpy(),
        parameters.second.numpy(),
        parameters.age.numpy(),
        *values,
        *(g.contiguous().numpy() for g in gradients),
        spacing.numpy(),
        _rate_array(rates),
    )


def _rate_array(rates: Rates) -> np.ndarray:
    return np.array(
        [rates.means, rates.quats, rates.scales, rates.opacities, rates.color, rates.color * rates.high_share,
         rates.opacity_pull, rates.scale_pull],
        dtype=np.float32,
    )  # fmt: skip


@kernel
def _step(begin, end, raw, first, second, age, means, quats, scales, opacities, sh,
          g_means, g_quats, g_scales, g_opacities, g_sh, spacing, rates):  # fmt: skip
    width = raw.shape[1]
    count = (width - 11) // 3
    g = np.empty(width, np.float32)
    rate = np.empty(width, np.float32)
    one = np.float32(1.0)
    b1, b2 = np.float32(0.9), np.float32(0.99)
    for i in range(begin, end):
        if g_opacities[i] == 0 and g_sh[i, 0, 0] == 0 and g_sh[i, 0, 1] == 0 and g_sh[i, 0, 2] == 0:
            continue
        finite = np.isfinite(g_opacities[i])
        for k in range(3):
            finite = finite and np.isfinite(g_means[i, k]) and np.isfinite(g_scales[i, k]) and np.isfinite(g_sh[i, 0, k])
        if not finite:
            continue
        age[i] += 1
        along = np.float32(0.0)
        for k in range(4):
            along += g_quats[i, k] * quats[i, k]
        for k in range(3):
            g[k] = g_means[i, k]
            g[7 + k] = g_scales[i, k] * scales[i, k] + rates[7]
            rate[k] = rates[0] * spacing[i]
            rate[7 + k] = rates[2]
        for k in range(4):
            g[3 + k] = g_quats[i, k] - along * quats[i, k]
            rate[3 + k] = rates[1]
        o = opacities[i]
        g[10] = (g_opacities[i] + rates[6]) * o * (one - o)
        rate[10] = rates[3]
        for c in range(count):
            for k in range(3):
                g[11 + 3 * c + k] = g_sh[i, c, k]
                rate[11 + 3 * c + k] = rates[4] if c == 0 else rates[5]
        n = min(age[i], 10000)
        fix1 = one / (one - b1**n)
        fix2 = one / (one - b2**n)
        p, m, v = raw[i], first[i], second[i]
        for k in range(width):
            m[k] = b1 * m[k] + (one - b1) * g[k]
            v[k] = b2 * v[k] + (one - b2) * g[k] * g[k]
            p[k] -= rate[k] * (m[k] * fix1) / (np.sqrt(v[k] * fix2) + np.float32(1e-15))
        length = one / np.sqrt(p[3] * p[3] + p[4] * p[4] + p[5] * p[5] + p[6] * p[6])
        for k in range(4):
            p[3 + k] *= length
            quats[i, k] = p[3 + k]
        for k in range(3):
            means[i, k] = p[k]
            scales[i, k] = np.exp(p[7 + k])
        p[10] = min(max(p[10], np.float32(-9.0)), np.float32(7.5))
        opacities[i] = one / (one + np.exp(-p[10]))
        for c in range(count):
            for k in range(3):
                sh[i, c, k] = p[11 + 3 * c + k]


def take_step_twin(parameters: Parameters, gradients: tuple[Tensor, ...], spacing: Float[Tensor, " N"], rates: Rates) -> None:
    """The definition of ``take_step``, in torch."""
    g_means, g_quats, g_scales, g_opacities, g_sh = gradients
    values, raw = parameters.values, parameters.raw
    seen = (g_opacities != 0) | (g_sh[:, 0] != 0).any(1)
    finite = torch.isfinite(g_opacities) & torch.isfinite(torch.cat([g_means, g_scales, g_sh[:, 0]], dim=1)).all(1)
    at = torch.nonzero(seen & finite)[:, 0]
    gradient = torch.empty_like(raw[at])
    quats, opacities = values["quats"][at], values["opacities"][at]
    gradient[:, MEANS] = g_means[at]
    gradient[:, QUATS] = g_quats[at] - (g_quats[at] * quats).sum(1, keepdim=True) * quats
    gradient[:, SCALES] = g_scales[at] * values["scales"][at] + rates.scale_pull
    gradient[:, OPACITY] = (g_opacities[at] + rates.opacity_pull) * opacities * (1 - opacities)
    gradient[:, COLOR:] = g_sh[at].flatten(1)
    rate = torch.empty_like(gradient)
    rate[:, MEANS] = rates.means * spacing[at][:, None]
    rate[:, QUATS], rate[:, SCALES], rate[:, OPACITY] = rates.quats, rates.scales, rates.opacities
    rate[:, COLOR : COLOR + 3], rate[:, COLOR + 3 :] = rates.color, rates.color * rates.high_share
    parameters.age[at] += 1
    n = parameters.age[at].clamp_max(10000)[:, None].to(raw.dtype)
    first = BETA1 * parameters.first[at] + (1 - BETA1) * gradient
    second = BETA2 * parameters.second[at] + (1 - BETA2) * gradient**2
    step = rate * (first / (1 - BETA1**n)) / ((second / (1 - BETA2**n)).sqrt() + EPSILON)
    changed = raw[at] - step
    changed[:, QUATS] = torch.nn.functional.normalize(changed[:, QUATS], dim=1)
    changed[:, OPACITY] = changed[:, OPACITY].clamp(-9.0, 7.5)
    raw[at], parameters.first[at], parameters.second[at] = changed, first, second
    for name, value in physical(changed).items():
        values[name][at] = value
