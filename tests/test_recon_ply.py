"""The standard 3DGS PLY: there and back, read by somebody else, and every way a file can lie."""

from __future__ import annotations

import logging
import os

import numpy as np
import plyfile
import pytest
import torch

from recon.errors import UserError
from recon.ply import extra_columns, read_ply, write_ply
from recon.records import Gaussians

ROUND_TRIP_TOLERANCE = 2e-5
"""Relative: one float32 logarithm or logit and back."""


def some_gaussians(count: int = 50, coefficients: int = 16, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=g) * 5,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=torch.randn(count, 3, generator=g).exp() * 0.05,
        opacities=torch.rand(count, generator=g) * 0.98 + 0.01,
        sh=torch.randn(count, coefficients, 3, generator=g),
    )


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_round_trip(tmp_path, coefficients):
    before = some_gaussians(coefficients=coefficients)
    write_ply(tmp_path / "a.ply", before)
    after = read_ply(tmp_path / "a.ply")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=ROUND_TRIP_TOLERANCE, atol=1e-6)


def test_somebody_elses_reader_finds_the_standard_columns(tmp_path):
    gaussians = some_gaussians(7)
    write_ply(tmp_path / "a.ply", gaussians)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    rest = [f"f_rest_{i}" for i in range(45)]
    wanted = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", "scale_0", "scale_1", "scale_2"]
    assert [p.name for p in vertex.properties] == [*wanted, "rot_0", "rot_1", "rot_2", "rot_3"]
    assert vertex.count == 7
    # channel-major: all fifteen of red, then green, then blue
    assert np.array_equal(vertex["f_rest_0"], gaussians.sh[:, 1, 0].numpy())
    assert np.array_equal(vertex["f_rest_15"], gaussians.sh[:, 1, 1].numpy())
    assert np.array_equal(vertex["f_rest_44"], gaussians.sh[:, 15, 2].numpy())
    assert np.allclose(1 / (1 + np.exp(-vertex["opacity"])), gaussians.opacities)
    assert np.allclose(np.exp(vertex["scale_2"]), gaussians.scales[:, 2])


