"""What is wrong with a capture, in words a photographer understands.

Input: matches, models and evidence. Output: ``Finding`` sentences with remedies. Does not: find cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..records import Views
from .evidence import Evidence
from .matches import Matches

SURE_MATCHES = 30
"""Pairs with fewer matches may agree by accident, and do not tie two groups of photos together."""
SCENE_PHOTOS = 3
"""Photos that make a group a scene of its own."""
FLAT_SHARE, FLAT_PAIRS = 0.85, 0.8
"""A pair is as good as flat when one plane or turn explains this share of its matches; a capture, when this share of pairs is."""
STILL_SHARE, STILL_PAIRS, STILL_SPREAD = 0.93, 0.95, 0.01
"""The same for a camera that certainly only turned, or did not move at all: other features would see no more."""
TURN_SPREAD = 0.06
"""A plane-induced change counts as a turn when it stretches no direction by more than this over any other (natural logarithm)."""
FOCAL_RATIOS = np.geomspace(0.35, 4.0, 24)
"""Focal lengths over longest side among which the one is sought that makes turns of all pairs."""
STEADY_PX = 0.002
"""RANSAC threshold of a homography, share of the longest side."""
LITTLE_ANGLE_DEG = 1.5
"""Rays that meet at less tell little about depth."""

OVERLAP = "Take photos that overlap by two thirds or more, and move sideways between them; avoid plain, shiny or moving things."
STEP = "Do not only turn: take a step sideways between photos, so that near things move against far ones."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, and what to do about it."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason} {self.remedy}"


def named(views: Views, photos: Sequence[int], *, most: int = 4) -> str:
    """Names of photos for a sentence, the first few."""
    names = [views[i].name for i in photos]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def sure(matches: Matches) -> Matches:
    """Pairs with matches enough to be no accident."""
    kept = matches.counts >= SURE_MATCHES
    return Matches(pairs=matches.pairs[kept], counts=matches.counts[kept], px=matches.px[np.repeat(kept, matches.counts)])


def homographies(matches: Matches, views: Views) -> list[tuple[int, int, np.ndarray, float]]:
    """(first, second, H, share of the matches it explains) of every pair; pixels are first counted from the photo's centre, in
    longest sides, so that a focal length alone is missing from the intrinsics."""
    found = []
    size = np.array([(view.original_width, view.original_height) for view in views], np.float64)
    side = size.max(axis=1)
    for i, j, px in matches:
        first, second = (px[:, :2] - size[i] / 2) / side[i], (px[:, 2:] - size[j] / 2) / side[j]
        H, inside = cv2.findHomography(first, second, cv2.RANSAC, STEADY_PX)
        if H is not None and inside is not None:
            found.append((i, j, H, float(inside.mean())))
    return found


def turn_spread(Hs: Sequence[np.ndarray]) -> float:
    """How far homographies are from turns of a camera, at the focal length that suits them best; 0 for pure turns.

    Without a baseline H = K R K^-1, so K^-1 H K has equal singular values. A step sideways or a plane stretches them apart.
    """

    def spread(ratio: float) -> float:
        K = np.diag([ratio, ratio, 1.0])
        values = [np.linalg.svd(np.linalg.inv(K) @ H @ K, compute_uv=False) for H in Hs]
        return float(np.median([np.log(v[0] / max(v[2], 1e-12)) for v in values]))

    return min(spread(ratio) for ratio in FOCAL_RATIOS)


def only_turned(matches: Matches, views: Views) -> bool:
    """Whether all photos hang together and nothing moved in them but the whole picture: no features can tell depth then."""
    certain = sure(matches)
    if len(certain.groups(len(views))[0]) < len(views):
        return False
    pairs = homographies(certain, views)
    if not pairs or np.mean([share >= STILL_SHARE for *_, share in pairs]) < STILL_PAIRS:
        return False
    return turn_spread([H for _, _, H, _ in pairs]) < STILL_SPREAD


def too_few_placed(views: Views, registered: Sequence[bool]) -> Finding:
    """What to say when fewer than two input photos have cameras; where scoring took those that have, another thing helps."""
    placed = [view for view, found in zip(views, registered, strict=True) if found]
    scored = [view.name for view in placed if view.holdout]
    inputs = sum(not view.holdout for view in views)
    reason = f"Cameras were found for {len(placed) - len(scored)} of the {inputs} input photos; at least two are needed."
    if len(placed) < 2:
        return Finding(reason=reason, remedy=OVERLAP)
    kept = f"{', '.join(scored)} {'was' if len(scored) == 1 else 'were'} placed too, but kept for scoring."
    return Finding(reason=f"{reason} {kept}", remedy="Leave --holdout out, so that every photo that was placed is used.")


def look_for_turning(matches: Matches, views: Views, evidence: Evidence | None) -> Finding | None:
    """Recognise a camera that was turned on the spot, or a scene that is one flat surface."""
    if evidence is not None and evidence.angle_deg >= LITTLE_ANGLE_DEG:
        return None
    pairs = homographies(sure(matches), views)
    if not pairs or np.mean([share >= FLAT_SHARE for *_, share in pairs]) < FLAT_PAIRS:
        if evidence is None:
            return None
        return Finding(
            reason="The photos were taken from places close together, so depth is vague"
            f" (rays meet at {evidence.angle_deg:.1f} degrees).",
            remedy=STEP,
        )
    if turn_spread([H for _, _, H, _ in pairs]) < TURN_SPREAD:
        return Finding(
            reason="The camera was turned on the spot: nothing moved against its background, so depth cannot be seen.",
            remedy=STEP,
        )
    return Finding(
        reason="The photos show one flat surface, or were taken from nearly one place: nothing moves against its background.",
        remedy=f"Include things at different distances. {STEP}",
    )


def joined(groups: Sequence[Sequence[int]], models: Sequence[Sequence[int]]) -> list[list[int]]:
    """Groups of photos, those made one that a model holds photos of together; the largest first."""
    made = [set(group) for group in groups]
    for model in models:
        touched = [group for group in made if not group.isdisjoint(model)]
        made = [group for group in made if group.isdisjoint(model)] + [set().union(*touched)]
    return sorted((sorted(group) for group in made if group), key=lambda group: (-len(group), group[0]))


def look_for_scenes(matches: Matches, views: Views, models: Sequence[Sequence[int]]) -> Finding | None:
    """Recognise photos of two or more places that share nothing."""
    groups = [group for group in joined(sure(matches).groups(len(views)), models[:1]) if len(group) >= SCENE_PHOTOS]
    apart = [list(models[0])] if models else []
    for model in models[1:]:
        new = [photo for photo in model if all(photo not in other for other in apart)]
        if len(new) >= SCENE_PHOTOS and len(new) == len(model):
            apart.append(list(model))
    if len(groups) < 2 and len(apart) < 2:
        return None
    shown = groups if len(groups) >= 2 else apart
    listed = "; ".join(f"{len(group)} photos ({named(views, group)})" for group in shown[:4])
    why = "share too little" if shown is groups else "could not be joined"
    return Finding(
        reason=f"The photos fall into {len(shown)} groups that {why}: {listed}. The group with most support was used.",
        remedy="Reconstruct each group by itself, or add photos that show the way from one to the other.",
    )


def look_for_strangers(matches: Matches, views: Views) -> Finding | None:
    """Name the photos that share nothing with any other."""
    partners = np.bincount(matches.pairs.reshape(-1), minlength=len(views))
    alone = [int(i) for i in np.flatnonzero(partners == 0)]
    if not alone or len(alone) == len(views):
        return None
    verb = "overlaps" if len(alone) == 1 else "overlap"
    return Finding(
        reason=f"{len(alone)} of {len(views)} photos {verb} with no other: {named(views, alone)}.",
        remedy="Take more photos around them, each overlapping the last by two thirds, or leave them out.",
    )


def look_for_gaps(matches: Matches, views: Views, placed: Sequence[bool]) -> Finding | None:
    """Say that photos which do overlap could not be placed because they overlap too little."""
    partners = np.bincount(matches.pairs.reshape(-1), minlength=len(views))
    lost = [i for i, (ok, count) in enumerate(zip(placed, partners, strict=True)) if not ok and count > 0]
    if not lost or not any(placed):
        return None
    return Finding(
        reason=f"{len(lost)} of {len(views)} photos overlap too little with the others to be placed: {named(views, lost)}.",
        remedy="Fill the gaps with photos in between, moving a little at a time.",
    )


def diagnose(
    matches: Matches, views: Views, models: Sequence[Sequence[int]], evidence: Evidence | None, placed: Sequence[bool]
) -> list[Finding]:
    """Everything worth telling about a capture, the gravest first.

    Args:
        matches: all that agreed.
        models: photos of every model found by the attempt that was chosen, largest first.
        evidence: of the chosen cameras; None when there are none.
        placed: per photo, whether it has a camera.
    """
    scenes = look_for_scenes(matches, views, models)
    found = [look_for_turning(matches, views, evidence), scenes, look_for_strangers(matches, views)]
    if scenes is None:
        found.append(look_for_gaps(matches, views, placed))
    return [one for one in found if one is not None]


def refusal(matches: Matches, views: Views, compared: int) -> Finding:
    """Why no cameras could be found at all."""
    if not len(matches.pairs):
        return Finding(
            reason=f"No two of the {len(views)} photos show the same place, or they show too little detail to tell"
            f" ({compared} pairs compared, none agreed).",
            remedy=OVERLAP,
        )
    found = [look_for_turning(matches, views, None), look_for_scenes(matches, views, ()), look_for_strangers(matches, views)]
    first = next((one for one in found if one is not None), None)
    agreeing = len({tuple(pair) for pair in matches.pairs.tolist()})
    reason = (
        f"No cameras could be found: {agreeing} of {compared} pairs of photos agree, but none from places far enough apart"
        " to see depth."
    )
    return Finding(reason=f"{reason} {first.reason}" if first else reason, remedy=first.remedy if first else OVERLAP)
