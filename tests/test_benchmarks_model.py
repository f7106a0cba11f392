"""What `bench_model.py` keeps is found again only by what it was made from."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app import identity

import helpers

sys.path.append(str(helpers.REPOSITORY / "tests" / "benchmarks"))
import bench_model


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Two photos of a set, and weights of an earlier network."""
    folder = tmp_path / "sets" / "fox" / "images"
    folder.mkdir(parents=True)
    for i in range(2):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    monkeypatch.setenv("RECON_EVAL_DATA", str(tmp_path / "sets"))
    first = tmp_path / "first.safetensors"
    first.write_bytes(b"some weights")
    return argparse.Namespace(photos=16, rounds=None, polish=0.0, first=first, work=tmp_path)


def keys(options, variants=("first", "shipped", "sweep")) -> list[str]:
    return [bench_model.result_key(variant, "fox", None, options) for variant in variants]


def test_a_row_is_found_again_while_nothing_changes(options):
    assert keys(options) == keys(options)
    assert len(set(keys(options))) == 3


def test_other_weights_of_first_are_another_row_and_the_others_stay(options):
    before = keys(options)
    options.first.write_bytes(b"other weights")
    after = keys(options)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_other_shipped_weights_are_other_rows(options, monkeypatch):
    before = keys(options)
    from models import registry

    shipped = registry.shipped_weights()
    changed = {**shipped, "refiner": replace(shipped["refiner"], sha256="0" * 64)}
    monkeypatch.setattr(registry, "shipped_weights", lambda: changed)
    assert not set(before) & set(keys(options))


def test_other_code_makes_other_rows(options, tmp_path, monkeypatch):
    """A comment in a network's file, in a copy of the program."""
    before = keys(options)
    for room in identity.ROOMS:
        shutil.copytree(helpers.REPOSITORY / room, tmp_path / "copy" / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "copy" / "app").mkdir()
    monkeypatch.setattr(identity, "__file__", str(tmp_path / "copy" / "app" / "identity.py"))
    identity.code_digest.cache_clear()
    try:
        assert keys(options) == before, "the same code in another place"
        with (tmp_path / "copy" / "models" / "mini.py").open("a") as file:
            file.write("# faster\n")
        identity.code_digest.cache_clear()
        assert not set(before) & set(keys(options))
    finally:
        identity.code_digest.cache_clear()


def test_other_photos_are_other_rows(options):
    before = keys(options)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(bench_model.photos_of("fox", options)[1])
    assert not set(before) & set(keys(options))


def test_depth_is_of_its_cameras_photos_and_weights(options):
    posed = two_views(0.0)
    made = bench_model.depth_key("first", posed, options)
    assert bench_model.depth_key("first", two_views(0.0), options) == made
    assert bench_model.depth_key("shipped", posed, options) != made
    assert bench_model.depth_key("first", two_views(0.1), options) != made
    moved = posed.cameras.T_world_cam.clone()
    moved[1, 0, 3] += 1e-6
    shifted = replace(posed, cameras=replace(posed.cameras, T_world_cam=moved))
    assert bench_model.depth_key("first", shifted, options) != made
    options.first.write_bytes(b"other weights")
    assert bench_model.depth_key("first", posed, options) != made


def two_views(grey: float):
    from test_models_mini import look_cameras

    from recon.posed import PosedViews

    def read(i: int):
        return torch.full((12, 16, 3), grey), torch.ones(12, 16, dtype=torch.bool)

    return PosedViews(names=("a", "b"), cameras=look_cameras([(16, 12)] * 2), read=read)


@pytest.mark.parametrize("given", [[], ["--first", "nowhere.safetensors"]])
def test_first_without_its_weights_is_refused(given, monkeypatch, capsys, tmp_path):
    """It would show the shipped network's numbers under another name."""
    monkeypatch.setattr(sys, "argv", ["bench_model.py", "--work", str(tmp_path / "w"), *given])
    with pytest.raises(SystemExit):
        bench_model.main()
    assert "--first FILE" in capsys.readouterr().err
    assert not Path(tmp_path / "w").exists()
