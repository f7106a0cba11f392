"""Every splat format there and back: what quantisation costs follows from the number of bits, nothing more is lost."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from splat_scenes import Apart, apart, cloud

from recon.formats import compressed_ply, gltf, ksplat, sog, splat, spz
from recon.formats.codebooks import codebook, nearest_level, palette
from recon.formats.packing import from_smallest_three, morton_order, smallest_three
from recon.formats.reading import BadFile
from recon.records import Gaussians

CODECS: dict[str, tuple[Callable, Callable, Apart]] = {
    # tolerances: half a step of the stored grid, or the known error of smallest-three packing
    "compressed-ply": (compressed_ply.encode, compressed_ply.decode, Apart(0.02, 0.25, 0.01, 0.002, 0.003, 0.01)),
    "spz2": (partial(spz.encode, version=2), spz.decode, Apart(3e-4, 13.0, 0.032, 0.002, 0.004, 0.04)),
    "spz3": (partial(spz.encode, version=3), spz.decode, Apart(3e-4, 0.27, 0.032, 0.002, 0.004, 0.04)),
    "spz4": (partial(spz.encode, version=4), spz.decode, Apart(3e-4, 0.27, 0.032, 0.002, 0.004, 0.04)),
    "sog": (sog.encode, sog.decode, Apart(1e-3, 1.6, 0.03, 0.002, 0.01, 0.02)),
    "glb": (gltf.encode, gltf.decode, Apart(1e-6, 0.1, 1e-5, 1e-6, 1e-5, 1e-6)),
    "gltf": (partial(gltf.encode, binary=False), gltf.decode, Apart(1e-6, 0.1, 1e-5, 1e-6, 1e-5, 1e-6)),
}
"""Name -> encoder, decoder, largest difference allowed. 0.1 degrees is what arccos makes of float32 rounding."""


def assert_within(seen: Apart, allowed: Apart) -> None:
    for name in Apart.__dataclass_fields__:
        assert getattr(seen, name) <= getattr(allowed, name), name


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("name", CODECS)
def test_round_trip(name: str, degree: int) -> None:
    encode, decode, allowed = CODECS[name]
    scene = cloud(degree=degree)
    data, notes = encode(scene)
    read = decode(data)
    assert read.sh_degree == degree
    assert notes == ()
    assert_within(apart(scene, read), allowed)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257])
def test_any_number_of_gaussians(name: str, count: int) -> None:
    encode, decode, allowed = CODECS[name]
    scene = cloud(count=count, degree=1)
    assert_within(apart(scene, decode(encode(scene)[0])), allowed)


@pytest.mark.parametrize("name", CODECS)
def test_writing_twice_gives_the_same_bytes(name: str) -> None:
    encode = CODECS[name][0]
    assert encode(cloud())[0] == encode(cloud())[0]


def test_splat_keeps_everything_but_sh() -> None:
    scene = cloud(degree=0)
    read = splat.decode(splat.encode(scene)[0])
    assert_within(apart(scene, read), Apart(0.0, 0.9, 1e-6, 0.002, 0.002, 0.0))
    weight = (read.scales.prod(dim=1) * read.opacities).tolist()
    assert weight[0] == max(weight)


def test_golden_splat_record() -> None:
    scene = Gaussians(
        means=torch.tensor([[1.0, -2.0, 3.0]]),
        quats=torch.tensor([[0.0, 1.0, 0.0, 0.0]]),
        scales=torch.tensor([[0.5, 0.25, 0.125]]),
        opacities=torch.tensor([0.2]),
        sh=torch.tensor([[[1.0, -1.0, 0.0]]]),
    )
    # colour = 0.5 + 0.2820948 f_dc -> 0.7820948, 0.2179052, 0.5 -> bytes 199, 56, 128 (127.5 rounds to even); 0.2 * 255 = 51
    wanted = struct.pack("<6f8B", 1.0, -2.0, 3.0, 0.5, 0.25, 0.125, 199, 56, 128, 51, 128, 255, 128, 128)
    assert splat.encode(scene)[0] == wanted


def test_golden_spz_bytes() -> None:
    """One Gaussian packed by hand from the published layout; y and z change sign on disk."""
    scene = Gaussians(
        means=torch.tensor([[1.0, 2.0, -0.5]]),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), math.exp(-2.0)),
        opacities=torch.tensor([0.4]),
        sh=torch.zeros(1, 1, 3),
    )
    data, _ = spz.encode(scene, version=3)
    content = gzip.decompress(data)
    assert content[:16] == struct.pack("<IIIBBBB", 0x5053474E, 3, 1, 0, 12, 0, 0)
    fixed = [int.from_bytes(content[16 + 3 * i : 19 + 3 * i], "little", signed=True) for i in range(3)]
    assert fixed == [4096, -8192, 2048]
    assert list(content[25:32]) == [102, 128, 128, 128, 128, 128, 128]  # 0.4 * 255; 0.5 * 255 to even; (-2 + 10) * 16
    assert struct.unpack("<I", content[32:36])[0] == 3 << 30  # w, the last of xyzw, is the largest; the others are 0


def test_clamped_values_are_told() -> None:
    scene = cloud(count=50, degree=1)
    bright = Gaussians(means=scene.means, quats=scene.quats, scales=scene.scales, opacities=scene.opacities, sh=scene.sh * 40.0)
    for encode in (splat.encode, spz.encode, compressed_ply.encode):
        assert encode(bright if encode is not splat.encode else bright.select(torch.arange(50)))[1] != ()
    assert sog.encode(bright)[1] == ()


def test_spz_grid_follows_the_scene() -> None:
    """A scene of thousands of units still fits; one of tiny Gaussians gets a finer grid than 1/4096."""
    far = cloud(count=50, degree=0, spread=4000.0)
    assert apart(far, spz.decode(spz.encode(far)[0])).position < 0.01
    near = cloud(count=50, degree=0)
    small = Gaussians(means=near.means * 1e-3, quats=near.quats, scales=near.scales * 1e-3, opacities=near.opacities, sh=near.sh)
    assert apart(small, spz.decode(spz.encode(small)[0])).position < 0.1 * float(small.scales.max(dim=1).values.median())


def test_smallest_three_restores_any_rotation() -> None:
    quats = torch.randn(1000, 4, generator=torch.Generator().manual_seed(1)).numpy()
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    back = from_smallest_three(*smallest_three(quats))
    assert np.abs(np.abs((quats * back).sum(axis=1)) - 1.0).max() < 1e-6


def test_morton_order_walks_octants_one_after_another() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    points[:2] = [[-1, -1, -1], [1, 1, 1]]  # the cube is the scene's box
    octant = ((points[morton_order(points)] >= 0) * np.array([1, 2, 4])).sum(axis=1)
    assert (np.diff(octant) >= 0).all()


def test_codebook_is_as_good_as_its_values() -> None:
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    levels = codebook(values)
    error = np.abs(levels[nearest_level(values, levels)] - values)
    assert error.mean() < 0.01  # an even grid over the same range has 0.0085, on the tails too
    few = np.array([0.0, 1.0, 5.0], dtype=np.float32)
    assert np.abs(codebook(few)[nearest_level(few, codebook(few))] - few).max() == 0.0


def test_palette_finds_clusters_and_serves_few_vectors_exactly() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(64, 9)).astype(np.float32)
    vectors = centres[rng.integers(0, 64, 5000)] + rng.normal(scale=0.01, size=(5000, 9)).astype(np.float32)
    entries, labels = palette(vectors, 256)
    assert len(entries) <= 256
    assert np.sqrt(np.mean((entries[labels] - vectors) ** 2)) < 0.02
    entries, labels = palette(centres, 64)
    assert np.array_equal(entries[labels], centres)


def ksplat_file(scene: Gaussians, level: int) -> bytes:
    """Write a .ksplat as its viewer does: one section, buckets of 64 of which the last is partly filled."""
    count, bucket, block, reach = len(scene), 64, 5.0, 32767
    order = morton_order(scene.means.numpy())
    scene = scene.select(torch.from_numpy(order))
    means = scene.means.numpy().astype(np.float64)
    groups = [means[start : start + bucket] for start in range(0, count, bucket)]
    centres = np.array([(g.min(axis=0) + g.max(axis=0)) / 2 for g in groups])
    full = count // bucket
    kind, half = ("<f4", "<f4") if level == 0 else ("<u2", "<f2")
    sh_kind = {0: "<f4", 1: "<f2", 2: "u1"}[level]
    width = 3 * (scene.sh.shape[1] - 1)
    fields = [("mean", kind, 3), ("scale", half, 3), ("quat", half, 4), ("colour", "u1", 4), ("sh", sh_kind, width)]
    records = np.zeros(count, dtype=np.dtype(fields))
    at = np.arange(count) // bucket
    records["mean"] = means if level == 0 else np.rint((means - centres[at]) / (block / 2) * reach) + reach
    records["scale"], records["quat"] = scene.scales, scene.quats
    colour = torch.cat([scene.sh[:, 0] * 0.28209479177387814 + 0.5, scene.opacities[:, None]], dim=1)
    records["colour"] = np.rint(colour.numpy() * 255)
    bands = [scene.sh[:, b * b : (b + 1) ** 2].permute(0, 2, 1).reshape(count, -1) for b in range(1, scene.sh_degree + 1)]
    sh = torch.cat(bands, dim=1).numpy() if bands else np.zeros((count, 0))
    records["sh"] = np.rint((sh + 1.5) / 3.0 * 255) if level == 2 else sh
    head = bytearray(4096)
    struct.pack_into("<BBxxIIII", head, 0, 0, 1, 1, 1, count, count)
    struct.pack_into("<H", head, 20, level)
    struct.pack_into("<ff", head, 36, -1.5, 1.5)
    section = bytearray(1024)
    partial_buckets = 1 if count % bucket else 0
    struct.pack_into("<IIIIfHxxI", section, 0, count, count, bucket, len(groups), block, 12, reach)
    struct.pack_into("<IIH", section, 32, full, partial_buckets, scene.sh_degree)
    lengths = struct.pack("<I", count % bucket) if partial_buckets else b""
    return bytes(head) + bytes(section) + lengths + centres.astype("<f4").tobytes() + records.tobytes()


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat_is_read(level: int, degree: int) -> None:
    scene = cloud(count=200, degree=degree, spread=0.7)
    read = ksplat.decode(ksplat_file(scene, level))
    assert read.sh_degree == degree
    allowed = Apart(1e-6 if level == 0 else 1.5e-4, 0.1, 1e-3, 0.002, 0.002, 0.01)
    assert_within(apart(scene, read), allowed)


def test_gltf_nodes_move_and_turn_what_they_hold() -> None:
    import json

    scene = cloud(count=30, degree=2)
    document = json.loads(gltf.encode(scene, binary=False)[0])
    root2 = math.sqrt(0.5)
    document["nodes"] = [
        {"children": [1], "translation": [1.0, 2.0, 3.0]},
        {"mesh": 0, "rotation": [0.0, root2, 0.0, root2], "scale": [2.0, 2.0, 2.0]},
    ]
    moved = gltf.decode(json.dumps(document).encode())
    # y up in the file: x_file = (x, -y, -z); 90 degrees about +y takes (x, y, z) to (z, y, -x)
    x, y, z = scene.means.unbind(dim=1)
    wanted = torch.stack([2 * -z + 1, -(2 * -y + 2), -(2 * -x + 3)], dim=1)
    assert torch.allclose(moved.means, wanted, atol=1e-5)
    assert torch.allclose(moved.scales, scene.scales * 2, rtol=1e-5)


@pytest.mark.parametrize("change", ["loop", "shear", "mirror", "no mesh"])
def test_gltf_nodes_that_cannot_be_are_refused(change: str) -> None:
    import json

    document = json.loads(gltf.encode(cloud(count=5), binary=False)[0])
    if change == "loop":
        document["nodes"][0]["children"] = [0]
    elif change == "shear":
        document["nodes"][0]["scale"] = [1, 2, 1]
    elif change == "mirror":
        document["nodes"][0]["matrix"] = [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    else:
        document["nodes"][0]["mesh"] = 7
    with pytest.raises(BadFile):
        gltf.decode(json.dumps(document).encode())


def test_spz_never_stores_an_opacity_with_an_infinite_logit() -> None:
    """Bytes 0 and 255 become infinite in readers that keep logits; those Gaussians are then lost."""
    scene = cloud(count=4, degree=0)
    scene.opacities[:] = torch.tensor([1e-6, 0.0005, 0.9995, 1 - 1e-6])
    content = gzip.decompress(spz.encode(scene)[0])
    assert list(content[16 + 36 : 16 + 40]) == [1, 1, 254, 254]
