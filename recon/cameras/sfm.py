"""Runs recipes of structure from motion, and keeps what later ones can use again.

Input: ``Views`` and a ``Recipe``. Output: ``Attempt``.
Does not: import pycolmap (``recon.cameras.child`` does, in a process that is ended at once on cancellation), or choose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..progress import Progress
from ..records import Views
from .child_process import run_child
from .features import Features, find_all_features
from .given_matches import keypoints_of
from .matches import Matcher, Matches, Tell
from .pairs import choose_pairs
from .recipes import FeatureKind, MatchKind, Recipe
from .result import SfmResult, place

FEATURE_SHARE, MATCH_SHARE = 0.25, 0.45
"""Parts of an attempt that features and matching take; placing the photos takes the rest."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What one recipe gave."""

    result: SfmResult | None
    """None when no two photos could be placed."""
    models: tuple[tuple[int, ...], ...]
    """Photos of every model that was found, largest first."""
    image_side: float
    """Mean longest side of the images the features were found in, pixels."""


@dataclass
class Workbench:
    """The photos of one capture with everything found out about them so far."""

    views: Views
    folder: Path
    """Takes databases and jobs."""
    progress: Progress
    seed: int
    features: dict[FeatureKind, list[Features]] = field(default_factory=dict)
    matches: dict[MatchKind, Matches] = field(default_factory=dict)
    """Verified matches by how they were found; the database lies in ``folder``."""
    compared: int = 0
    """Pairs that were compared, in the most thorough matching."""
    keypoints: dict[Matcher, list[Features]] = field(default_factory=dict)
    """Where the matches of other sources end."""

    def all_matches(self) -> Matches:
        """Everything that agreed, however it was found."""
        return Matches.join(list(self.matches.values()))

    def camera_numbers(self, *, own_lenses: bool) -> np.ndarray:
        """Number of the camera of each photo; photos of one body, lens and size share one."""
        if own_lenses:
            return np.arange(len(self.views))
        keys = [view.camera_id or f"{view.original_width}x{view.original_height}" for view in self.views]
        ids = sorted(set(keys))
        return np.array([ids.index(key) for key in keys], np.int64)

    def gather(self, kind: MatchKind, tell: Tell) -> list[Features]:
        """Find features and match the photos, unless that is done."""
        if kind.matcher is not None:
            return self._adopt(kind, tell)
        if kind.features not in self.features:
            tell(0.0, "features")
            found = find_all_features(
                self.views, kind.features, self.folder, self.progress, lambda done, words: tell(FEATURE_SHARE * done, words)
            )
            self.features[kind.features] = found
        features = self.features[kind.features]
        if kind not in self.matches:
            pairs = choose_pairs(features, exhaustive_up_to=kind.exhaustive_up_to)
            descriptors = {f"descriptors_{i}": one.descriptors for i, one in enumerate(features)}
            self._match(kind, features, np.array(pairs, np.int64).reshape(-1, 2), descriptors, tell)
        return features

    def run(self, recipe: Recipe, tell: Tell) -> Attempt:
        """Find features, match and place photos, reusing whatever an earlier recipe left."""
        kind = recipe.matching
        features = self.gather(kind, tell)
        side = float(np.mean([max(one.width, one.height) for one in features]))
        if not len(self.matches[kind].pairs):
            return Attempt(result=None, models=(), image_side=side)
        return self._place(recipe, features, side, tell)

    def database(self, kind: MatchKind) -> str:
        return f"database_{list(self.matches).index(kind) if kind in self.matches else len(self.matches)}.db"

    def _adopt(self, kind: MatchKind, tell: Tell) -> list[Features]:
        """Take matches from another source; COLMAP verifies them like its own."""
        assert kind.matcher is not None
        if kind.matcher not in self.keypoints:
            tell(0.0, "features")
            given = kind.matcher(self.views, self.progress, lambda done, words: tell(FEATURE_SHARE * done, words))
            features, rows = keypoints_of(self.views, given)
            self.keypoints[kind.matcher] = features
            self._match(kind, features, given.pairs, {"given_matches": rows, "given_counts": given.counts}, tell)
        return self.keypoints[kind.matcher]

    def _match(
        self, kind: MatchKind, features: Sequence[Features], pairs: np.ndarray, evidence: dict[str, np.ndarray], tell: Tell
    ) -> None:
        """Match by descriptors, or take matches as given, and verify them in the child process.

        Args:
            pairs: ``P 2``, photos to compare.
            evidence: descriptors_i of every photo, or given_matches and given_counts.
        """
        job = describe_photos(self.views, [(f.width, f.height) for f in features], self.camera_numbers(own_lenses=kind.own_lenses))
        job |= {"seed": np.array(self.seed), "database": np.array(self.database(kind)), "guided": np.array(kind.guided)}
        job |= {"pairs": pairs, **{f"keypoints_{i}": one.keypoints_px for i, one in enumerate(features)}, **evidence}

        def show(item: dict[str, Any]) -> None:
            tell(FEATURE_SHARE + MATCH_SHARE * item["fraction"], "matching photos")

        found = run_child("match", self.folder, job, progress=self.progress, on_news=show)
        self.matches[kind] = at_original_size(found, self.views, job["sizes"])
        self.compared = max(self.compared, len(pairs))

    def _place(self, recipe: Recipe, features: Sequence[Features], side: float, tell: Tell) -> Attempt:
        job = {
            "seed": np.array(self.seed),
            "views": np.array(len(self.views)),
            "database": np.array(self.database(recipe.matching)),
            "choice": np.array(json.dumps(recipe.choice())),
        }
        matched = FEATURE_SHARE + MATCH_SHARE

        def show(item: dict[str, Any]) -> None:
            tell(matched + (1 - matched) * item["fraction"], f"placing photos, {item['placed']} so far")

        tell(matched, "placing photos")
        found = run_child("place", self.folder, job, progress=self.progress, on_news=show)
        models = tuple(tuple(group) for group in json.loads((self.folder / "models.json").read_text()))
        result = assemble(self.views, features, found) if models else None
        return Attempt(result=result, models=models, image_side=side)


