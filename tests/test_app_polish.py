"""`recon polish` from the command line, with good and bad input."""

from __future__ import annotations

import json

import polish_capture as capture
import pytest

from app.cli import main
from recon.ply import read_ply


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("polish")
    capture.write_capture(folder, 9)
    return folder


def run(folder, *words: str) -> int:
    return main(["polish", str(folder / "scene"), "--photos", str(folder / "photos"), "--quiet", *words])


def test_a_scene_is_polished_into_a_new_folder(folder, tmp_path, capsys):
    before = (folder / "scene" / "scene.ply").read_bytes()
    out = tmp_path / "better"
    assert run(folder, "-o", str(out), "--seconds", "6", "--holdout", "8:3", "--json") == 0
    report = json.loads((out / "report.json").read_text())
    assert {p.name for p in out.iterdir()} == {"scene.ply", "cameras.json", "report.json", "report.html"}
    assert report["quality"]["psnr_mean"] > report["quality_before_polish"]["psnr_mean"]
    assert report["counts"]["held_out"] == 1
    assert json.loads(capsys.readouterr().out)["out"] == str(out)
    frames = json.loads((out / "cameras.json").read_text())["frames"]
    assert [f["name"] for f in frames if f["holdout"]] == ["photo_3.png"]
    assert len(read_ply(out / "scene.ply")) == report["counts"]["gaussians"]
    assert (folder / "scene" / "scene.ply").read_bytes() == before, "the scene it was given is untouched"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "0"], "no time to polish"),
        (["--max-gaussians", "10"], "less than the 400 Gaussians"),
        (["--polish-sh", "7"], "degree from 0 to 3"),
    ],
)
def test_arguments_without_sense_are_refused_in_words(folder, tmp_path, capsys, words, said):
    out = tmp_path / "out"
    assert run(folder, "-o", str(out), *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_out_may_not_be_the_scene_itself(folder, capsys):
    assert run(folder, "-o", str(folder / "scene")) == 2
    assert "would be lost" in " ".join(capsys.readouterr().err.split())


def test_photos_of_another_place_are_refused(folder, tmp_path, capsys):
    from helpers import write_noise_photos

    write_noise_photos(tmp_path / "other", 4)
    words = ["polish", str(folder / "scene"), "--photos", str(tmp_path / "other"), "-o", str(tmp_path / "out"), "--quiet"]
    assert main(words) == 2
    assert not (tmp_path / "out").exists()
    assert "photo_0.png" in capsys.readouterr().err


def test_cameras_that_see_nothing_are_refused(folder, tmp_path, capsys):
    cameras = json.loads((folder / "scene" / "cameras.json").read_text())
    for frame in cameras["frames"]:
        frame["T_world_cam"][2][3] = 1000.0
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    assert run(folder, "-o", str(tmp_path / "out"), "--cameras", str(tmp_path / "cameras.json")) == 2
    assert "see nothing of the scene" in " ".join(capsys.readouterr().err.split())


def test_a_foreign_splat_file_with_cameras_is_polished(folder, tmp_path):
    scene = tmp_path / "somebody.ply"
    scene.write_bytes((folder / "scene" / "scene.ply").read_bytes())
    out = tmp_path / "out"
    cameras = str(folder / "scene" / "cameras.json")
    words = ["--photos", str(folder / "photos"), "--cameras", cameras, "-o", str(out), "--seconds", "1", "--quiet"]
    assert main(["polish", str(scene), *words]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["choices"]["polish"]["camera_changes"] == {}, "cameras given stay"
    assert len(read_ply(out / "scene.ply")) == report["counts"]["gaussians"]


def test_a_scene_with_nan_is_refused_in_words(folder, tmp_path, capsys):
    import numpy as np

    scene = tmp_path / "broken.ply"
    data = bytearray((folder / "scene" / "scene.ply").read_bytes())
    start = data.index(b"end_header\n") + len(b"end_header\n")
    data[start : start + 4] = np.float32(np.nan).tobytes()
    scene.write_bytes(bytes(data))
    cameras = str(folder / "scene" / "cameras.json")
    words = ["--photos", str(folder / "photos"), "--cameras", cameras, "-o", str(tmp_path / "out"), "--quiet"]
    assert main(["polish", str(scene), *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "finite" in said or "NaN" in said
    assert not (tmp_path / "out").exists()
