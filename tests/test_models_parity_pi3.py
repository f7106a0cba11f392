"""Pi3 against the official code's numbers: outputs and intermediates. About 60 s and 4 GB on two cores."""

from __future__ import annotations

import json

import pytest
import torch
from parity import Comparison, build_filled, capture, fixture_folder, images

from models.published.networks.pi3 import Pi3, pi3_keys

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 154, 210


def per_view(tokens: torch.Tensor, views: int = 3) -> torch.Tensor:
    """Undo the joining of views of a block that sees all."""
    return tokens if tokens.shape[0] == views else tokens.unflatten(1, (views, -1))[0]


def test_matches_official_numbers() -> None:
    folder = fixture_folder("pi3")
    comparison = Comparison(folder, json.loads((folder / "tolerance.json").read_text())["f32_vs_f64"])
    network = build_filled(folder, Pi3, pi3_keys())
    vit, blocks = "backbone.patch_vit", "backbone.aggregator.blocks"
    names = [vit, f"{vit}.blocks.0", f"{vit}.blocks.23", *(f"{blocks}.{k}" for k in (0, 1, 8, 17, 34, 35))]
    decoders = ["point_decoder", "conf_decoder", "camera_decoder"]
    names += [*decoders, "point_decoder.projects", "camera_head.fc_t", "camera_head.fc_rot"]
    seen, _ = capture(network, names)
    with torch.inference_mode():
        out = network(images(3, HEIGHT, WIDTH))
    check = comparison.check
    for number in (0, 23):
        check(f"enc_block{number}", seen[f"{vit}.blocks.{number}"][0][:, ::7, ::16])
    check("enc_patch", seen[vit][0][:, 5::7, ::16])
    for number in (0, 1, 8, 17, 34, 35):
        tokens = per_view(seen[f"{blocks}.{number}"][0])
        check(f"dec{number}", tokens[:, ::7, ::16])
        check(f"dec{number}_special", tokens[:, :5, ::8])
    check("point_projects", seen["point_decoder.projects"][0][:, ::7, ::16])
    for name, stride in zip(decoders, (16, 16, 8), strict=True):
        check(name, seen[name][0][:, ::7, ::stride])
    check("fc_t", seen["camera_head.fc_t"][0])
    check("fc_rot", seen["camera_head.fc_rot"][0])
    check("camera_poses_c2w", out.T_world_cam)
    check("conf_logit_s23", out.conf_logit[:, ::2, ::3])
    check("local_points_s46", out.points_cam[:, ::4, ::6])
    check("points_s46", out.points_world[:, ::4, ::6])
    check("local_points_view0_row77", out.points_cam[0, 77])
    comparison.finish()
