"""Estimates before a run, what experience does to them, and keeping to a limit of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_recon_fuse import card_and_wall, run

from recon.config import Holdout, PipelineConfig
from recon.errors import UserError
from recon.planning import estimate
from recon.planning.estimate import REFERENCE, fill_actual, kept_within, plan_run, remember
from recon.planning.history import Experience, load_experience
from recon.planning.memory import memory_needed
from recon.planning.probe import Machine, measure
from recon.records import View, Views


def some_views(count: int, width: int = 640, height: int = 480) -> Views:
    def decode(width: int, height: int) -> np.ndarray:
        raise AssertionError("a plan needs no pixels")

    original = {"original_width": 4 * width, "original_height": 4 * height}
    made = (
        View(path=Path(f"{i}.jpg"), name=f"{i}.jpg", width=width, height=height, decode=decode, **original) for i in range(count)
    )
    return Views(tuple(made))


def plan(count: int = 12, machine: Machine = REFERENCE, experience: Experience | None = None, **choices):
    return plan_run(some_views(count), PipelineConfig(**choices), "cpu", machine=machine, experience=experience or Experience())


def test_more_work_takes_longer_and_a_slower_machine_too():
    usual = plan()
    assert usual.total_s < plan(24).total_s
    slow = Machine(cores=2, sift_s=2 * REFERENCE.sift_s, conv_s=2 * REFERENCE.conv_s)
    assert plan(machine=slow).total_s == pytest.approx(2 * usual.total_s)
    assert plan(machine=replace(REFERENCE, cores=8)).total_s < usual.total_s
    assert plan(polish=60.0).total_s > usual.total_s + 60
    assert plan(video=False).total_s < usual.total_s
    assert "score" in plan(holdout=Holdout(every=4)).seconds
    assert plan(model="da3-small").seconds["depth"] is None
    assert "nothing is known yet" in plan(model="da3-small").sentence()


def test_experience_corrects_the_next_estimate(own_cache):
    views, config = some_views(12), PipelineConfig(model="mini")
    first = plan_run(views, config, "cpu", machine=REFERENCE)
    took = {name: 3.0 * value for name, value in first.seconds.items() if value is not None}
    remember(views, config, "cpu", first, took, ran=[name for name in took if name != "cameras"], model="mini")
    second = plan_run(views, config, "cpu", machine=REFERENCE)
    assert second.seconds["depth"] == pytest.approx(took["depth"])
    assert second.seconds["cameras"] == pytest.approx(first.seconds["cameras"]), "it came from the cache and taught nothing"
    assert second.learned_from == 1
    unknown = plan_run(views, replace(config, model="vggt"), "cpu", machine=REFERENCE)
    remember(views, replace(config, model="vggt"), "cpu", unknown, {"depth": 40.0}, ran=["depth"], model="vggt")
    assert plan_run(views, replace(config, model="vggt"), "cpu", machine=REFERENCE).seconds["depth"] == pytest.approx(40.0)
    (own_cache / "planning.json").write_text("{ broken")
    assert load_experience() == Experience()


def test_the_report_sets_real_beside_expected():
    report = {"plan": plan().entry(), "seconds": {"depth": 9.0, "write": 2.0}, "peak_memory_bytes": {"process": 5}}
    fill_actual(report)
    assert report["plan"]["seconds"]["depth"]["actual"] == 9.0
    assert report["plan"]["total_s"]["actual"] == 11.0
    assert report["plan"]["memory_bytes"]["actual"] == 5
    fill_actual(report | {"cached_s": {"cameras": 30.0}})
    assert report["plan"]["seconds"]["cameras"]["actual"] == 30.0, "what it took when it was made, not what this run spent"


def test_memory_is_kept_to_by_chunks_or_refused_with_a_size_that_fits(monkeypatch):
    monkeypatch.setattr(estimate, "resident_bytes", lambda: 0)
    views = some_views(60, 960, 720)
    whole, chunked = (memory_needed(views, 0, chunked=flag) for flag in (False, True))
    assert chunked < 0.75 * whole
    config = PipelineConfig(max_memory=(whole + chunked) / 2e9, long_side=960)
    found = plan_run(views, config, "cpu", machine=REFERENCE, experience=Experience())
    assert found.chunked
    assert found.memory_bytes <= config.max_memory * 1e9
    assert kept_within(config, found).fuse.frugal
    with pytest.raises(UserError, match="even in chunks") as caught:
        plan_run(views, replace(config, max_memory=1.6), "cpu", machine=REFERENCE, experience=Experience())
    assert "--long-side" in caught.value.remedy
    loose = plan_run(views, replace(config, max_memory=64.0), "cpu", machine=REFERENCE, experience=Experience())
    assert not loose.chunked


def test_polish_counts_and_is_named_where_it_does_not_fit(monkeypatch):
    monkeypatch.setattr(estimate, "resident_bytes", lambda: 0)
    views = some_views(10, 360, 640)
    assert memory_needed(views, 0, chunked=True, polished=60_000) > memory_needed(views, 0, chunked=True) + 2e8
    limit = PipelineConfig(max_memory=1.2)
    assert plan_run(views, limit, "cpu", machine=REFERENCE, experience=Experience()).memory_bytes <= 1.2e9
    with pytest.raises(UserError, match="even in chunks") as caught:
        plan_run(views, replace(limit, polish=10.0), "cpu", machine=REFERENCE, experience=Experience())
    assert "--polish" in caught.value.remedy


def test_chunks_make_the_very_same_scene():
    posed, depths = card_and_wall()
    whole = run(posed, depths, shell=64, max_gaussians=1500).gaussians
    chunks = run(posed, depths, shell=64, max_gaussians=1500, frugal=True).gaussians
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(whole, name), getattr(chunks, name)), name


def test_the_machine_is_measured():
    machine = measure()
    assert machine.cores >= 1
    assert 0 < machine.sift_s < 1e3
    assert 0 < machine.conv_s < 1e3


def test_a_polish_took_the_scenes_it_began_with():
    plan = {
        "seconds": {"depth": {"estimated": 4.0, "actual": None}, "polish": {"estimated": 30.0, "actual": None}},
        "total_s": {"estimated": 34.0, "actual": None},
        "memory_bytes": {"estimated": 1, "actual": None},
    }
    report = {"plan": plan, "seconds": {"depth": 5.0, "gaussians": 12.0, "polish": 20.0}}
    estimate.fill_actual(report)
    assert plan["seconds"]["polish"]["actual"] == 32.0
    assert plan["total_s"]["actual"] == 37.0
