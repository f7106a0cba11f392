"""The ways of finding cameras that are tried, cheapest first.

Output: ``Recipe`` records and their order. Does not: run them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from .matches import Matcher


@dataclass(frozen=True, kw_only=True)
class FeatureKind:
    """Which features, and in what size of the photo."""

    detector: Literal["sift", "affine"]
    """'sift' is fast; 'affine' adds affine shapes and descriptors pooled over domain sizes, many times slower."""
    side: int
    """Longest side of the photo when features are looked for, pixels."""
    enlarge: bool
    """Enlarge smaller photos to ``side``: fine texture then lies within the scales that SIFT describes."""
    most: int
    """Strongest features kept per photo; matching costs their square. The affine detector may give each two orientations."""
    contrast: float
    """Least contrast of a feature, in the detector's own unit."""


@dataclass(frozen=True, kw_only=True)
class MatchKind:
    """Features, and how they are matched: what a database holds."""

    features: FeatureKind
    exhaustive_up_to: int
    """Captures of up to this many photos are matched all against all."""
    guided: bool
    """Look again along epipolar lines once a pair's geometry is known."""
    own_lenses: bool = False
    """Every photo has its own focal length and distortion, whatever EXIF says."""
    matcher: Matcher | None = None
    """Another source of matches; ``features`` and ``guided`` then do not matter."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When the mapper dares."""

    init_min_tri_angle: float
    """Degrees between rays of the first pair."""
    init_min_num_inliers: int
    abs_pose_min_num_inliers: int
    """Points that must agree on where a photo was taken from."""
    min_num_matches: int
    two_view_points: bool
    """Points that only two photos see are the least certain ones, but all that two photos alone can have."""
    lower_the_bar: bool = True
    """Take a lesser first pair, by half and half again, where none is as good as asked for; otherwise nothing is placed."""


