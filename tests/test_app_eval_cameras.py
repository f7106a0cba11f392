"""`recon eval cameras` from the command line: scores of given cameras, subsets, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sfm_scene import write_room_photos

from app.cli import main
from recon.cameras.camera_files import write_cameras_json
from recon.cameras.result import blank_cameras
from recon.photos import open_photos

EXACT = 1e-6
"""Cameras go through a text file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photos of the room, their true cameras, and cameras whose last photo is turned by 4 degrees and one focal length off."""
    folder = tmp_path_factory.mktemp("eval")
    truth = write_room_photos(folder / "photos", 4)
    views = open_photos(folder / "photos", long_side=320).views
    cameras = replace(
        blank_cameras(views),
        T_world_cam=torch.from_numpy(truth.T_world_cam),
        K=torch.from_numpy(truth.K).repeat(4, 1, 1),
        registered=torch.ones(4, dtype=torch.bool),
    )
    write_cameras_json(folder / "truth.json", cameras, views)
    angle = torch.deg2rad(torch.tensor(4.0, dtype=torch.float64))
    turn = torch.eye(4, dtype=torch.float64)
    turn[0, 0] = turn[2, 2] = torch.cos(angle)
    turn[0, 2], turn[2, 0] = torch.sin(angle), -torch.sin(angle)
    T = cameras.T_world_cam.clone()
    T[3] = T[3] @ turn
    write_cameras_json(folder / "turned.json", replace(cameras, T_world_cam=T), views)
    return folder


def scores(folder: Path, capsys, *words: str) -> list[dict]:
    command = ["eval", "cameras", str(folder / "photos"), "--reference", str(folder / "truth.json"), *words, "--json"]
    assert main(command) == 0
    return json.loads(capsys.readouterr().out)["scores"]


def test_the_reference_itself_scores_fully(folder, capsys):
    (row,) = scores(folder, capsys, "--cameras", str(folder / "truth.json"))
    assert row["auc5"] > 1 - EXACT
    assert row["ate"] < EXACT
    assert (row["given"], row["photos"], row["placed"]) == (4, 4, 4)


def test_three_of_six_pairs_are_off_by_four_degrees(folder, capsys):
    """Pairs with the turned photo: rotation off by 4 degrees, so 1 - 4/5 each; the other three are exact."""
    rows = scores(folder, capsys, "--cameras", str(folder / "turned.json"), "--subsets", "2", "3")
    assert [row["given"] for row in rows] == [4, 2, 3]
    assert rows[0]["auc5"] == pytest.approx(0.5 + 0.5 * 0.2, abs=EXACT)
    assert rows[1]["auc5"] == pytest.approx(0.2, abs=EXACT)
    assert rows[2]["auc5"] == pytest.approx((1 + 2 * 0.2) / 3, abs=EXACT)
    assert rows[1]["ate"] is None


def test_the_table_is_printed_and_written(folder, capsys, tmp_path):
    command = ["eval", "cameras", str(folder / "photos"), "--reference", str(folder / "truth.json")]
    assert main([*command, "--cameras", str(folder / "truth.json"), "-o", str(tmp_path / "scores.json"), "--quiet"]) == 0
    assert "4 of 4" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["scores"][0]["placed"] == 4


def test_a_subset_of_one_is_refused(folder, capsys):
    command = ["eval", "cameras", str(folder / "photos"), "--reference", str(folder / "truth.json"), "--subsets", "1"]
    assert main(command) == 2
    assert "at least two photos" in capsys.readouterr().err


def test_random_subsets_follow_the_seed_and_need_subsets(folder, capsys):
    """Two of four photos, drawn: pairs without the turned photo score fully, pairs with it a fifth."""
    seen = set()
    for seed in range(8):
        words = ["--cameras", str(folder / "turned.json"), "--subsets", "2", "--random-subsets", "--seed", str(seed)]
        first, again = scores(folder, capsys, *words)[1], scores(folder, capsys, *words)[1]
        assert first == again
        seen.add(round(first["auc5"], 3))
    assert seen == {0.2, 1.0}
    command = ["eval", "cameras", str(folder / "photos"), "--reference", str(folder / "truth.json"), "--random-subsets"]
    assert main(command) == 2
    assert "--subsets" in capsys.readouterr().err
