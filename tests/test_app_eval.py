"""`recon eval` from the command line."""

from __future__ import annotations

import json
import shutil

import polish_capture as capture
import pytest
from PIL import Image

from app.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    capture.write_capture(folder, 3, start=capture.true_scene())
    return folder


def run(folder, *words: str) -> int:
    return main(["eval", str(folder / "scene"), "--photos", str(folder / "photos"), "--quiet", *words])


def test_the_true_scene_scores_near_the_rounding_of_its_photos(folder, capsys):
    assert run(folder, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    mean = result["scores"]["mean"]
    assert mean["psnr"] > 40
    assert mean["ms_ssim"] > 0.99
    assert mean["gradient_similarity"] > 0.99
    assert result["photos_may_be_seen"] is True
    assert result["aligned"] is None
    assert "lpips" not in mean


def test_held_out_photos_alone_are_scored_and_both_protocols_are_reported(folder, capsys, tmp_path):
    assert run(folder, "--holdout", "3:1", "--align", "-o", str(tmp_path / "scores.json")) == 0
    result = json.loads((tmp_path / "scores.json").read_text())
    assert [v["name"] for v in result["scores"]["per_view"]] == ["photo_1.png"]
    assert result["aligned"]["mean"]["psnr"] >= result["scores"]["mean"]["psnr"] - 0.01
    shown = capsys.readouterr().out
    assert "aligned" in shown
    assert "photo_1.png" in shown


def test_a_splat_file_without_cameras_asks_for_them(folder, tmp_path, capsys):
    shutil.copy(folder / "scene" / "scene.ply", tmp_path / "foreign.ply")
    words = ["eval", str(tmp_path / "foreign.ply"), "--photos", str(folder / "photos"), "--quiet"]
    assert main(words) == 2
    assert "--cameras" in capsys.readouterr().err
    assert main([*words, "--cameras", str(folder / "scene" / "cameras.json"), "--json"]) == 0


def test_a_missing_photo_is_named(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "photos" / "photo_1.png").unlink()
    assert run(tmp_path / "copy") == 2
    assert "photo_1.png" in capsys.readouterr().err


def test_a_photo_of_another_shape_is_named(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "photos" / "photo_2.png"
    Image.open(path).resize((48, 64)).save(path)
    assert run(tmp_path / "copy") == 2
    assert "photo_2.png" in capsys.readouterr().err
