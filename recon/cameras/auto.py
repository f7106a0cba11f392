"""Cameras, best of what works: cheap ways first, richer ones until the evidence is strong.

Input: ``Views``. Output: ``SfmResult`` with everything that was tried and why.
Does not: know how an attempt is made, or trust what a solver says about itself: all attempts are judged on the same matches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import CannotReconstruct, UserError
from ..progress import Progress
from ..records import Views
from .child_process import job_folder_in
from .choice import SURE_AGREEMENT, Tried, best_of, fits, is_enough, is_pointless, judged
from .diagnosis import diagnose, only_turned, refusal
from .evidence import LEAST_SHARE, Evidence
from .matches import Matches
from .recipes import LADDER, QUICK, Recipe
from .refined import refine_predicted
from .result import SfmResult
from .sfm import Attempt, Workbench

logger = logging.getLogger(__name__)

FIRST_SHARE = 0.85
"""Part of the stage "cameras" that the first attempt takes; each later one takes half of what remains."""
ADJUSTED = ", bundle adjustment"
"""Follows the name of a source of cameras where its cameras were adjusted to matches."""


@dataclass(frozen=True, kw_only=True)
class CameraCandidate:
    """Cameras from elsewhere, a network say, that compete with structure from motion when its evidence is not strong."""

    name: str
    """For the report."""
    find: Callable[[Views, Progress], SfmResult]
    """Raises ``UserError`` when it cannot; the reason is reported and the others compete on."""


def climb(
    ladder: Sequence[Recipe], others: Sequence[CameraCandidate], bench: Workbench, tell: Callable[[int, float, str], None]
) -> list[Tried]:
    """Try one recipe after another, then other sources, until the evidence is strong or nothing is left to try."""
    tried: list[Tried] = []
    settled = False
    for recipe in ladder:
        best = max(tried, key=lambda one: one.score, default=None)
        if is_enough(bench, best):
            return tried
        if is_pointless(recipe, bench, best, settled=settled):
            continue
        new = bool(bench.matches) and recipe.matching not in bench.matches
        if new and (best is None or best.evidence is None) and only_turned(bench.all_matches(), bench.views):
            break
        started, number, kinds = time.perf_counter(), len(tried), len(bench.matches)
        attempt = bench.run(recipe, lambda done, words, number=number: tell(number, done, words))
        if len(bench.matches) > kinds:  # more is known now, so everything is weighed again
            tried = [judged(one.name, one.attempt, bench, one.seconds, one.note) for one in tried]
        tried.append(judged(recipe.name, attempt, bench, time.perf_counter() - started))
        logger.info("cameras: %s", tried[-1].report())
        evidence = tried[-1].evidence
        if evidence is not None and evidence.is_final:
            settled = True
            if recipe.is_careful or evidence.agreement >= SURE_AGREEMENT:
                return tried
    for candidate in () if settled else others:
        try:
            tried += asked(candidate, bench, tell, number=len(tried))
        except UserError as error:
            nothing = Attempt(result=None, models=(), image_side=1.0)
            tried.append(Tried(name=candidate.name, attempt=nothing, evidence=None, seconds=0.0, note=str(error)))
    return tried


def asked(
    candidate: CameraCandidate, bench: Workbench, tell: Callable[[int, float, str], None], *, number: int, adjust: bool = True
) -> list[Tried]:
    """Ask a network, say, for cameras; then adjust them to the matches there are. Both are judged, the adjusted ones last.

    Raises:
        UserError: the source of cameras cannot run.
    """
    started = time.perf_counter()
    tell(number, 0.0, candidate.name)
    found = candidate.find(bench.views, bench.progress)
    side = float(np.mean([max(view.width, view.height) for view in bench.views]))
    attempt = Attempt(result=found, models=(_placed(found),), image_side=side)
    tried = [judged(candidate.name, attempt, bench, time.perf_counter() - started)]
    richest = max(bench.matches.values(), key=lambda one: len(one.px), default=None)
    if not adjust or richest is None:
        return tried
    started = time.perf_counter()
    adjusted = refine_predicted(bench, found, richest, lambda done, words: tell(number + 1, done, words))
    if adjusted is not None:
        side = float(np.mean([max(view.original_width, view.original_height) for view in bench.views]))
        attempt = Attempt(result=adjusted, models=(_placed(adjusted),), image_side=side)
        tried.append(judged(f"{candidate.name}{ADJUSTED}", attempt, bench, time.perf_counter() - started))
    return tried


def _placed(result: SfmResult) -> tuple[int, ...]:
    return tuple(torch.nonzero(result.cameras.registered_mask)[:, 0].tolist())


def teller(progress: Progress) -> Callable[[int, float, str], None]:
    """What tells ``progress`` of (number of the attempt, share of it done, words); it never goes back."""
    most = [0.0]

    def tell(number: int, done: float, words: str) -> None:
        before = 1.0 - (1.0 - FIRST_SHARE) * 0.5 ** (number - 1) if number else 0.0
        span = (1.0 - before) * 0.5 if number else FIRST_SHARE
        most[0] = max(most[0], min(0.98, before + span * done))
        progress.update("cameras", most[0], words)

    return tell


def find_cameras(
    views: Views,
    *,
    progress: Progress,
    seed: int,
    ladder: Sequence[Recipe] = LADDER,
    others: Sequence[CameraCandidate] = (),
    workdir: Path | None = None,
) -> SfmResult:
    """Find the cameras of photos: cheap ways first, richer ones until the evidence is strong; the best evidence wins.

    Args:
        views: photos; held-out ones take part.
        progress: told about the stage "cameras"; cancelling ends COLMAP's process within a fraction of a second.
        seed: of every random choice.
        ladder: recipes in the order they are tried.
        others: sources of cameras that are asked when no recipe gave strong evidence.
        workdir: keeps jobs, databases and logs there; None uses a temporary folder.

    Raises:
        CannotReconstruct: no two photos could be placed; says why and what would help.
        Cancelled: the job was asked to stop.
    """
    tell = teller(progress)
    tell(0, 0.0, "features")
    with job_folder_in(workdir) as folder:
        bench = Workbench(views=views, folder=folder, progress=progress, seed=seed)
        tried = climb(ladder, others, bench, tell)
    best = best_of(tried)
    if best is None or best.attempt.result is None:
        finding = refusal(bench.all_matches(), views, bench.compared)
        raise CannotReconstruct(finding.reason, finding.remedy)
    result = conclude(best, tried, bench)
    progress.update("cameras", 1.0, f"{int(result.cameras.registered_mask.sum())} of {len(views)} photos placed")
    return result


def cameras_of(
    candidate: CameraCandidate, views: Views, *, progress: Progress, seed: int, adjust: bool = True, workdir: Path | None = None
) -> SfmResult:
    """Cameras of one source that the user named, adjusted to matches where that explains them better.

    Every photo keeps a camera, for the user's choice stands; what contradicts it is only said.

    Args:
        adjust: match the photos and adjust the cameras; otherwise they are taken as they come.

    Raises:
        UserError: the source of cameras cannot run.
        Cancelled: the job was asked to stop.
    """
    tell = teller(progress)
    with job_folder_in(workdir) as folder:
        bench = Workbench(views=views, folder=folder, progress=progress, seed=seed)
        if adjust:
            kind = next(recipe.matching for recipe in QUICK if fits(recipe, views, bench))
            bench.gather(kind, lambda done, words: tell(0, done, words))
        tried = asked(candidate, bench, tell, number=1 if adjust else 0, adjust=adjust)
    best = max(tried, key=lambda one: one.score)
    result, evidence, matches = best.attempt.result, best.evidence, bench.all_matches()
    assert result is not None
    assert evidence is not None
    attempts = [one.report() for one in tried]
    attempts[tried.index(best)]["chosen"] = True
    progress.update("cameras", 1.0, f"{int(result.cameras.registered_mask.sum())} of {len(views)} photos placed")
    return replace(result, attempts=tuple(attempts), warnings=contradictions(evidence, matches, best.name))


def contradictions(evidence: Evidence, matches: Matches, name: str) -> tuple[str, ...]:
    """What to say of a named source's cameras that matches of the photos speak against."""
    if not len(matches.px):
        return ()
    told = [words for kind, words in evidence.weaknesses().items() if kind in ("agreement", "doubtful", "focal")]
    return (f"The cameras of {name} may be wrong: {'; '.join(told)}. Try --cameras auto, or --polish.",) if told else ()


