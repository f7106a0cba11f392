"""Matches of another source, made into what COLMAP's database takes: keypoints per photo, and rows of them per match.

Input: ``Matches``. Output: ``Features`` with empty descriptors, and rows. Does not: verify.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from ..records import Views
from .features import Features
from .matches import Matches

SNAP_PX = 0.25
"""Ends of matches closer than this, in pixels of the original photo, are one keypoint, so that tracks through photos form."""


def keypoints_of(views: Views, matches: Matches) -> tuple[list[Features], Int[np.ndarray, "M 2"]]:
    """Keypoints at the original size, and the rows of them that every match joins.

    Args:
        views: the photos of ``matches``.
        matches: pairs of photos with pixels of the original size.
    """
    rows = np.zeros((len(matches.px), 2), np.int64)
    photo = np.repeat(matches.pairs, matches.counts, axis=0)
    features = []
    for index, view in enumerate(views):
        ends = [np.flatnonzero(photo[:, side] == index) for side in (0, 1)]
        px = np.concatenate([matches.px[ends[0], :2], matches.px[ends[1], 2:]])
        _, first, inverse = np.unique(np.round(px / SNAP_PX), axis=0, return_index=True, return_inverse=True)
        inverse = inverse.reshape(-1)
        rows[ends[0], 0], rows[ends[1], 1] = inverse[: len(ends[0])], inverse[len(ends[0]) :]
        keypoints = np.zeros((len(first), 4), np.float32)
        keypoints[:, :2], keypoints[:, 2] = px[first], 1.0
        image = view.decode(view.original_width, view.original_height)
        at = np.clip(keypoints[:, :2].astype(np.int64), 0, [view.original_width - 1, view.original_height - 1])
        features.append(
            Features(
                keypoints_px=keypoints,
                descriptors=np.zeros((len(first), 128), np.uint8),
                rgb=image[at[:, 1], at[:, 0]],
                width=view.original_width,
                height=view.original_height,
            )
        )
    return features, rows
