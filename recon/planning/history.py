"""What earlier runs on this machine took, against what was expected.

Input: estimates and what was. Output: factors that correct the next estimate. Does not: leave this machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..files import write_json_atomic
from ..resume.places import cache_root
from .probe import Machine

NAME = "planning.json"
KEPT = 9
"""Runs remembered per variant of a stage."""
LEAST_S = 0.3
"""Shorter stages teach nothing."""
LIMITS = (0.02, 50.0)
"""Factors beyond these are taken for accidents."""


@dataclass(frozen=True, kw_only=True)
class Experience:
    """Per variant of a stage: actual over counted seconds of the latest runs, both at the machine's speed of that moment."""

    factors: dict[str, list[float]] = field(default_factory=dict)
    unknown_s: dict[str, list[float]] = field(default_factory=dict)
    """Variants that nothing was known of: (seconds over the machine's conv_s) of the latest runs."""

    def runs(self, variant: str) -> int:
        return len(self.factors.get(variant, [])) or len(self.unknown_s.get(variant, []))

    def corrected(self, variant: str, counted_s: float | None, machine: Machine) -> float | None:
        """Seconds to expect."""
        if counted_s is None:
            seen = self.unknown_s.get(variant)
            return _median(seen) * machine.conv_s if seen else None
        seen = self.factors.get(variant)
        return counted_s * _median(seen) if seen else counted_s


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def load_experience() -> Experience:
    """Read what this machine has seen; nothing where nothing can be read."""
    root = cache_root()
    try:
        content = json.loads((root / NAME).read_text(encoding="utf-8")) if root is not None else {}
        return Experience(
            factors={str(k): [float(v) for v in values] for k, values in content.get("factors", {}).items()},
            unknown_s={str(k): [float(v) for v in values] for k, values in content.get("unknown_s", {}).items()},
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return Experience()


def learn(counted_s: dict[str, float | None], actual_s: dict[str, float], variants: dict[str, str], machine: Machine) -> None:
    """Remember what stages took that were really run.

    Args:
        counted_s: by counting work, uncorrected, per stage.
        actual_s: seconds per stage that ran; stages found in the cache are left out by the caller.
        variants: stage -> its variant.
    """
    root = cache_root()
    if root is None:
        return
    known = load_experience()
    for stage, actual in actual_s.items():
        if stage not in variants or actual < LEAST_S:
            continue
        counted, name = counted_s.get(stage), variants[stage]
        if counted is None:
            known.unknown_s[name] = [*known.unknown_s.get(name, []), actual / machine.conv_s][-KEPT:]
        elif counted > 0 and LIMITS[0] < actual / counted < LIMITS[1]:
            known.factors[name] = [*known.factors.get(name, []), actual / counted][-KEPT:]
    path = Path(root) / NAME
    try:
        write_json_atomic(path, {"factors": known.factors, "unknown_s": known.unknown_s})
    except (OSError, UserError):
        return  # a machine that cannot remember still estimates
