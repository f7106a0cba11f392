"""VGGT-1B against the official code's numbers: outputs and intermediates. About 90 s and 5 GB on two cores."""

from __future__ import annotations

import json

import pytest
import torch
from parity import Comparison, build_filled, capture, fixture_folder, images

from models.published.layers.camera_heads import decode_pose
from models.published.layers.patch_vit import resize_positions
from models.published.networks.vggt import TAPS, Vggt, vggt_keys

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 154, 210


def check_taps(comparison: Comparison, taps: list[torch.Tensor]) -> None:
    """Compare special tokens and patches of the four taps."""
    for number, tokens in zip(TAPS, taps, strict=True):
        comparison.check(f"agg{number}_special", tokens[:, :5, ::8])
        comparison.check(f"agg{number}_patch", tokens[:, 5::7, ::16])


def test_matches_official_numbers() -> None:
    folder = fixture_folder("vggt")
    comparison = Comparison(folder, json.loads((folder / "tolerance.json").read_text())["f32_vs_f64"])
    network = build_filled(folder, Vggt, vggt_keys())
    vit, pairs = "backbone.patch_vit", "backbone.aggregator"
    names = [f"{vit}.patch_embed", f"{vit}.blocks.0", f"{vit}.blocks.1", f"{vit}.blocks.23", vit]
    names += [f"{pairs}.frame_blocks.0", f"{pairs}.global_blocks.0", pairs]
    tapped: list[torch.Tensor] = []
    network.backbone.register_forward_hook(lambda _m, _i, out: tapped.extend(out))
    seen, _ = capture(network, names[:-1])
    with torch.inference_mode():
        out = network(images(3, HEIGHT, WIDTH), points=True)
        table = resize_positions(network.backbone.patch_vit.pos_embed, HEIGHT // 14, WIDTH // 14, antialias=True)
    check = comparison.check
    check("dino_posembed_interp", table[:, :, ::16])
    check("patch_conv", seen[f"{vit}.patch_embed"][0][:, ::7, ::16])
    for number in (0, 1, 23):
        check(f"dino_block{number}", seen[f"{vit}.blocks.{number}"][0][:, ::7, ::16])
    encoded = seen[vit][0]
    check("dino_clstoken", encoded[:, 0, ::4])
    check("dino_regtokens", encoded[:, 1:5, ::4])
    check("dino_patchtokens", encoded[:, 5::7, ::16])
    check("frame_block0", seen[f"{pairs}.frame_blocks.0"][0][:, ::7, ::16])
    check("global_block0", seen[f"{pairs}.global_blocks.0"][0].unflatten(1, (3, -1))[0][:, ::7, ::16])
    first = torch.cat([seen[f"{pairs}.frame_blocks.0"][0], seen[f"{pairs}.global_blocks.0"][0].unflatten(1, (3, -1))[0]], dim=-1)
    check("agg0_special", first[:, :5, ::8])
    check("agg0_patch", first[:, 5::7, ::16])
    check_taps(comparison, tapped)
    check("pose_enc_list", out.pose_codes)
    check("depth_s23", out.depth[:, ::2, ::3])
    check("depth_conf_s23", out.depth_conf[:, ::2, ::3])
    check("depth_view0_row77", out.depth[0, 77])
    check("points_s46", out.points_world[:, ::4, ::6])
    check("points_conf_s46", out.points_conf[:, ::4, ::6])
    T_cam_world, K = decode_pose(out.pose_codes[-1], HEIGHT, WIDTH)
    check("extrinsic_w2c", T_cam_world[:, :3])
    check("intrinsic_vggt_release", K)
    check("intrinsic_anysplat_variant", decode_pose(out.pose_codes[-1], HEIGHT, WIDTH, tangent_offset=1e-3)[1])
    comparison.finish()
