"""The whole path with published networks: cameras, depth or Gaussians to files, through the names of the command line.

By default a tiny network of the family stands in. The slow tests fill the real ones by the fixtures' rule and take real
photos; the pictures mean nothing, because the weights are made up. DA3-SMALL takes about a minute and 2 GB on two quiet
cores, the networks with a billion parameters about five minutes, 7 GB of memory and 5 GB of disk each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from da3_parity import SHARED_NORM
from parity import fixture_folder, value_of
from safetensors.torch import save_file
from test_recon_cameras_predicted import plain_views
from test_recon_pipeline import VIEWS, WIDTH, write_capture
from tiny_networks import TINY, write_tiny

from app.run import reconstruct
from models import checkpoints
from models.published import zoo
from models.published.zoo import NETWORKS
from models.registry import load_camera_predictor
from recon.cameras.predicted import cameras_by_network
from recon.progress import Progress

from helpers import REPOSITORY

PHOTOS = 5
OTHER_GIB = 2.5
"""Memory of everything that is not the network: libraries, the compiler of the kernels, photos, a million Gaussians."""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a tiny network as 'da3-small'."""
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    monkeypatch.setattr(zoo, "NETWORKS", {**NETWORKS, "da3-small": TINY})
    write_tiny(tmp_path / "tiny.safetensors")
    checkpoints.pull("da3-small", accept_licence=True, file=tmp_path / "tiny.safetensors")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("model", ["da3-small", "auto"])
def test_given_cameras_and_a_published_network_make_a_scene(tmp_path: Path, model: str) -> None:
    photos = write_capture(tmp_path / "capture")
    cameras = str(tmp_path / "capture" / "cameras.json")
    options = {"max_gaussians": 1500, "shell": 100, "recolor_steps": 1, "video": False, "device": "cpu"}
    result = reconstruct(photos, tmp_path / "out", model=model, cameras=cameras, **options)
    assert result.report["choices"]["model"] == "da3-small"
    assert (tmp_path / "out" / "scene.ply").stat().st_size > 10_000
    assert torch.isfinite(result.scene.gaussians.means).all()


@pytest.mark.usefixtures("tiny")
def test_a_published_network_places_every_photo_at_its_own_size() -> None:
    network, views = load_camera_predictor("network"), plain_views()
    stages: list[str] = []
    solved = cameras_by_network(views, network.predict_views, Progress(lambda event: stages.append(event.stage)))
    assert network.name == "da3-small"
    assert set(stages) == {"cameras"}
    assert solved.cameras.width == (WIDTH,) * VIEWS
    assert solved.cameras.registered_mask.all()
    torch.testing.assert_close(solved.cameras.K[:, 0, 2], torch.full((VIEWS,), WIDTH / 2, dtype=torch.float64))
    R = solved.cameras.T_world_cam[:, :3, :3]
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(VIEWS, 3, 3), rtol=0, atol=1e-5)
    assert not solved.cameras.T_world_cam.is_inference()


def write_by_rule(name: str, path: Path) -> None:
    """Write a checkpoint with the published names, shapes and container, filled by the fixtures' rule."""
    folder = fixture_folder(name)
    shapes = {key: tuple(entry["shape"]) for key, entry in json.loads((folder / "manifest.json").read_text())["state_dict"].items()}
    copies = NETWORKS[name].keys().copies
    tensors = {key: value_of(SHARED_NORM.sub(r"\g<1>0\2", key), shape) for key, shape in shapes.items() if key not in copies}
    if path.suffix == ".ckpt":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)


def installed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a network with made-up weights; returns its entry."""
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    entry = checkpoints.find_checkpoint(name)
    made_up = tmp_path / entry.file
    write_by_rule(name, made_up)
    checkpoints.pull(name, accept_licence=True, file=made_up)
    made_up.unlink()
    return entry


def run_on(photos: list[Path], out: Path, *words: str) -> dict:
    """Run the command line; returns its report."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "run", *map(str, photos), "-o", str(out), "--no-video", "--device", "cpu", "--json",
         "--quiet", "--long-side", "400", *words],
        cwd=REPOSITORY, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def photos_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:PHOTOS]


@pytest.mark.slow
def test_made_up_cameras_are_adjusted_and_reported(
    dataset: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("da3-small", tmp_path, monkeypatch)
    told = run_on(photos_of(dataset("fox")), tmp_path / "out", "--cameras", "da3-small", "--model", "da3-small")
    cameras = told["choices"]["cameras"]
    assert cameras["source"] == "network"
    assert cameras["attempts"][0]["tried"] == "da3-small"
    assert sum(bool(one.get("chosen")) for one in cameras["attempts"]) == 1
    assert (tmp_path / "out" / "scene.ply").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["da3-small", "da3-base", "vggt", "anysplat", "pi3", "yonosplat", "mapanything"])
def test_real_photos_become_files_in_sane_memory(
    dataset: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    entry = installed(name, tmp_path, monkeypatch)
    report = run_on(photos_of(dataset("fox")), tmp_path / "out", "--model", name)
    assert report["choices"]["model"] == name
    assert report["counts"]["gaussians"] > 500
    assert NETWORKS[name].makes_gaussians == ("gaussians" in report["choices"])
    assert (tmp_path / "out" / "scene.ply").stat().st_size > 10_000
    if report["peak_memory_bytes"] is not None:
        assert report["peak_memory_bytes"]["process"] < (entry.memory_gib + OTHER_GIB) * 2**30
