"""`recon export` and the scene tools, as a person calls them."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from splat_scenes import apart, cloud

from app.cli import main
from app.export_command import kind_of
from app.scene_files import load_scene, placed_cameras
from app.scene_tools import turn_about_axes
from recon.formats.registry import read_splats
from recon.formats.self_check import cameras_around
from recon.ply import write_ply
from recon.records import Cameras, Gaussians, RasterOptions
from render.rasterizer import load_rasterizer


def write_frames(folder: Path, cameras: Cameras) -> None:
    """Write cameras as a run does."""
    frames = [
        {
            "name": f"{index}.jpg",
            "width": cameras.width[index],
            "height": cameras.height[index],
            "K": cameras.K[index].tolist(),
            "distortion": [0.0] * 4,
            "T_world_cam": cameras.T_world_cam[index].tolist(),
            "registered": True,
        }
        for index in range(len(cameras))
    ]
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with three cameras around a small cloud."""
    folder = tmp_path / "out"
    folder.mkdir()
    scene = cloud(count=300, degree=1, spread=1.0)
    write_ply(folder / "scene.ply", scene)
    write_frames(folder, cameras_around(scene, views=3, side_px=160))
    return folder


@pytest.mark.parametrize("name", ["a.ply", "a.compressed.ply", "a.spz", "a.sog", "a.splat", "a.glb"])
def test_export_writes_checks_and_tells(out: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "new" / name
    assert main(["export", str(out), str(target), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    stored = json.loads((target.parent / f"{name}.check.json").read_text())
    assert facts["count"] == stored["count"] == 300
    assert facts["bytes"] == target.stat().st_size
    assert facts["psnr_same_sh_db"] > facts["floor_db"]
    assert len(load_scene(target).gaussians) == 300


def test_options_do_what_they_say(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.ply"
    whole = load_scene(out).gaussians
    assert main(["export", str(out), str(target), "--max-gaussians", "100", "--max-sh", "0"]) == 0
    few = read_splats(target)
    assert (len(few), few.sh_degree) == (100, 0)
    assert main(["export", str(out), str(target), "--crop", "-1", "-1", "-1", "1", "1", "1"]) == 0
    cropped = read_splats(target)
    assert len(cropped) == int((whole.means.abs() <= 1).all(dim=1).sum())
    assert main(["export", str(out), str(target), "--scale", "3", "--recenter"]) == 0
    scaled = read_splats(target)
    torch.testing.assert_close(scaled.scales, whole.scales * 3, rtol=1e-4, atol=1e-6)
    assert float(scaled.means.median(dim=0).values.abs().max()) < 1e-4


def test_exported_cameras_see_the_exported_scene(out: Path, tmp_path: Path) -> None:
    """The picture from a moved camera is the picture from the original one, whatever the axes, scale and centre."""
    folder = tmp_path / "moved"
    words = ["--convention", "blender", "--scale", "2", "--recenter", "--cameras", str(folder / "cameras.json")]
    assert main(["export", str(out), str(folder / "scene.ply"), *words]) == 0
    rasterizer = load_rasterizer("cpu")
    pictures = []
    for path in (out, folder):
        scene = load_scene(path)
        cameras = placed_cameras(scene)
        assert cameras is not None
        pictures.append(rasterizer(scene.gaussians, cameras, RasterOptions()).color)
    assert float((pictures[0] - pictures[1]).abs().max()) < 5e-3


def test_outliers_are_told_and_pruned_only_on_request(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scene = load_scene(out).gaussians
    scene.scales[3] = 1e4
    scene.means[5] = 1e6
    write_ply(tmp_path / "bad.ply", scene)
    assert main(["export", str(tmp_path / "bad.ply"), str(tmp_path / "a.sog"), "--no-check"]) == 0
    assert "2 Gaussians are outliers" in " ".join(capsys.readouterr().err.split())
    assert len(read_splats(tmp_path / "a.sog")) == 300
    assert main(["export", str(tmp_path / "bad.ply"), str(tmp_path / "b.sog"), "--prune"]) == 0
    assert len(read_splats(tmp_path / "b.sog")) == 298


def test_columns_that_gaussians_do_not_have_are_told(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from plyfile import PlyData, PlyElement

    table = PlyData.read(out / "scene.ply")["vertex"].data
    labelled = np.empty(len(table), dtype=[*table.dtype.descr, ("label", "u1")])
    for name in table.dtype.names:
        labelled[name] = table[name]
    labelled["label"] = 3
    PlyData([PlyElement.describe(labelled, "vertex")]).write(tmp_path / "labelled.ply")
    assert main(["export", str(tmp_path / "labelled.ply"), str(tmp_path / "a.ply"), "--json"]) == 0
    told = capsys.readouterr()
    assert "label" in json.loads(told.out)["losses"][0]
    assert "label" in told.err
    assert main(["export", str(out), str(tmp_path / "b.ply"), "--format", "ply-normals", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["losses"] == []
    assert "nx" in PlyData.read(tmp_path / "b.ply")["vertex"]


@pytest.mark.parametrize(
    "words",
    [
        ["a.xyz"],
        ["a.ksplat"],
        ["a.ply", "--scale", "0"],
        ["a.ply", "--max-gaussians", "0"],
        ["a.ply", "--crop", "1", "0", "0", "0", "1", "1"],
        ["a.ply", "--crop", "90", "90", "90", "91", "91", "91"],
        ["a.ply", "--format", "fbx"],
        ["a.ply", "--faces", "1"],
        ["a.html", "--up", "z"],
        ["a.html", "--cameras", "c.json"],
    ],
)
def test_what_cannot_be_is_said_in_words(out: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["export", str(out), str(tmp_path / words[0]), *words[1:]]) == 2
    told = capsys.readouterr().err
    assert "Error:" in told
    assert "What to do:" in told
    assert not (tmp_path / words[0]).exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mesh.glb", "mesh"),
        ("house.mesh.ply", "mesh"),
        ("mesh.PLY", "mesh"),
        ("a.obj", "mesh"),
        ("a.stl", "mesh"),
        ("a.glb", "glb"),
        ("a.html", "html"),
        ("a.points.ply", "points-ply"),
    ],
)
def test_names_tell_meshes_from_splats(name: str, kind: str) -> None:
    assert kind_of(Path(name)) == kind


def test_crop_and_merge_give_back_the_whole(out: Path, tmp_path: Path) -> None:
    box = ["--box", "-1", "-9", "-9", "1", "9", "9"]
    assert main(["crop", str(out), str(tmp_path / "in.ply"), *box]) == 0
    assert main(["crop", str(out), str(tmp_path / "out.ply"), *box, "--outside"]) == 0
    inside = read_splats(tmp_path / "in.ply")
    assert float(inside.means[:, 0].abs().max()) <= 1.0
    assert main(["merge", str(tmp_path / "in.ply"), str(tmp_path / "out.ply"), "-o", str(tmp_path / "both.ply")]) == 0
    assert apart(load_scene(out).gaussians, read_splats(tmp_path / "both.ply")).position == 0.0


def test_merged_folders_have_all_cameras_once(out: Path, tmp_path: Path) -> None:
    whole = load_scene(out).cameras
    assert whole is not None
    assert main(["transform", str(out), str(tmp_path / "aside"), "--shift", "5", "0", "0"]) == 0
    parts = [str(out), str(out), str(tmp_path / "aside")]
    assert main(["merge", *parts, "-o", str(tmp_path / "both")]) == 0
    both = load_scene(tmp_path / "both")
    assert len(both.gaussians) == 3 * len(load_scene(out).gaussians)
    cameras = both.cameras
    assert cameras is not None
    assert cameras.names is not None
    assert whole.names is not None
    assert cameras.names == (*whole.names, *(f"aside/{name}" for name in whole.names))
    aside = cameras.centers_world[len(whole) :] - whole.centers_world
    torch.testing.assert_close(aside, torch.tensor([5.0, 0.0, 0.0]).expand(len(whole), 3), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(cameras.K[: len(whole)], whole.K)


def test_transform_into_a_folder_keeps_what_cameras_see(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--rotate", "20", "-50", "80", "--scale", "0.5", "--shift", "1", "2", "3", "--recenter"]
    assert main(["transform", str(out), str(tmp_path / "turned"), *words]) == 0
    rasterizer = load_rasterizer("cpu")
    pictures = []
    for path in (out, tmp_path / "turned"):
        scene = load_scene(path)
        cameras = placed_cameras(scene)
        assert cameras is not None
        pictures.append(rasterizer(scene.gaussians, cameras, RasterOptions()).color)
    assert float((pictures[0] - pictures[1]).abs().max()) < 5e-3
    assert main(["transform", str(out), str(tmp_path / "x.ply"), "--scale", "-1"]) == 2
    capsys.readouterr()


def test_turns_follow_x_then_y_then_z() -> None:
    R = turn_about_axes((90.0, 90.0, 0.0))
    assert torch.allclose(R @ torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)  # y -> z -> x


def test_up_is_turned_to_where_recon_keeps_it(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", str(out), str(tmp_path / "z_up.ply"), "--convention", "blender"]) == 0
    assert main(["transform", str(tmp_path / "z_up.ply"), str(tmp_path / "back.ply"), "--up", "z"]) == 0
    y = load_scene(out).gaussians.means[:, 1]
    torch.testing.assert_close(read_splats(tmp_path / "back.ply").means[:, 1], y, rtol=1e-5, atol=1e-5)
    capsys.readouterr()


def test_clean_removes_what_was_put_in(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scene = cloud(count=3000, degree=0, spread=0.3)
    scene.means[:2] = torch.tensor([[8.0, 8.0, 8.0], [8.05, 8.0, 8.0]])  # a floater of two
    scene.scales[2] = 1e3
    write_ply(tmp_path / "dirty.ply", scene)
    data = bytearray((tmp_path / "dirty.ply").read_bytes())
    data[-56:-52] = struct.pack("<f", float("nan"))  # x of the last Gaussian
    (tmp_path / "dirty.ply").write_bytes(bytes(data))
    words = ["clean", str(tmp_path / "dirty.ply"), str(tmp_path / "clean.ply"), "--json"]
    assert main(words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["removed"]["outliers"] >= 1
    assert facts["removed"]["floaters"] >= 2
    kept = read_splats(tmp_path / "clean.ply")
    assert len(kept) > 2700
    assert float(kept.means.abs().max()) < 4
    assert main(["clean", str(tmp_path / "clean.ply"), str(tmp_path / "x.ply"), "--sky-distances", "5"]) == 2


def test_compare_and_info(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(out / "scene.ply", tmp_path / "same.ply")
    assert main(["compare", str(out), str(tmp_path / "same.ply"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psnr_lowest_db"] == 100.0
    assert main(["export", str(out), str(tmp_path / "a.spz")]) == 0
    assert main(["compare", str(out), str(tmp_path / "a.spz"), "--json"]) == 0
    told = capsys.readouterr().out
    assert 30 < json.loads(told)["psnr_lowest_db"] < 100
    assert main(["info", str(tmp_path / "a.spz"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["gaussians"], facts["not_finite"]) == ("spz", 300, 0)
    content = {"position": 9, "opacity": 1, "colour": 3, "scale": 3, "rotation": 4, "SH beyond degree 0": 9}
    assert facts["bytes_per_attribute"] == {name: 300 * each for name, each in content.items()} | {"headers and the rest": 16}


def test_a_mesh_leaves_out_the_far_shell_and_an_stl_is_in_millimetres(tmp_path: Path) -> None:
    """Discs on a ball of radius 1, and the far shell a run puts round a scene, which its report counts."""
    import trimesh

    directions = torch.nn.functional.normalize(torch.randn(6000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    scene = cloud(count=6000, degree=0)
    ball = replace(scene, means=directions, scales=torch.full((6000, 3), 0.04), opacities=torch.full((6000,), 0.9))
    far = replace(ball, means=directions * 40.0, scales=torch.full((6000, 3), 2.0)).select(torch.arange(500))
    write_ply(tmp_path / "scene.ply", Gaussians.concatenate([ball, far]))
    report = {"counts": {"gaussians": 6500, "shell_gaussians": 500}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    cameras = cameras_around(ball, views=8, side_px=160)
    write_frames(tmp_path, cameras)
    target = tmp_path / "ball.stl"
    options = ["--metres-per-unit", "0.5", "--faces", "3000", "--voxel", "0.06", "--cameras", str(tmp_path / "seen_from.json")]
    assert main(["export", str(tmp_path), str(target), *options]) == 0
    loaded = trimesh.load(target, force="mesh")
    assert len(loaded.faces) <= 3000
    assert abs(loaded.bounds[:, :2]).max() == pytest.approx(500.0, rel=0.15)
    seen_from = json.loads((tmp_path / "seen_from.json").read_text())["frames"]
    for frame, (x, y, z) in zip(seen_from, cameras.centers_world.tolist(), strict=True):
        place = [row[3] for row in frame["T_world_cam"][:3]]
        assert place == pytest.approx([500 * x, 500 * z, -500 * y], abs=0.1), "z up, millimetres"
    (tmp_path / "report.json").write_text(json.dumps(report | {"choices": {"scale": {"metres": 1.0}}}))
    assert main(["export", str(tmp_path), str(target), "--faces", "3000", "--voxel", "0.06"]) == 0
    assert abs(trimesh.load(target, force="mesh").bounds[:, :2]).max() == pytest.approx(1000.0, rel=0.15), "a known distance"


def test_a_mesh_is_coloured_from_the_photos_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Discs on a ball; photos that are all green. Without photos the scene's own colours are taken, and that is said."""
    import trimesh
    from PIL import Image

    directions = torch.nn.functional.normalize(torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    scene = cloud(count=4000, degree=0)
    scene = replace(scene, means=directions, scales=torch.full((4000, 3), 0.05), opacities=torch.full((4000,), 0.9))
    write_ply(tmp_path / "scene.ply", scene)
    write_frames(tmp_path, cameras_around(scene, views=8, side_px=160))
    (tmp_path / "photos").mkdir()
    for index in range(8):  # not quite the same, or they would be refused as one picture
        picture = Image.new("RGB", (160, 160), (0, 200, 0))
        picture.paste((0, 150, 0), (0, 0, 20 * index, 4))
        picture.save(tmp_path / "photos" / f"{index}.jpg", quality=95)
    target, options = tmp_path / "a.mesh.ply", ["--faces", "2000", "--json"]
    assert main(["export", str(tmp_path), str(target), *options, "--photos", str(tmp_path / "photos")]) == 0
    told = capsys.readouterr()
    assert "photos were not found" not in told.err
    facts = json.loads(told.out)
    assert facts["covered"] > 0.8
    assert facts["depth_difference"] < 0.05
    green = np.median(trimesh.load(target).visual.vertex_colors, axis=0)
    assert np.abs(green[:3] - [0, 200, 0]).max() < 8
    assert main(["export", str(tmp_path), str(target), *options]) == 0
    assert "photos were not found" in " ".join(capsys.readouterr().err.split())
    assert np.median(trimesh.load(target).visual.vertex_colors, axis=0)[0] > 60


def test_html_holds_everything(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "scene.html"
    assert main(["export", str(out), str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "__VISER_EMBED_DATA__" in text
    assert 'src="http' not in text
    assert "SH degree 1" in " ".join(capsys.readouterr().err.split())
