"""Disks that are full, may only be read, or vanish: words, and nothing lost. Real ones, where this user may mount them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from test_app_bad_input import NEIGHBOURS, QUICK, shrink, true_cameras

from app.cli import main
from recon.progress import Progress

pytestmark = pytest.mark.slow


def mount(folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    tool = shutil.which("mount")
    command = [tool or "", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    return tool is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 48 KB."""
    folder = tmp_path / "disk"
    if not mount(folder, "-o", "size=48k"):
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture
def words(sample_photos, tmp_path) -> list[str]:
    """A run of three small photos with known cameras, but for OUT."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in NEIGHBOURS:
        shrink(sample_photos / name, photos / name)
    return ["run", str(photos), *QUICK, "--cameras", str(true_cameras(tmp_path / "cameras.json"))]


def test_a_full_output_disk_loses_nothing(small_disk, words, tmp_path, capsys):
    assert main([*words, "-o", str(small_disk / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "No space left" in said
    assert "run the same command again" in said
    assert list(small_disk.iterdir()) == []
    assert main([*words, "-o", str(tmp_path / "elsewhere")]) == 0
    assert json.loads((tmp_path / "elsewhere" / "report.json").read_text())["stages"]["computed"] == []


def test_a_full_cache_disk_costs_resuming_alone(small_disk, words, tmp_path, capsys, monkeypatch):
    (small_disk / "filler").write_bytes(bytes(40 << 10))
    monkeypatch.setenv("RECON_CACHE", str(small_disk / "cache"))
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    assert "could not be kept" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out" / "scene.ply").stat().st_size > 10_000


def test_disks_that_may_only_be_read(words, tmp_path, capsys, monkeypatch):
    disk = tmp_path / "disk"
    if not mount(disk, "-o", "size=1m,ro"):
        pytest.skip("this user may not mount a disk")
    try:
        monkeypatch.setenv("RECON_CACHE", str(disk / "cache"))
        assert main([*words, "-o", str(disk / "out")]) == 2
        assert "cannot be written" in " ".join(capsys.readouterr().err.split())
        assert main([*words, "-o", str(tmp_path / "out")]) == 0
        assert "could not be kept" in " ".join(capsys.readouterr().err.split())
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize("stage", ["depth", "gaussians"])
def test_photos_that_vanish_on_the_way(words, tmp_path, capsys, monkeypatch, stage):
    """The disk with the photos goes away in the middle; when it is back, the run goes on."""
    photos, hidden = Path(words[1]), tmp_path / "hidden"
    update, gone = Progress.update, []

    def watched(self: Progress, at: str, fraction: float, message: str = "") -> None:
        if at == stage and not gone:
            gone.append(at)
            photos.rename(hidden)
        update(self, at, fraction, message)

    monkeypatch.setattr(Progress, "update", watched)
    code = main([*words, "-o", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    if code != 0:  # what was decoded before may have been enough
        assert code == 2
        assert "can no longer be read" in said
        assert not (tmp_path / "out").exists()
    hidden.rename(photos)
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "scene.ply").is_file()
