"""Which pixels of two photos show the same thing: what every way of finding cameras is fed with, and judged by.

Output: ``Matches``. Does not: find them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..progress import Progress
from ..records import Views


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Matches of pairs of photos, pair after pair. A pair may occur more than once."""

    pairs: Int[np.ndarray, "P 2"]
    """Indices of two photos, the first below the second."""
    counts: Int[np.ndarray, " P"]
    """Matches of each pair."""
    px: Float[np.ndarray, "M 4"]
    """x, y in the first photo and x, y in the second, in pixels of the original sizes, centres at +0.5."""

    def __post_init__(self) -> None:
        if int(self.counts.sum()) != len(self.px) or len(self.counts) != len(self.pairs):
            raise ValueError(
                f"Matches: {len(self.pairs)} pairs, {len(self.counts)} counts adding up to {self.counts.sum()}, {len(self.px)} rows"
            )

    def __iter__(self) -> Iterator[tuple[int, int, Float[np.ndarray, "N 4"]]]:
        """(first photo, second photo, its rows of ``px``) of every pair."""
        end = 0
        for (first, second), count in zip(self.pairs.tolist(), self.counts.tolist(), strict=True):
            yield first, second, self.px[end : end + count]
            end += count

    @staticmethod
    def join(parts: list[Matches]) -> Matches:
        """All matches of several sources."""
        if not parts:
            return Matches(pairs=np.zeros((0, 2), np.int64), counts=np.zeros(0, np.int64), px=np.zeros((0, 4)))
        return Matches(
            pairs=np.concatenate([part.pairs for part in parts]),
            counts=np.concatenate([part.counts for part in parts]),
            px=np.concatenate([part.px for part in parts]),
        )

    def groups(self, photos: int) -> list[list[int]]:
        """Photos that hang together through pairs, the largest group first; a photo without partner is a group of its own."""
        label = list(range(photos))
        for first, second in self.pairs.tolist():
            low, high = sorted((label[first], label[second]))
            label = [low if one == high else one for one in label]
        found: dict[int, list[int]] = {}
        for photo, one in enumerate(label):
            found.setdefault(one, []).append(photo)
        return sorted(found.values(), key=lambda group: (-len(group), group[0]))


Tell = Callable[[float, str], None]
"""(share of the work that is done, what is being done)."""

Matcher = Callable[[Views, Progress, Tell], Matches]
"""(photos, progress, tell) -> matches, not yet verified: how another source of matches, a network say, enters."""
