"""MapAnything against the official code's numbers: outputs and intermediates. About 60 s and 6 GB on two cores."""

from __future__ import annotations

import json

import pytest
import torch
from parity import Comparison, build_filled, capture, fixture_folder, images

from models.published.checkpoint.keys import match_keys
from models.published.layers.patch_vit import normalise
from models.published.networks.mapanything import MapAnything, mapanything_keys
from models.published.zoo import on_meta

HEIGHT, WIDTH = 126, 154
GRID = (9, 11)


def as_maps(tokens: torch.Tensor) -> torch.Tensor:
    """Lay patch tokens out as maps with every 16th channel."""
    return tokens.transpose(1, 2).unflatten(2, GRID)[:, ::16]


def test_a_file_that_stores_shared_tensors_once_fits_too() -> None:
    folder = fixture_folder("mapanything")
    shapes = {k: tuple(v["shape"]) for k, v in json.loads((folder / "manifest.json").read_text())["state_dict"].items()}
    keys, network = mapanything_keys(), on_meta(MapAnything)
    assert match_keys(network, keys, shapes).complete
    stored = {key: shape for key, shape in shapes.items() if not key.startswith("dpt_") and "scratch.layer" not in key}
    match = match_keys(network, keys, stored)
    assert match.complete, (match.missing[:5], match.unexpected[:5])
    assert match.sources["dense_head.pyramid.levels.2.weight"] == "dense_head.0.input_process.2.1.weight"


@pytest.mark.slow
def test_matches_official_numbers() -> None:
    folder = fixture_folder("mapanything")
    comparison = Comparison(folder, json.loads((folder / "tolerance.json").read_text())["f32_vs_f64"])
    network = build_filled(folder, MapAnything, mapanything_keys())
    vit, blocks = "backbone.patch_vit", "backbone.sharing.blocks"
    seen, _ = capture(network, [vit, f"{vit}.blocks.0", *(f"{blocks}.{k}" for k in (0, 1, 15)), "dense_head"])
    tapped: list[tuple] = []
    network.backbone.register_forward_hook(lambda _m, _i, out: tapped.append(out))
    with torch.inference_mode():
        out = network(normalise(images(3, HEIGHT, WIDTH)))
    check = comparison.check
    check("encblk0", seen[f"{vit}.blocks.0"][0][:, ::7, ::16])
    check("enc_features_s16", as_maps(seen[vit][0][:, 1:]))
    check("enc_registers", seen[vit][0][:, :1, ::4].transpose(1, 2))
    for number in (0, 1, 15):
        check(f"aat{number}", seen[f"{blocks}.{number}"][0].flatten(0, 1)[::7, ::16])
    taps, token = tapped[0]
    for name, tap in zip(("info_inter0", "info_inter1", "info_final"), taps[1:], strict=True):
        check(name, as_maps(tap))
    check("info_scale_token", token[None, :, None])
    check("dense_raw_s57", seen["dense_head"][0][:, :, ::5, ::7])
    check("out_metric_scaling_factor", out.scale.expand(3, 1))
    check("out_cam_trans", out.T_world_cam[:, :3, 3])
    check("out_cam_quats", out.quaternion)
    check("out_ray_directions_s46", out.rays_cam[:, ::4, ::6])
    check("out_depth_along_ray_s46", out.range[:, ::4, ::6, None])
    check("out_pts3d_cam_s46", out.points_cam[:, ::4, ::6])
    check("out_pts3d_s46", out.points_world[:, ::4, ::6])
    check("out_conf_s46", out.conf[:, ::4, ::6])
    check("out_non_ambiguous_mask_logits_s46", out.mask_logit[:, ::4, ::6])
    comparison.finish()