def test_normals_are_written_on_request_where_others_look_for_them(tmp_path):
    gaussians = some_gaussians(7, 4)
    write_ply(tmp_path / "a.ply", gaussians, normals=True)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    assert [p.name for p in vertex.properties][:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert not any(vertex[name].any() for name in ("nx", "ny", "nz"))
    after = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(after.means, gaussians.means)
    torch.testing.assert_close(after.sh, gaussians.sh)
    assert extra_columns(tmp_path / "a.ply") == []


def write_columns(path, table: dict, *, text=False, byte_order="<", name="vertex"):
    """Write columns with somebody else's writer."""
    array = np.array(list(zip(*table.values(), strict=True)), dtype=[(key, "f4") for key in table])
    plyfile.PlyData([plyfile.PlyElement.describe(array, name)], text=text, byte_order=byte_order).write(path)


def columns(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """The file's columns, written out by hand."""
    table = {name: gaussians.means[:, i].numpy() for i, name in enumerate("xyz")}
    table |= {f"f_dc_{i}": gaussians.sh[:, 0, i].numpy() for i in range(3)}
    rest = gaussians.sh[:, 1:].transpose(1, 2).reshape(len(gaussians), -1)
    table |= {f"f_rest_{i}": rest[:, i].numpy() for i in range(rest.shape[1])}
    table["opacity"] = torch.logit(gaussians.opacities).numpy()
    table |= {f"scale_{i}": gaussians.scales[:, i].log().numpy() for i in range(3)}
    table |= {f"rot_{i}": (gaussians.quats[:, i] * 3).numpy() for i in range(4)}
    return table


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_other_writers_files_are_read(tmp_path, caplog, byte_order):
    """With normals, extra columns, columns in another order, rotations that are not unit."""
    gaussians = some_gaussians(9, 4)
    table = columns(gaussians)
    shuffled = {"label": table["x"] * 0, **dict(reversed(table.items())), "nx": table["x"], "ny": table["x"], "nz": table["x"]}
    write_columns(tmp_path / "a.ply", shuffled, byte_order=byte_order)
    with caplog.at_level(logging.WARNING):
        after = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(after.sh, gaussians.sh)
    torch.testing.assert_close(after.quats, gaussians.quats)
    torch.testing.assert_close(after.scales, gaussians.scales)
    assert "label" in caplog.text
    assert "nx" not in caplog.text


def test_values_that_are_not_finite_are_dropped_and_counted(tmp_path, caplog):
    table = columns(some_gaussians(6, 1))
    table["x"] = table["x"].copy()
    table["x"][2] = np.nan
    for i in range(4):
        table[f"rot_{i}"] = table[f"rot_{i}"].copy()
        table[f"rot_{i}"][4] = 0.0
    write_columns(tmp_path / "a.ply", table)
    with caplog.at_level(logging.WARNING):
        assert len(read_ply(tmp_path / "a.ply")) == 4
    assert "2 Gaussians" in caplog.text


def test_values_that_are_not_finite_are_kept_for_those_who_count_them(tmp_path):
    table = {name: column.copy() for name, column in columns(some_gaussians(6, 1)).items()}
    table["x"][0], table["scale_1"][1], table["opacity"][2] = np.nan, np.inf, -np.inf
    for i in range(4):
        table[f"rot_{i}"][3] = 0.0
    write_columns(tmp_path / "a.ply", table)
    read = read_ply(tmp_path / "a.ply", keep_broken=True)
    parts = (read.means, read.quats, read.scales, read.opacities[:, None])
    assert torch.stack([part.isfinite().all(dim=1) for part in parts]).all(dim=0).tolist() == [False] * 4 + [True] * 2


def test_surplus_columns_are_named(tmp_path):
    table = columns(some_gaussians(3, 4))
    table["nx"] = table["label"] = table["segment"] = table["x"]
    write_columns(tmp_path / "a.ply", table)
    assert extra_columns(tmp_path / "a.ply") == ["label", "segment"]
    write_ply(tmp_path / "b.ply", some_gaussians(3, 4))
    assert extra_columns(tmp_path / "b.ply") == []


def test_saturated_opacities_stay_inside_zero_and_one(tmp_path):
    table = columns(some_gaussians(2, 1))
    table["opacity"] = np.array([90.0, -90.0], np.float32)
    write_columns(tmp_path / "a.ply", table)
    opacities = read_ply(tmp_path / "a.ply").opacities
    assert (opacities > 0).all()
    assert (opacities < 1).all()


def test_writing_refuses_values_that_are_not_finite(tmp_path):
    gaussians = some_gaussians(5, 1)
    gaussians.means[3, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 5"):
        write_ply(tmp_path / "a.ply", gaussians)
    assert not os.listdir(tmp_path)


def test_an_empty_scene_round_trips(tmp_path):
    write_ply(tmp_path / "a.ply", some_gaussians(0, 1))
    assert len(read_ply(tmp_path / "a.ply")) == 0


def whole_file(tmp_path) -> bytes:
    write_ply(tmp_path / "whole.ply", some_gaussians(5, 1))
    return (tmp_path / "whole.ply").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: b[:-10], "cut short"),
        (lambda b: b.replace(b"vertex 5", b"vertex 5000000000"), "cut short"),
        (lambda b: b.replace(b"vertex 5", b"vertex 3"), "more than"),
        (lambda b: b.replace(b"vertex 5", b"vertex -5"), "damaged"),
        (lambda b: b.replace(b"vertex 5", b"vertex many"), "damaged"),
        (lambda b: b.replace(b"ply\n", b"pig\n", 1), "not a PLY"),
        (lambda b: b.replace(b"end_header", b"the_header"), "not a PLY"),
        (lambda b: b[:20], "not a PLY"),
        (lambda b: b"", "not a PLY"),
        (lambda b: os.urandom(5000), "not a PLY"),
        (lambda b: b.replace(b"float f_dc_0", b"float red"), "no Gaussians"),
        (lambda b: b.replace(b"float rot_3", b"float rot_2"), "damaged"),
        (lambda b: b.replace(b"float rot_3", b"list uchar int rot_3"), "cannot be read"),
        (lambda b: b.replace(b"binary_little_endian", b"ascii"), "ascii"),
    ],
)
def test_damaged_files_say_what_is_wrong(tmp_path, spoil, words):
    (tmp_path / "a.ply").write_bytes(spoil(whole_file(tmp_path)))
    with pytest.raises(UserError, match=words):
        read_ply(tmp_path / "a.ply")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_ply(tmp_path / "a.ply")
    with pytest.raises(UserError, match="cannot be read"):
        read_ply(tmp_path)


def test_other_numbers_of_harmonics_are_named(tmp_path):
    table = columns(some_gaussians(3, 4))
    del table["f_rest_8"]
    write_columns(tmp_path / "a.ply", table)
    with pytest.raises(UserError, match="8 f_rest columns"):
        read_ply(tmp_path / "a.ply")


def test_elements_after_the_gaussians_are_passed_over(tmp_path):
    """Some writers append cameras or metadata."""
    table = columns(some_gaussians(3, 1))
    array = np.array(list(zip(*table.values(), strict=True)), dtype=[(key, "f4") for key in table])
    more = plyfile.PlyElement.describe(np.array([(1.0,)] * 400, dtype=[("value", "f4")]), "metadata")
    plyfile.PlyData([plyfile.PlyElement.describe(array, "vertex"), more], byte_order="<").write(tmp_path / "a.ply")
    assert len(read_ply(tmp_path / "a.ply")) == 3
