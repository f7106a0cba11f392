"""What to try next, when to stop, and which attempt to take.

Input: attempts with their evidence. Output: decisions. Does not: try anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..records import Views
from .evidence import STRONG_MATCHES, Evidence, judge
from .recipes import MatchKind, Recipe
from .sfm import Attempt, Workbench

ENOUGH_SCORE = 0.8
"""With every photo placed and this score, nothing more is tried once dense features had their turn."""

SURE_AGREEMENT = 0.95
"""With strong evidence and this share of all matches explained the search ends at once, as it does after a careful attempt; with
less, what the same matches give in other ways is seen first: a wrong focal length can explain nine matches in ten."""
ALIKE = 0.02
"""Scores nearer than this tell nothing apart: features that match a little more may well sit a little worse."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """An attempt with its evidence."""

    name: str
    attempt: Attempt
    evidence: Evidence | None
    """None when no cameras came of it."""
    seconds: float
    note: str = ""

    @property
    def score(self) -> float:
        return -1.0 if self.evidence is None else self.evidence.score

    def report(self) -> dict[str, Any]:
        """Numbers and reasons, plain."""
        told: dict[str, Any] = {"tried": self.name, "placed": 0, "points": 0, "seconds": round(self.seconds, 2)}
        if self.evidence is not None and self.attempt.result is not None:
            told |= {
                "placed": self.evidence.placed,
                "points": len(self.attempt.result.points_world),
                "models": [len(model) for model in self.attempt.models],
                "reprojection_error_px": round(self.attempt.result.reprojection_error_px, 3),
                "explained_matches": int(self.evidence.explained.sum()) // 2,
                "agreement": round(self.evidence.agreement, 4),
                "angle_deg": round(self.evidence.angle_deg, 2),
                "focal_over_long_side": [round(ratio, 3) for ratio in self.evidence.focal_ratio],
                "score": round(self.score, 4),
                "weak": list(self.evidence.weaknesses().values()),
            }
        if self.note:
            told["note"] = self.note
        return told


def judged(name: str, attempt: Attempt, bench: Workbench, seconds: float, note: str = "") -> Tried:
    """Weigh an attempt against everything that was matched so far."""
    evidence = None
    if attempt.result is not None:
        share = attempt.result.reprojection_error_px / attempt.image_side
        evidence = judge(attempt.result.cameras, bench.all_matches(), error_share=share)
    return Tried(name=name, attempt=attempt, evidence=evidence, seconds=seconds, note=note)


def fits(recipe: Recipe, views: Views, bench: Workbench) -> bool:
    """Whether a recipe can change anything for these photos within reasonable time."""
    if not recipe.at_least <= len(views) <= recipe.at_most:
        return False
    if recipe.only == "focal unknown":
        return any(view.focal_px is None for view in views)
    if recipe.only == "lenses shared":
        shared = len(np.unique(bench.camera_numbers(own_lenses=False))) < len(views)
        return shared and all(view.intrinsics is None and not view.lens_is_shared for view in views)
    return True


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The best score wins; of those as good that place as many photos, the one whose points lie nearest to their pixels."""
    top = max(tried, key=lambda one: one.score, default=None)
    if top is None or top.evidence is None or top.evidence.error_share == 0.0:
        return top
    best = top
    for one in tried:
        rival = one.evidence
        if rival is None or one.score < top.score - ALIKE or rival.placed < top.evidence.placed or rival.error_share == 0.0:
            continue
        if best.evidence is not None and rival.error_share < best.evidence.error_share:
            best = one
    return best


def worth_its_time(recipe: Recipe, bench: Workbench, best: Tried | None) -> bool:
    """Whether enough photos lack a camera, or hold it by little (these count half), for a recipe that takes long.

    Where more than that is wrong it always is.
    """
    if best is None or best.evidence is None or not set(best.evidence.weaknesses()) <= {"placed", "angle", "thin"}:
        return True
    missing = len(bench.views) - best.evidence.placed
    thin = int((best.evidence.explained < STRONG_MATCHES).sum()) - missing
    return missing + thin // 2 >= recipe.least_missing * len(bench.views)


def is_pointless(recipe: Recipe, bench: Workbench, best: Tried | None, *, settled: bool) -> bool:
    """Whether to leave a recipe out.

    Args:
        best: of what was tried.
        settled: the evidence of one attempt was strong; only what the same matches give in other ways is looked at still.
    """
    if not fits(recipe, bench.views, bench) or not worth_its_time(recipe, bench, best):
        return True
    if recipe.matching not in bench.matches:
        return settled
    sure = best is None or best.evidence is None or best.evidence.agreement >= SURE_AGREEMENT
    return not len(bench.matches[recipe.matching].pairs) or (sure and nothing_left(recipe.matching, bench, best))


def nothing_left(kind: MatchKind, bench: Workbench, best: Tried | None) -> bool:
    """Whether all photos that ``kind`` ties together are placed well, so that only other matches could do more."""
    if kind not in bench.matches:
        return False
    if not len(bench.matches[kind].pairs):
        return True
    if best is None or best.evidence is None:
        return False
    tied = bench.matches[kind].groups(len(bench.views))[0]
    return best.evidence.placed >= len(tied) and set(best.evidence.weaknesses()) <= {"placed", "angle"}


def is_enough(bench: Workbench, best: Tried | None) -> bool:
    """Whether to stop though the evidence is not strong, after features of two kinds had their turn; more of one kind are one kind.

    With photos left over, that is when the second kind tied no more photos together than the first: they belong elsewhere.
    """
    kinds = [kind for kind in bench.matches if not kind.own_lenses and kind.matcher is None]
    if best is None or best.evidence is None or len({replace(kind.features, most=0) for kind in kinds}) < 2:
        return False
    if best.evidence.placed == len(bench.views):
        return best.score >= ENOUGH_SCORE
    tied = [len(bench.matches[kind].groups(len(bench.views))[0]) for kind in kinds]
    return tied[-1] <= max(tied[:-1]) and all(nothing_left(kind, bench, best) for kind in kinds)
