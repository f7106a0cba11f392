"""What the optimiser holds: Gaussians as unbounded numbers, with Adam's memory, in rows that can be replaced.

Input: ``Gaussians``. Output: leaves for the rasteriser each step and ``Gaussians`` at the end.
Logarithms of scales and logits of opacities live here and nowhere else in polishing.
Does not: decide what to add or remove (``recon.polishing.growth``) or take steps (``recon.polishing.adam``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..records import Gaussians

MEANS, QUATS, SCALES, OPACITY, COLOR = slice(0, 3), slice(3, 7), slice(7, 10), 10, 11
"""Columns of ``Parameters.raw``; SH coefficients start at COLOR, coefficient by coefficient, three channels each."""
OPACITY_RANGE = (1e-4, 0.9995)
"""Opacities are kept within this before their logit is taken."""
NAMES = ("means", "quats", "scales", "opacities", "sh")


@dataclass
class Parameters:
    """Rows of unbounded numbers and the physical values they stand for."""

    raw: Float[Tensor, "N D"]
    """Means, quaternion, log scales, logit opacity, SH; D = 11 + 3 K."""
    first: Float[Tensor, "N D"]
    """Running mean of gradients."""
    second: Float[Tensor, "N D"]
    """Running mean of squared gradients."""
    age: Int[Tensor, " N"]
    """Steps each Gaussian has taken; new ones start at 0."""
    far: Bool[Tensor, " N"]
    """True for Gaussians of the far shell, which stands for sky and is not counted as surface."""
    values: dict[str, Tensor]
    """Physical values under the field names of ``Gaussians``; the optimiser keeps them in step with ``raw``."""

    def __len__(self) -> int:
        return self.raw.shape[0]

    @property
    def sh_count(self) -> int:
        return (self.raw.shape[1] - COLOR) // 3

    def leaves(self) -> Gaussians:
        """Gaussians that share memory with ``values`` and collect gradients."""
        return Gaussians(**{name: self.values[name].detach().requires_grad_() for name in NAMES})

    def gaussians(self) -> Gaussians:
        """A copy of the present state, the far shell last."""
        order = torch.argsort(self.far.int(), stable=True)
        return Gaussians(**{name: self.values[name].detach()[order] for name in NAMES})

    @property
    def far_count(self) -> int:
        return int(self.far.sum())


def to_raw(gaussians: Gaussians) -> Float[Tensor, "N D"]:
    """Take logarithms and logits."""
    quats = gaussians.quats / gaussians.quats.norm(dim=1, keepdim=True).clamp_min(1e-12)
    opacities = gaussians.opacities.clamp(*OPACITY_RANGE)
    return torch.cat(
        [
            gaussians.means,
            quats,
            gaussians.scales.clamp_min(1e-12).log(),
            torch.logit(opacities)[:, None],
            gaussians.sh.flatten(1),
        ],
        dim=1,
    ).float()


def physical(raw: Float[Tensor, "N D"]) -> dict[str, Tensor]:
    """Undo ``to_raw``."""
    return {
        "means": raw[:, MEANS].contiguous(),
        "quats": torch.nn.functional.normalize(raw[:, QUATS], dim=1),
        "scales": raw[:, SCALES].exp(),
        "opacities": torch.sigmoid(raw[:, OPACITY]),
        "sh": raw[:, COLOR:].reshape(len(raw), -1, 3).contiguous(),
    }


def make_parameters(gaussians: Gaussians, far_count: int = 0) -> Parameters:
    """Start optimising ``gaussians``, with empty memory; the last ``far_count`` belong to the far shell."""
    raw = to_raw(gaussians.detach()).contiguous()
    return Parameters(
        raw=raw,
        first=torch.zeros_like(raw),
        second=torch.zeros_like(raw),
        age=torch.zeros(len(raw), dtype=torch.int32, device=raw.device),
        far=torch.arange(len(raw), device=raw.device) >= len(raw) - far_count,
        values=physical(raw),
    )


def keep(parameters: Parameters, indices: Int[Tensor, " M"]) -> Parameters:
    """Keep some rows, with their memory."""
    return Parameters(
        raw=parameters.raw[indices].contiguous(),
        first=parameters.first[indices].contiguous(),
        second=parameters.second[indices].contiguous(),
        age=parameters.age[indices].contiguous(),
        far=parameters.far[indices].contiguous(),
        values={name: value[indices].contiguous() for name, value in parameters.values.items()},
    )


def extend(parameters: Parameters, new: Gaussians) -> Parameters:
    """Append Gaussians with empty memory; their SH is padded or cut to the present degree."""
    if len(new) == 0:
        return parameters
    count = parameters.sh_count
    sh = torch.nn.functional.pad(new.sh[:, :count], (0, 0, 0, max(0, count - new.sh.shape[1])))
    fresh = make_parameters(Gaussians(means=new.means, quats=new.quats, scales=new.scales, opacities=new.opacities, sh=sh))
    return Parameters(
        raw=torch.cat([parameters.raw, fresh.raw]),
        first=torch.cat([parameters.first, fresh.first]),
        second=torch.cat([parameters.second, fresh.second]),
        age=torch.cat([parameters.age, fresh.age]),
        far=torch.cat([parameters.far, fresh.far]),
        values={name: torch.cat([parameters.values[name], fresh.values[name]]) for name in NAMES},
    )


def with_sh(parameters: Parameters, count: int) -> Parameters:
    """Widen the SH to ``count`` coefficients; new ones start at 0."""
    extra = 3 * (count - parameters.sh_count)
    if extra <= 0:
        return parameters

    def widen(rows: Tensor) -> Tensor:
        return torch.nn.functional.pad(rows, (0, extra))

    raw = widen(parameters.raw)
    wider = {**parameters.values, "sh": raw[:, COLOR:].reshape(len(raw), -1, 3).contiguous()}
    return replace(parameters, raw=raw, first=widen(parameters.first), second=widen(parameters.second), values=wider)
