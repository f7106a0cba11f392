"""The first look at a scene: early, small, of the same place, and without any part in the result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_recon_pipeline import config_for, write_capture

import recon.first_look as module
from app.run import build_tools
from recon.config import Holdout
from recon.errors import UserError
from recon.pipeline import run_pipeline
from recon.progress import Cancelled, Progress
from recon.records import Scene
from render.rasterizer import load_rasterizer


def test_it_shows_the_scene_early_and_changes_nothing(tmp_path: Path) -> None:
    photos = write_capture(tmp_path)
    config = config_for(tmp_path, holdout=Holdout(every=3, offset=1), resume=False)
    offered: list[tuple[str, object]] = []
    stages: list[str] = []

    def take(name: str, *things: object) -> None:
        offered.append((name, things[0]))
        stages.append(f"offered {name}")

    watched = Progress(lambda event: stages.append(event.stage), take)
    seen = run_pipeline(photos, None, config, build_tools(), watched)
    unseen = run_pipeline(photos, None, config, build_tools(), Progress())
    assert [name for name, _ in offered] == ["cameras", "look", "scene"]
    look = offered[1][1]
    assert isinstance(look, Scene)
    assert look.cameras is not None
    assert len(look.cameras) == 4, "held-out photos take no part"
    assert 200 < len(look.gaussians) <= module.BUDGET
    assert set(stages[stages.index("offered cameras") + 1 : stages.index("offered look")]) == {"depth"}, "its fusing is not told of"
    with torch.no_grad():
        drawn = load_rasterizer("cpu")(look.gaussians, look.cameras).color
        whole = load_rasterizer("cpu")(seen.scene.gaussians, look.cameras).color
    assert float(-10 * torch.log10((drawn - whole).square().mean())) > 12.0
    for field in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(seen.scene.gaussians, field), getattr(unseen.scene.gaussians, field)), field
    assert "first look" in seen.report["seconds"]
    assert "first look" not in unseen.report["seconds"]


def test_a_run_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("No weights.", "")

    monkeypatch.setattr(module, "fuse", fail)
    names: list[str] = []
    run_pipeline(
        write_capture(tmp_path), None, config_for(tmp_path), build_tools(), Progress(taker=lambda name, *_: names.append(name))
    )
    assert names == ["cameras", "scene"]


def test_it_stops_when_the_job_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    progress = Progress(taker=lambda name, *_: told.append(name))
    real = module.choose_depth_range

    def stop(posed):
        progress.cancel()
        return real(posed)

    monkeypatch.setattr(module, "choose_depth_range", stop)
    with pytest.raises(Cancelled):
        run_pipeline(write_capture(tmp_path), None, config_for(tmp_path), build_tools(), progress)
    assert told == ["cameras"]
