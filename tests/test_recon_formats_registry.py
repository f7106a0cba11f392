"""Files on disk: found by name, read by us and by somebody else's program, checked after writing, refused when broken."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from splat_scenes import apart, cloud

from recon.errors import UserError
from recon.formats import registry
from recon.formats.conventions import CONVENTIONS, Y_UP, Similarity, moved_gaussians
from recon.formats.registry import FORMATS, cut_sh, find_format, read_splats, write_splats
from recon.formats.second_reader import read_elsewhere, second_reader_missing
from recon.formats.self_check import ExportCheckFailed, cameras_around, check_file
from recon.records import Gaussians
from render.rasterizer import load_rasterizer

WRITTEN = [name for name, entry in FORMATS.items() if entry.write is not None and entry.read is not None]


def file_name(name: str) -> str:
    return f"scene{FORMATS[name].ending}"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.ply", "ply"),
        ("a.PLY", "ply"),
        ("a.compressed.ply", "compressed-ply"),
        ("a.points.ply", "points-ply"),
        ("a.spz", "spz"),
        ("a.sog", "sog"),
        ("meta.json", "sog"),
        ("a.splat", "splat"),
        ("a.ksplat", "ksplat"),
        ("a.glb", "glb"),
        ("a.gltf", "gltf"),
    ],
)
def test_extension_names_the_format(file: str, name: str) -> None:
    assert find_format(Path(file)).name == name


def test_unknown_formats_are_named() -> None:
    with pytest.raises(UserError, match=r"\.docx"):
        find_format(Path("a.docx"))
    with pytest.raises(UserError, match="fbx"):
        find_format(Path("a.ply"), "fbx")


@pytest.mark.parametrize("name", WRITTEN)
def test_write_check_read(name: str, tmp_path: Path) -> None:
    """The self-check passes for every format, with our reader and with gaussforge where it reads the format."""
    scene = cloud(count=300, degree=1)
    entry, path = FORMATS[name], tmp_path / file_name(name)
    losses = write_splats(path, scene, entry)
    check = check_file(path, entry, scene, load_rasterizer("cpu"), losses=losses)
    assert check.count == len(scene)
    assert check.bytes == path.stat().st_size
    assert check.psnr_same_sh_db >= entry.floor_db
    if entry.second_reader is not None and not second_reader_missing():
        assert check.second_psnr_db is not None
        assert check.second_psnr_db >= entry.floor_db - 1
    assert bool(losses) == (entry.max_sh == 0)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", ["ply", "spz", "glb"])
def test_conventions_change_the_file_and_not_the_scene(name: str, convention: str, tmp_path: Path) -> None:
    scene = cloud(count=200, degree=2)
    entry, path, R = FORMATS[name], tmp_path / file_name(name), CONVENTIONS[convention]
    write_splats(path, scene, entry, R_file_world=R)
    check_file(path, entry, scene, load_rasterizer("cpu"), R_file_world=R)
    in_file_axes = moved_gaussians(read_splats(path), Similarity(R_new_old=entry.R_file_world))
    wanted = moved_gaussians(scene, Similarity(R_new_old=R))
    assert apart(wanted, in_file_axes).position < 3e-4


def test_axes_follow_the_specifications() -> None:
    for name in ("ply", "ply-normals", "compressed-ply", "sog", "splat"):
        assert torch.equal(FORMATS[name].R_file_world, torch.eye(3))
    for name in ("spz", "spz2", "spz4", "glb", "gltf"):
        assert torch.equal(FORMATS[name].R_file_world, Y_UP)


@pytest.mark.skipif(bool(second_reader_missing()), reason=second_reader_missing() or "present")
@pytest.mark.parametrize("name", [n for n in WRITTEN if FORMATS[n].second_reader])
def test_another_program_reads_the_same_values(name: str, tmp_path: Path) -> None:
    scene = cut_sh(cloud(count=300, degree=3), FORMATS[name].max_sh)
    entry, path = FORMATS[name], tmp_path / file_name(name)
    write_splats(path, scene, entry)
    ours = read_splats(path, name)
    assert entry.second_reader is not None
    seen = read_elsewhere(path, entry.second_reader)
    if not entry.second_reader_turns:  # gaussforge leaves the axes of SPZ as they are in the file
        seen = moved_gaussians(seen, Similarity(R_new_old=Y_UP))
    difference = apart(ours, seen)
    assert difference.position < 1e-4
    assert difference.rotation_deg < 0.3
    assert max(difference.log_scale, difference.opacity, difference.colour, difference.sh_rms) < 3e-3


def test_a_wrong_file_fails_the_check(tmp_path: Path) -> None:
    scene, entry, path = cloud(count=300, degree=0), FORMATS["ply"], tmp_path / "scene.ply"
    bright = Gaussians(means=scene.means, quats=scene.quats, scales=scene.scales, opacities=scene.opacities, sh=scene.sh + 0.4)
    write_splats(path, bright, entry)
    with pytest.raises(ExportCheckFailed, match="does not show the scene"):
        check_file(path, entry, scene, load_rasterizer("cpu"))
    write_splats(path, scene.select(torch.arange(299)), entry)
    with pytest.raises(ExportCheckFailed, match="299"):
        check_file(path, entry, scene, load_rasterizer("cpu"), cameras=cameras_around(scene, views=1))


def test_upside_down_fails_the_check(tmp_path: Path) -> None:
    scene, entry, path = cloud(count=300, degree=0), FORMATS["spz"], tmp_path / "scene.spz"
    write_splats(path, scene, entry, R_file_world=CONVENTIONS["opencv"])
    with pytest.raises(ExportCheckFailed):
        check_file(path, entry, scene, load_rasterizer("cpu"))


def test_unpacked_sog_is_read(tmp_path: Path) -> None:
    scene = cloud(count=100, degree=1)
    write_splats(tmp_path / "a.sog", scene, FORMATS["sog"])
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        archive.extractall(tmp_path / "folder")
    assert apart(read_splats(tmp_path / "a.sog"), read_splats(tmp_path / "folder" / "meta.json")).position == 0.0


def test_points_open_in_another_reader(tmp_path: Path) -> None:
    from plyfile import PlyData

    scene = cloud(count=50, degree=0)
    assert write_splats(tmp_path / "a.points.ply", scene, FORMATS["points-ply"])
    vertex = PlyData.read(str(tmp_path / "a.points.ply"))["vertex"]
    assert np.allclose(np.stack([vertex[a] for a in "xyz"], axis=1), scene.means.numpy())
    colour = np.stack([vertex[c] for c in ("red", "green", "blue")], axis=1)
    assert np.abs(colour / 255.0 - (scene.sh[:, 0].numpy() * 0.28209479 + 0.5)).max() < 0.6 / 255


def test_refusals(tmp_path: Path) -> None:
    scene = cloud(count=5, degree=0)
    with pytest.raises(UserError, match="only read"):
        write_splats(tmp_path / "a.ksplat", scene, FORMATS["ksplat"])
    with pytest.raises(UserError, match="no Gaussians"):
        write_splats(tmp_path / "a.spz", scene.select(torch.zeros(5, dtype=torch.bool)), FORMATS["spz"])
    scene.means[2, 1] = torch.nan
    with pytest.raises(UserError, match="1 Gaussians hold NaN"):
        write_splats(tmp_path / "a.spz", scene, FORMATS["spz"])
    with pytest.raises(UserError, match="no file"):
        read_splats(tmp_path / "absent.spz")
    assert not list(tmp_path.iterdir())


def test_a_compressed_ply_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    scene = cloud(count=20, degree=0)
    write_splats(tmp_path / "a.compressed.ply", scene, FORMATS["compressed-ply"])
    (tmp_path / "a.compressed.ply").rename(tmp_path / "b.ply")
    assert registry.sniff_format(tmp_path / "b.ply").name == "compressed-ply"
    assert len(read_splats(tmp_path / "b.ply")) == 20
