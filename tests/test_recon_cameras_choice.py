"""Which way of finding cameras is tried, when the search ends, and which attempt is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sfm_scene import write_room_photos

from recon.cameras import auto, choice
from recon.cameras.auto import CameraCandidate
from recon.cameras.evidence import Evidence
from recon.cameras.matches import Matches
from recon.cameras.recipes import DENSE, LADDER, PLAIN, RELAXED, SIFT, STRICT, Recipe
from recon.cameras.sfm import Attempt, Workbench
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Views


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> Views:
    return open_photos(write_room_photos(tmp_path_factory.mktemp("room")).paths, long_side=320).views


def test_more_features_of_one_kind_do_not_end_the_search(views, tmp_path):
    """Photos left over may belong elsewhere only when features of another kind tie no more together either."""
    chain = Matches(pairs=np.array([(i, i + 1) for i in range(4)]), counts=np.ones(4, np.int64), px=np.zeros((4, 4)))
    seen = np.array([100] * 5 + [0])
    evidence = Evidence(placed=5, explained=seen, matched=seen, angle_deg=9.0, focal_ratio=(1.0, 1.0), error_share=0.0)
    nothing = Attempt(result=None, models=(), image_side=1.0)
    best = choice.Tried(name="any", attempt=nothing, evidence=evidence, seconds=0.0)
    more = replace(PLAIN, features=replace(SIFT, most=8192))
    bench = Workbench(views=views, folder=tmp_path, progress=Progress(), seed=0, matches={PLAIN: chain, more: chain})
    assert not choice.is_enough(bench, best)
    bench.matches[DENSE] = chain
    assert choice.is_enough(bench, best)


def test_what_takes_long_is_tried_for_a_tenth_of_the_photos_or_where_more_is_wrong(views, tmp_path):
    affine = next(recipe for recipe in LADDER if recipe.matching.features.detector == "affine")
    twenty = Views(tuple(replace(views[0], name=f"{i}.jpg") for i in range(20)))
    bench = Workbench(views=twenty, folder=tmp_path, progress=Progress(), seed=0)
    nothing = Attempt(result=None, models=(), image_side=1.0)

    def best(placed: int, error_share: float, thin: int = 0) -> choice.Tried:
        seen = np.array([100] * (placed - thin) + [10] * thin + [0] * (20 - placed))
        evidence = Evidence(
            placed=placed, explained=seen, matched=seen, angle_deg=9.0, focal_ratio=(1.0, 1.0), error_share=error_share
        )
        return choice.Tried(name="any", attempt=nothing, evidence=evidence, seconds=0.0)

    assert not choice.worth_its_time(affine, bench, best(19, 0.0))
    assert choice.worth_its_time(affine, bench, best(18, 0.0))
    assert choice.worth_its_time(affine, bench, best(19, 0.1))
    assert not choice.worth_its_time(affine, bench, best(20, 0.0, thin=1))
    assert not choice.worth_its_time(affine, bench, best(19, 0.0, thin=1))
    assert choice.worth_its_time(affine, bench, best(19, 0.0, thin=2))
    assert choice.worth_its_time(LADDER[0], bench, best(19, 0.0))
    assert choice.worth_its_time(affine, bench, None)


def test_of_attempts_as_good_the_most_exact_one_is_taken():
    def attempt(score: float, error_share: float, placed: int = 9) -> choice.Tried:
        seen, matched = np.full(10, 100), np.full(10, round(200 / (1 + score)))  # weight 2 x share - 1 = score
        evidence = Evidence(
            placed=placed, explained=seen, matched=matched, angle_deg=9.0, focal_ratio=(1.0, 1.0), error_share=error_share
        )
        return choice.Tried(
            name=f"{error_share}", attempt=Attempt(result=None, models=(), image_side=1.0), evidence=evidence, seconds=0.0
        )

    nothing = choice.Tried(name="none", attempt=Attempt(result=None, models=(), image_side=1.0), evidence=None, seconds=0.0)
    exact, rough = attempt(0.80, 0.0002), attempt(0.81, 0.0004)
    assert choice.best_of([nothing, exact, rough]) is exact
    assert choice.best_of([attempt(0.70, 0.0002), rough]) is rough
    assert choice.best_of([attempt(0.80, 0.0002, placed=8), rough]) is rough
    assert choice.best_of([exact, attempt(0.81, 0.0)]).name == "0.0"  # cameras from elsewhere, without points
    assert choice.best_of([attempt(0.80, 0.0), rough]) is rough
    assert choice.best_of([nothing]) is nothing
    assert choice.best_of([]) is None


@pytest.mark.parametrize(
    ("thresholds", "explained", "expected"),
    [(RELAXED, 99, ["first"]), (RELAXED, 92, ["first", "same matches"]), (STRICT, 92, ["first"])],
)
def test_weak_agreement_is_set_beside_the_same_matches(views, tmp_path, monkeypatch, thresholds, explained, expected):
    """Nine matches in ten can be explained by a wrong focal length; other features and sources are not asked all the same."""
    chain = Matches(pairs=np.array([(i, i + 1) for i in range(5)]), counts=np.ones(5, np.int64), px=np.zeros((5, 4)))
    bench = Workbench(views=views, folder=tmp_path, progress=Progress(), seed=0)

    def run(recipe, tell):
        bench.matches[recipe.matching] = chain
        return Attempt(result=None, models=(), image_side=1.0)

    def judged(name, attempt, bench, seconds, note=""):
        seen = np.full(6, explained if name == "first" else 99)
        evidence = Evidence(
            placed=6, explained=seen, matched=np.full(6, 100), angle_deg=9.0, focal_ratio=(1.0, 1.0), error_share=0.001
        )
        return choice.Tried(name=name, attempt=attempt, evidence=evidence, seconds=seconds)

    def never_asked(views, progress):
        raise AssertionError("strong evidence needs no network")

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(auto, "judged", judged)
    ladder = (
        Recipe(name="first", matching=PLAIN, thresholds=thresholds),
        Recipe(name="other matches", matching=DENSE),
        Recipe(name="same matches", matching=PLAIN, mapper="global"),
    )
    tried = auto.climb(ladder, (CameraCandidate(name="network", find=never_asked),), bench, lambda number, done, words: None)
    assert [one.name for one in tried] == expected
    assert choice.best_of(tried).name == expected[-1]