def conclude(best: Tried, tried: Sequence[Tried], bench: Workbench) -> SfmResult:
    """The chosen cameras without photos that contradict them, with the list of what was tried and what is wrong."""
    result, evidence = best.attempt.result, best.evidence
    assert result is not None
    assert evidence is not None
    registered = result.cameras.registered_mask
    wrong = registered & torch.from_numpy((evidence.matched > 0) & (evidence.share < LEAST_SHARE))
    attempts = [one.report() for one in tried]
    chosen = attempts[list(tried).index(best)]
    chosen["chosen"] = True
    if bool(wrong.any()) and int((registered & ~wrong).sum()) >= 2:
        kept = torch.nonzero(registered & ~wrong)[:, 0].tolist()
        result = without(result, torch.nonzero(wrong)[:, 0].tolist()).observed_by(kept)
        chosen["left_out"] = [bench.views[i].name for i in torch.nonzero(wrong)[:, 0].tolist()]
    placed = result.cameras.registered_mask.tolist()
    findings = diagnose(bench.all_matches(), bench.views, best.attempt.models, evidence, placed)
    return replace(result, attempts=tuple(attempts), warnings=tuple(str(one) for one in findings))


def without(result: SfmResult, photos: Sequence[int]) -> SfmResult:
    """Take the cameras of some photos back: their matches contradict them."""
    registered = result.cameras.registered_mask.clone()
    T_world_cam = result.cameras.T_world_cam.clone()
    registered[list(photos)] = False
    T_world_cam[list(photos)] = torch.eye(4, dtype=T_world_cam.dtype)
    return replace(result, cameras=replace(result.cameras, T_world_cam=T_world_cam, registered=registered))


def run_sfm(views: Views, *, progress: Progress, seed: int, workdir: Path | None = None) -> SfmResult:
    """Find cameras the quick way only; see ``find_cameras``."""
    return find_cameras(views, progress=progress, seed=seed, ladder=QUICK, workdir=workdir)
