"""Which photos are worth comparing.

Input: ``Features``. Output: pairs of photos. Does not: match them fully.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .features import Features

PROBES = 192
"""Features of largest scale per photo, on which pairs are judged before they are matched fully."""
PARTNERS, FOLLOWERS = 10, 3
"""Every photo is matched with its best partners by probes and with the next photos in name order: linear in the photos."""
MAX_RATIO = 0.8
"""Greatest ratio of the angles to the nearest and the second nearest descriptor (Lowe 2004, section 7.1)."""


def probe_scores(features: Sequence[Features]) -> np.ndarray:
    """Count mutual nearest neighbours that pass the ratio test among the largest-scale features of every two photos.

    Large features are few, stable and seen from afar, so a handful of matches among them foretells a useful pair.
    Source: Wu, "Towards linear-time incremental structure from motion", 3DV 2013, section 3 (preemptive matching).

    Returns:
        int ``V V``, symmetric, zero diagonal.
    """
    probes = []
    for one in features:
        largest = np.argsort(-one.scales_px, kind="stable")[:PROBES]
        chosen = torch.from_numpy(one.descriptors[largest].astype(np.float32))
        probes.append(chosen / chosen.norm(dim=1, keepdim=True).clamp_min(1e-9))
    scores = np.zeros((len(probes), len(probes)), np.int64)
    for i, first in enumerate(probes):
        for j in range(i):
            second = probes[j]
            if min(len(first), len(second)) < 2:
                continue
            similarity = first @ second.T
            best, index = similarity.topk(2, dim=1)
            back = similarity.argmax(dim=0)
            angle = torch.arccos(best.clamp(-1.0, 1.0))
            mutual = back[index[:, 0]] == torch.arange(len(first))
            scores[i, j] = scores[j, i] = int((mutual & (angle[:, 0] < MAX_RATIO * angle[:, 1])).sum())
    return scores


def choose_pairs(features: Sequence[Features], *, exhaustive_up_to: int) -> list[tuple[int, int]]:
    """Choose which photos to match: all pairs of a small capture, else each photo with its best partners and its followers.

    The partners are those whose largest features agree most; the followers hold a walk together where features fail.

    Args:
        exhaustive_up_to: so many photos are matched all against all.

    Returns:
        Pairs (i, j) with i < j, sorted.
    """
    count = len(features)
    if count <= exhaustive_up_to:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    scores = probe_scores(features)
    pairs: set[tuple[int, int]] = set()
    for i in range(count):
        partners = [int(j) for j in np.argsort(-scores[i], kind="stable") if j != i][:PARTNERS]
        partners += range(i + 1, min(i + 1 + FOLLOWERS, count))
        pairs |= {(min(i, j), max(i, j)) for j in partners}
    return sorted(pairs)