def describe_photos(views: Views, sizes: Sequence[tuple[int, int]], camera_of: np.ndarray) -> dict[str, np.ndarray]:
    """Sizes and lenses of photos as the child wants them.

    Args:
        sizes: (width, height) that keypoints refer to.
        camera_of: number of the camera of each photo.
    """
    known = np.full((len(views), 8), np.nan)
    for i, (view, (width, height)) in enumerate(zip(views, sizes, strict=True)):
        if view.intrinsics is not None:
            sx, sy = width / view.original_width, height / view.original_height
            known[i] = np.array(view.intrinsics, float) * [sx, sy, sx, sy, 1, 1, 1, 1]
    return {
        "sizes": np.array(sizes, np.int64),
        "focal_px": np.array([(v.focal_px or 0.0) * w / v.original_width for v, (w, _) in zip(views, sizes, strict=True)]),
        "known": known,
        "camera_of": camera_of.astype(np.int64),
    }


def at_original_size(found: dict[str, np.ndarray], views: Views, sizes: np.ndarray) -> Matches:
    """The child's verified matches in pixels of the original photos."""
    original = np.array([(view.original_width, view.original_height) for view in views], np.float64)
    scale = np.concatenate([(original / sizes)[found["match_pairs"][:, side]] for side in (0, 1)], axis=1)
    return Matches(
        pairs=found["match_pairs"],
        counts=found["match_counts"],
        px=found["match_px"] * np.repeat(scale.reshape(-1, 4), found["match_counts"], axis=0),
    )


def assemble(views: Views, features: Sequence[Features], found: dict[str, np.ndarray]) -> SfmResult:
    """Put a model into the order of the photos, and colour its points from photos that are not held out."""
    rows = [int(i) - 1 for i in found["image_ids"]]
    solved = place(views, found, rows)
    total = np.zeros((len(found["points_world"]), 3))
    count = np.zeros(len(found["points_world"]))
    for row, view_index in enumerate(rows):
        if views[view_index].holdout or not len(features[view_index].rgb):
            continue
        mine = found["observed"][:, 0] == row
        points = found["observed"][mine, 1]
        np.add.at(total, points, features[view_index].rgb[found["keypoint"][mine]])
        np.add.at(count, points, 1)
    mean = np.where(count[:, None] > 0, total / np.maximum(count[:, None], 1), 128.0)
    return replace(solved, points_rgb=torch.from_numpy(mean.round().astype(np.uint8)))
