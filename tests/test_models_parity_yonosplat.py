"""YoNoSplat against the official code's numbers: outputs and intermediates. About 60 s and 4.2 GB on two cores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from parity import Comparison, build_filled, capture, fixture_folder, images
from test_models_parity_pi3 import per_view

from models.published.layers.camera_heads import invert_rigid, quaternion_to_matrix
from models.published.layers.harmonics import real_harmonics
from models.published.layers.splats import covariances, to_records
from models.published.networks.yonosplat import YonoSplat, ray_directions, yonosplat_keys

HEIGHT, WIDTH = 126, 154


def test_ray_harmonics_match_official_numbers() -> None:
    folder = fixture_folder("yonosplat")
    comparison = Comparison(folder, json.loads((folder / "tolerance.json").read_text())["f32_vs_f64"])
    K_norm = torch.from_numpy(comparison.stored["intrinsics_norm"][0])
    codes = real_harmonics(ray_directions(K_norm, HEIGHT, WIDTH)).permute(0, 3, 1, 2)
    comparison.check("rays_sh4_s79", codes[:, :, ::7, ::9])
    comparison.finish()


@pytest.mark.slow
def test_matches_official_numbers() -> None:
    folder = fixture_folder("yonosplat")
    comparison = Comparison(folder, json.loads((folder / "tolerance.json").read_text())["f32_vs_f64"])
    network = build_filled(folder, YonoSplat, yonosplat_keys())
    blocks = "backbone.aggregator.blocks"
    decoders = ["point_decoder", "gaussian_decoder", "camera_decoder"]
    names = ["backbone.patch_vit", "backbone.intrinsic_head", "backbone.ray_embed", "rgb_embed", "camera_head", *decoders]
    names += [f"{blocks}.{k}" for k in (0, 1, 17, 34, 35)] + ["point_head", "gaussian_head"]
    seen, _ = capture(network, names)
    decoded: list[torch.Tensor] = []
    network.point_decoder.register_forward_pre_hook(lambda _m, args: decoded.append(args[0].clone()))
    K_norm = torch.from_numpy(np.load(folder / "io.npz")["intrinsics_norm"][0])
    with torch.inference_mode():
        out = network(images(3, HEIGHT, WIDTH), K_norm)
        means, fields, rotations = out.splats()
        gaussians = to_records(means, fields, rotations)
    check = comparison.check
    check("enc_patch", seen["backbone.patch_vit"][0][:, 5::7, ::16])
    check("intrinsic_pred_prerelu", seen["backbone.intrinsic_head"][0])
    check("intrinsic_pred", out.focal_norm)
    check("intr_emb", seen["backbone.ray_embed"][0][:, ::7, ::16])
    check("rgb_embed", seen["rgb_embed"][0][:, ::7, ::16])
    check("hidden_upsampled", decoded[0][:, ::7, ::16])
    for number in (0, 1, 17, 34, 35):
        tokens = per_view(seen[f"{blocks}.{number}"][0])
        check(f"dec{number}", tokens[:, ::7, ::16])
        check(f"dec{number}_special", tokens[:, :5, ::8])
    for name, stride in zip(decoders, (16, 16, 8), strict=True):
        check(name, seen[name][0][:, ::7, ::stride])
    check("point_head_s57", seen["point_head"][0][:, ::5, ::7])
    check("gaussian_head_s57", seen["gaussian_head"][0][:, ::5, ::7])
    check("camera_raw_c2w", seen["camera_head"][0])
    check("pred_camera_poses_c2w_rel", out.T_world_cam)
    check("local_pts_s57", out.points_cam[:, ::5, ::7])
    check("means_s29", means[::29])
    check("means_first16", means[:16])
    check("scales_s29", fields.scales[::29])
    check("rotations_s29", fields.quats_xyzw[::29])
    check("opacities_s29", fields.opacities[::29])
    check("harmonics_s29", fields.harmonics[::29])
    world = rotations @ covariances(fields) @ rotations.transpose(1, 2)
    check("covariances_s29", world[::29])
    comparison.finish()
    spread = quaternion_to_matrix(gaussians.quats[:, [1, 2, 3, 0]]) * gaussians.scales[:, None, :]
    torch.testing.assert_close(spread @ spread.transpose(1, 2), world, rtol=1e-3, atol=1e-3 * float(world.abs().max()))
    torch.testing.assert_close(invert_rigid(out.T_world_cam[:1]) @ out.T_world_cam, out.T_world_cam, rtol=0, atol=1e-5)
