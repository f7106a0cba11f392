"""Where the bytes of a file go: every format, against what is known about its layout."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from splat_scenes import cloud
from test_recon_formats import ksplat_file

from recon.formats.attribute_bytes import WHOLE, attribute_bytes
from recon.formats.registry import FORMATS, write_splats

COUNT = 300
LAYOUTS = {
    "ply": {"position": 12, "colour": 12, "SH beyond degree 0": 36, "opacity": 4, "scale": 12, "rotation": 16},
    "ply-normals": {"position": 12, "normals": 12, "colour": 12, "opacity": 4, "scale": 12, "rotation": 16},
    "compressed-ply": {"position": 4, "rotation": 4, "scale": 4, "colour and opacity": 4, "SH beyond degree 0": 9},
    "splat": {"position": 12, "scale": 12, "colour and opacity": 4, "rotation": 4},
    "glb": {"position": 12, "colour": 16, "rotation": 16, "scale": 12, "opacity": 4, "SH beyond degree 0": 36},
    "spz2": {"position": 9, "opacity": 1, "colour": 3, "scale": 3, "rotation": 3, "SH beyond degree 0": 9},
}
"""Bytes of one Gaussian of SH degree 1."""


def written(name: str, folder: Path) -> Path:
    path = folder / f"a{FORMATS[name].ending}"
    write_splats(path, cloud(count=COUNT, degree=1), FORMATS[name])
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_attributes_have_the_bytes_of_their_layout(name: str, tmp_path: Path) -> None:
    found = attribute_bytes(written(name, tmp_path), name)
    assert {key: found[key] for key in LAYOUTS[name]} == {key: COUNT * each for key, each in LAYOUTS[name].items()}


@pytest.mark.parametrize("name", ["ply", "compressed-ply", "spz4", "sog", "splat", "glb", "gltf"])
def test_everything_adds_up_to_the_file(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    found = attribute_bytes(path, name)
    assert sum(found.values()) == path.stat().st_size
    assert 0 <= found[WHOLE] < 12_000
    assert found["position"] > 0


def test_files_of_other_programs(tmp_path: Path) -> None:
    """An unpacked SOG, and a .ksplat with its large headers."""
    with zipfile.ZipFile(written("sog", tmp_path)) as archive:
        archive.extractall(tmp_path / "open")
    found = attribute_bytes(tmp_path / "open" / "meta.json", "sog")
    assert found["position"] == sum((tmp_path / "open" / f"means_{half}.webp").stat().st_size for half in "lu")
    (tmp_path / "a.ksplat").write_bytes(ksplat_file(cloud(count=COUNT, degree=1), 1))
    assert attribute_bytes(tmp_path / "a.ksplat", "ksplat")["position"] == 6 * COUNT
