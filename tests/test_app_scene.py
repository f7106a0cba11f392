"""Commands on a scene that exists: what is loaded, drawn, exported and said is what the files hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.cli import main
from app.scene_commands import picture_names
from app.scene_files import cameras_around, fit_cameras, load_scene, placed_cameras
from recon.errors import UserError
from recon.geometry import project, rgb_to_sh0, transform
from recon.ply import read_ply, write_ply
from recon.records import Cameras, Gaussians
from render.rasterizer import load_rasterizer


def make_gaussians(count: int = 40, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.rand(count, 3, generator=generator) * 2 - 1,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1),
        scales=torch.rand(count, 3, generator=generator) * 0.2 + 0.05,
        opacities=torch.rand(count, generator=generator) * 0.8 + 0.1,
        sh=rgb_to_sh0(torch.rand(count, 3, generator=generator))[:, None],
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with three cameras, the last one not registered."""
    folder = tmp_path / "out"
    folder.mkdir()
    write_ply(folder / "scene.ply", make_gaussians())
    frames = []
    for index in range(3):
        T_world_cam = np.eye(4)
        T_world_cam[:3, 3] = [0.3 * index, 0.0, -4.0]
        frames.append(
            {
                "name": f"photos/{index}.JPG",
                "width": 200,
                "height": 100,
                "K": [[150.0, 0, 100.0], [0, 150.0, 50.0], [0, 0, 1]],
                "distortion": [0.01, 0, 0, 0],
                "T_world_cam": T_world_cam.tolist(),
                "registered": index < 2,
                "holdout": False,
            }
        )
    (folder / "cameras.json").write_text(json.dumps({"format": 1, "frames": frames}))
    report = {
        "seconds": {"depth": 2.0},
        "warnings": [],
        "quality": {"n_scored": 1, "psnr_mean": 20.0, "per_view": [{}]},
        "photos": {},
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_folder_brings_cameras_and_report(out: Path) -> None:
    scene = load_scene(out)
    assert len(scene.gaussians) == 40
    assert scene.cameras is not None
    assert scene.cameras.width == (200, 200, 200)
    assert scene.provenance["report"]["seconds"] == {"depth": 2.0}
    placed = placed_cameras(scene)
    assert placed is not None
    assert placed.names == ("photos/0.JPG", "photos/1.JPG")
    assert placed.distortion is None


def test_the_scene_file_of_a_folder_brings_them_too_and_a_stranger_does_not(out: Path) -> None:
    assert load_scene(out / "scene.ply").cameras is not None
    stranger = out / "other.ply"
    write_ply(stranger, make_gaussians(3))
    assert load_scene(stranger).cameras is None


@pytest.mark.parametrize("name", ["nowhere", "empty", "broken.ply", "scene.spz", "bad_cameras"])
def test_what_is_no_scene_is_said_in_words(tmp_path: Path, out: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.ply").write_bytes(b"ply\nnot really")
    (tmp_path / "scene.spz").write_bytes(b"x")
    (tmp_path / "bad_cameras").mkdir()
    write_ply(tmp_path / "bad_cameras" / "scene.ply", make_gaussians(2))
    (tmp_path / "bad_cameras" / "cameras.json").write_text('{"frames": [{"name": "a"}]}')
    with pytest.raises(UserError) as caught:
        load_scene(tmp_path / name)
    assert caught.value.remedy
    assert main(["info", str(tmp_path / name)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_info_tells_what_the_file_holds(out: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["info", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["gaussians"], facts["sh_degree"], facts["cameras"], facts["registered"]) == (40, 0, 3, 2)
    assert facts["file_bytes"] == (out / "scene.ply").stat().st_size
    assert facts["quality"] == {"n_scored": 1, "psnr_mean": 20.0}
    assert main(["info", str(out)]) == 0
    assert "40" in capsys.readouterr().out


def test_export_keeps_every_number(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy.ply"
    assert main(["export", str(out), str(target)]) == 0
    copied, original = read_ply(target), read_ply(out / "scene.ply")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(copied, name), getattr(original, name), rtol=1e-6, atol=1e-6)
    assert main(["export", str(out), str(tmp_path / "copy.xyz")]) == 2


def test_render_writes_what_the_rasteriser_draws(out: Path, tmp_path: Path) -> None:
    assert main(["render", str(out), "-o", str(tmp_path / "png"), "--long-side", "100", "--quiet"]) == 0
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == ["photos_0.png", "photos_1.png"]
    scene = load_scene(out)
    placed = placed_cameras(scene)
    assert placed is not None
    small = fit_cameras(placed, 100)
    for index in range(2):
        drawn = np.asarray(Image.open(tmp_path / "png" / f"photos_{index}.png"))
        assert drawn.shape == (50, 100, 3)
        wanted = load_rasterizer("torch")(scene.gaussians, small.select([index])).color[0].clamp(0, 1) * 255
        assert np.abs(drawn - wanted.numpy()).max() < 1.5, "one grey level: two rasterisers and rounding"


def test_a_splat_file_without_cameras_is_drawn_from_around_it(out: Path, tmp_path: Path) -> None:
    write_ply(tmp_path / "lone.ply", make_gaussians())
    assert main(["render", str(tmp_path / "lone.ply"), "-o", str(tmp_path / "png"), "--long-side", "80", "--quiet"]) == 0
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "png").iterdir())]
    assert len(pictures) == 8
    assert all((picture.max(axis=2) > 20).mean() > 0.1 for picture in pictures)


def test_the_ring_sees_the_scene_level_and_upright() -> None:
    gaussians = make_gaussians(200)
    ring = cameras_around(gaussians, count=5)
    for index in range(5):
        rotation = ring.T_world_cam[index, :3, :3]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-5)
        assert torch.linalg.det(rotation) > 0
        pixels, depth = project(transform(ring.T_cam_world[index], gaussians.means), ring.K[index])
        inside = (depth > 0) & (pixels >= 0).all(1) & (pixels[:, 0] < 640) & (pixels[:, 1] < 480)
        assert inside.float().mean() > 0.9
        assert rotation[1, 1] > 0.99, "camera down is world down"


@pytest.mark.parametrize("way", ["orbit", "fly"])
def test_a_video_has_the_frames_asked_for(out: Path, tmp_path: Path, way: str) -> None:
    import cv2

    target = tmp_path / f"{way}.mp4"
    assert main(["render", str(out), "-o", str(target), "--path", way, "--frames", "6", "--long-side", "64", "--quiet"]) == 0
    video = cv2.VideoCapture(str(target))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    video.release()
    assert len(frames) == 6
    assert frames[0].shape == (32, 64, 3)
    assert np.std(frames[0]) > 2


@pytest.mark.parametrize("words", ["--long-side 4", "--frames 1", "--device cuda"])
def test_render_refuses_in_words(out: Path, tmp_path: Path, words: str, capsys: pytest.CaptureFixture) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(["render", str(out), "-o", str(tmp_path / "x"), *words.split()]) == 2
    assert "What to do" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_picture_names_are_flat_and_distinct() -> None:
    eye = torch.eye(4).repeat(3, 1, 1)
    cameras = Cameras(
        T_world_cam=eye, K=torch.eye(3).repeat(3, 1, 1), width=(8,) * 3, height=(8,) * 3, names=("a/x.jpg", "a_x.PNG", "b c.jpeg")
    )
    assert picture_names(cameras) == ["a_x_0000.png", "a_x_0001.png", "b_c.png"]


def test_doctor_tells_what_will_be_used(capsys: pytest.CaptureFixture) -> None:
    code = main(["doctor", "--json"])
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {"python", "packages", "cores", "gpu", "threads", "rasteriser", "kernel cache"} <= set(findings)
    broken = [name for name, finding in findings.items() if finding["state"] == "broken"]
    assert code == (2 if broken else 0)
    assert broken == []


def test_doctor_notices_damaged_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from models import registry

    def damaged(name: str) -> Path:
        raise UserError("The weights are damaged.", "Reinstall recon.")

    monkeypatch.setattr(registry, "shipped_path", damaged)
    assert main(["doctor", "--json"]) == 2
    states = {finding["name"]: finding["state"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert "broken" in states.values()