STRICT = Thresholds(
    init_min_tri_angle=16.0, init_min_num_inliers=100, abs_pose_min_num_inliers=30, min_num_matches=15, two_view_points=False
)
FIRM = replace(STRICT, lower_the_bar=False)
RELAXED = Thresholds(
    init_min_tri_angle=4.0, init_min_num_inliers=30, abs_pose_min_num_inliers=15, min_num_matches=10, two_view_points=True
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way of finding cameras."""

    name: str
    """For the report."""
    matching: MatchKind
    mapper: Literal["incremental", "global"] = "incremental"
    thresholds: Thresholds = RELAXED
    focal_ratio: float | None = None
    """First guess of unknown focal lengths over the longest side; None takes 1.2."""
    at_most: int = 10**6
    """Captures of more photos leave this recipe out: it would take too long."""
    at_least: int = 2
    """Captures of fewer photos leave this recipe out: it needs more to work with."""
    least_missing: float = 0.0
    """With a smaller share of the photos left over, and all else well, this recipe is not worth its time."""
    only: Literal["always", "focal unknown", "lenses shared"] = "always"
    """Captures in which the recipe can change anything."""

    @property
    def is_careful(self) -> bool:
        """Whether the first pair tells depth well, so that a wrong focal length would show."""
        return self.mapper == "incremental" and self.thresholds.init_min_tri_angle >= STRICT.init_min_tri_angle

    def choice(self) -> dict[str, Any]:
        """The mapper's part, plain."""
        return {"mapper": self.mapper, "focal_ratio": self.focal_ratio, **vars(self.thresholds)}


SIFT = FeatureKind(detector="sift", side=1200, enlarge=False, most=4096, contrast=0.02)
RICH_SIFT = replace(SIFT, most=8192)
LEAN_SIFT = replace(SIFT, most=2500)
DENSE_SIFT = FeatureKind(detector="sift", side=1600, enlarge=True, most=6144, contrast=0.008)
AFFINE = FeatureKind(detector="affine", side=1200, enlarge=True, most=5000, contrast=0.004)

PLAIN = MatchKind(features=SIFT, exhaustive_up_to=16, guided=False)
RICH = MatchKind(features=RICH_SIFT, exhaustive_up_to=16, guided=False)
COMPLETE = replace(RICH, exhaustive_up_to=40)
LEAN = MatchKind(features=LEAN_SIFT, exhaustive_up_to=16, guided=False)
DENSE = MatchKind(features=DENSE_SIFT, exhaustive_up_to=24, guided=False)
GUIDED = replace(DENSE, guided=True)
WARPED = MatchKind(features=AFFINE, exhaustive_up_to=16, guided=True)

A_TENTH = 0.1
"""For a photo or two of twenty nobody waits five times as long as for the others."""
OTHER_FOCALS = (0.6, 0.35, 2.2)
"""Where else to start from when nobody told the focal length, over the longest side: usual, ultra-wide and long lenses of phones.
From 1.2 a wide lens can end far off, and still explain most matches."""
FEW, SOME, MANY = 12, 16, 24
"""Guided matching takes two seconds a pair, so only few photos can afford it, and all features that plain SIFT finds: more points
make better cameras; some can afford 4096 features, not many."""

QUICK = (
    Recipe(name="rich SIFT, strict thresholds", matching=RICH, thresholds=STRICT, at_most=FEW),
    Recipe(name="rich SIFT, relaxed thresholds", matching=RICH, at_most=FEW),
    Recipe(name="plain SIFT, strict thresholds", matching=PLAIN, thresholds=STRICT, at_least=FEW + 1, at_most=SOME),
    Recipe(name="plain SIFT, relaxed thresholds", matching=PLAIN, at_least=FEW + 1, at_most=SOME),
    Recipe(name="lean SIFT, strict thresholds", matching=LEAN, thresholds=FIRM, at_least=SOME + 1),
    Recipe(name="lean SIFT, global mapping", matching=LEAN, mapper="global", at_least=SOME + 1),
    Recipe(name="lean SIFT, relaxed thresholds", matching=LEAN, at_least=SOME + 1),
)
"""Tried first, and alone when speed is all. Of many photos, which are often a drive ahead or a pan, all at once is tried before
thresholds are relaxed: it is quicker, and with a first pair that tells no depth the photos after it go astray."""

LADDER = (
    *QUICK,
    Recipe(name="rich SIFT, global mapping", matching=RICH, mapper="global", at_least=4, at_most=FEW),
    *(
        Recipe(
            name=f"rich SIFT, first focal length {ratio} times the longest side",
            matching=RICH,
            focal_ratio=ratio,
            at_most=FEW,
            only="focal unknown",
        )
        for ratio in OTHER_FOCALS
    ),
    Recipe(name="plain SIFT, global mapping", matching=PLAIN, mapper="global", at_least=FEW + 1, at_most=SOME),
    Recipe(name="rich SIFT, all pairs, strict thresholds", matching=COMPLETE, thresholds=STRICT, at_least=SOME + 1, at_most=40),
    Recipe(name="rich SIFT, all pairs", matching=COMPLETE, at_least=SOME + 1, at_most=40),
    Recipe(name="dense SIFT at 1600 px", matching=DENSE, at_least=FEW + 1, at_most=100, least_missing=A_TENTH),
    Recipe(
        name="dense SIFT at 1600 px, global mapping",
        matching=DENSE,
        mapper="global",
        at_least=FEW + 1,
        at_most=100,
        least_missing=A_TENTH,
    ),
    Recipe(name="dense SIFT at 1600 px, guided matching, strict thresholds", matching=GUIDED, thresholds=STRICT, at_most=FEW),
    Recipe(name="dense SIFT at 1600 px, guided matching", matching=GUIDED, at_most=FEW),
    *(
        Recipe(
            name=f"dense SIFT, guided matching, first focal length {ratio} times the longest side",
            matching=GUIDED,
            focal_ratio=ratio,
            at_most=FEW,
            only="focal unknown",
        )
        for ratio in OTHER_FOCALS
    ),
    Recipe(name="dense SIFT, guided matching, global mapping", matching=GUIDED, mapper="global", at_least=4, at_most=FEW),
    Recipe(name="plain SIFT, own lens per photo", matching=replace(PLAIN, own_lenses=True), at_most=MANY, only="lenses shared"),
    Recipe(name="affine shapes, pooled descriptors, guided matching", matching=WARPED, at_most=MANY, least_missing=A_TENTH),
    Recipe(name="affine shapes, global mapping", matching=WARPED, mapper="global", at_least=4, at_most=MANY, least_missing=A_TENTH),
)
"""All that is tried, in order, until the evidence is strong."""


def with_matches_of(matcher: Matcher) -> tuple[Recipe, ...]:
    """The ladder with matches of another source: tried after plain SIFT, before features that take long."""
    kind = MatchKind(features=SIFT, exhaustive_up_to=SOME, guided=False, matcher=matcher)
    learned = (
        Recipe(name="learned matches, strict thresholds", matching=kind, thresholds=STRICT, at_most=MANY),
        Recipe(name="learned matches", matching=kind, at_most=MANY),
        Recipe(name="learned matches, global mapping", matching=kind, mapper="global", at_least=4, at_most=MANY),
    )
    return (*QUICK, *learned, *LADDER[len(QUICK) :])
