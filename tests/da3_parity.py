"""The comparison both DA3 sizes share."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from parity import Comparison, build_filled, capture, image_levels, images
from torch import Tensor, nn

from models.published.layers.camera_heads import decode_pose, invert_rigid
from models.published.layers.patch_vit import normalise, resize_positions
from models.published.networks.da3 import Da3Config, DepthAnything3, da3_keys, relative_and_scaled

HEIGHT, WIDTH = 168, 224
TAG = "da3-6"
SHARED_NORM = re.compile(r"(output_conv2_aux\.)3(\.2\.)")
STRIDES = {"proj": (16, 3, 4), "rn": (8, 3, 4), "ref": (8, 6, 8), "out_conv1": (4, 6, 8)}


def build(folder: Path, config: Da3Config) -> DepthAnything3:
    """Build and fill the network from the keys the published file holds (the shared norm is stored once)."""
    return build_filled(folder, lambda: DepthAnything3(config), da3_keys(), lambda key: SHARED_NORM.sub(r"\g<1>0\2", key))


def known_cameras() -> tuple[Tensor, Tensor]:
    """Compute the fixture's cameras, float64 closed form rounded to float32."""
    cameras, K = np.zeros((3, 4, 4)), np.zeros((3, 3, 3))
    for i in range(3):
        a, b = 0.15 * i - 0.1, 0.05 * i
        Ry = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        Rx = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        R, center = Rx @ Ry, np.array([0.4 * i, -0.1 * i, 0.05 * i * i])
        cameras[i, :3, :3], cameras[i, :3, 3], cameras[i, 3, 3] = R, -R @ center, 1
        fx = 0.9 * WIDTH + 4 * i
        K[i] = [[fx, 0, WIDTH / 2], [0, fx + 3, HEIGHT / 2], [0, 0, 1]]
    return torch.from_numpy(cameras).float(), torch.from_numpy(K).float()


def compare_case(network: DepthAnything3, folder: Path, case: str) -> Comparison:
    """Run one case and compare every array the fixture stores for it."""
    listed = json.loads((folder / "tolerance.json").read_text())["float32_vs_float64"]
    errors = listed.get(case, listed["v3"])  # the larger network's fixture lists three cases; the arrays are of one kind
    comparison = Comparison(folder, {f"{case}/{name}": entry for name, entry in errors.items()})
    views = int(case[1])
    strategy = {"v3first": "first", "v3mid": "middle"}.get(case, "saddle_balanced")
    known = known_cameras() if case == "v3cam" else None
    stride = network.config.dim // 384  # the larger fixture keeps every other channel
    hooked = _watch(network)
    with torch.inference_mode():
        out = network(normalise(images(views, HEIGHT, WIDTH, TAG)), known, rays=True, strategy=strategy)
    seen = hooked()
    T_world_cam, K = decode_pose(out.pose_code, HEIGHT, WIDTH, tangent_floor=1e-6)
    check = comparison.check
    check(f"{case}/pose_enc", out.pose_code)
    check(f"{case}/extrinsics", invert_rigid(T_world_cam)[:, :3])
    check(f"{case}/intrinsics", K)
    check(f"{case}/cam_dec_in", seen["camera"], listed=f"{case}/cam_token3")
    for name in comparison.stored.files:
        if not name.startswith(case + "/"):
            continue
        if found := re.fullmatch(rf"{case}/(depth|depth_conf|ray|ray_conf)_s(\d)", name):
            step = int(found[2])
            check(name, getattr(out, found[1])[:, ::step, ::step], listed=f"{case}/{found[1]}")
        elif found := re.fullmatch(rf"{case}/tok_(\w+)_t16", name):
            check(name, seen[found[1]][:, ::16, ::stride], listed=f"{case}/_{found[1]}")
        elif found := re.fullmatch(rf"{case}/feat(\d)_t16", name):
            check(name, seen["taps"][int(found[1])][:, ::16, ::2], listed=f"{case}/feat{found[1]}")
        elif found := re.fullmatch(rf"{case}/head_(\w+?)_view0", name):
            c, y, x = next(steps for kind, steps in STRIDES.items() if kind in found[1])
            check(name, seen[found[1]][0, ::c, ::y, ::x], listed=f"{case}/_{found[1]}")
        elif name.endswith("logits_view0_s6"):
            kind = "aux_logits" if "aux" in name else "logits"
            check(name, seen[kind][0, :, ::6, ::6], listed=f"{case}/_out_conv2{'_aux3' if 'aux' in name else ''}")
    if case == "v3cam":
        check("v3cam/cam_enc_tokens", seen["cam_enc"])
    maps = [out.depth, out.depth_conf, out.ray, out.ray_conf]
    comparison.check(f"{case}/depth_mean_std", np.array([[m.double().mean(), m.double().std(unbiased=False)] for m in maps]))
    if case == "v3":
        _check_inputs(network, comparison)
    return comparison


def _watch(network: DepthAnything3):
    """Hook everything the fixture stores; the returned function unhooks and names what was seen."""
    names = [f"backbone.blocks.{k}" for k in range(12)] + ["cam_enc"]
    names += [f"head.pyramid.{kind}.{k}" for kind in ("projects", "levels") for k in range(4)]
    names += [f"head.{chain}.stages.{k}" for chain in ("fusion", "ray_fusion") for k in range(4)]
    names += ["head.output1", "head.ray_output1", "head.output2", "head.ray_output2"]
    seen, hooks = capture(network, names)
    inputs: dict[str, Tensor] = {}

    def keep_input(name: str, module: nn.Module):
        def keep(_module: nn.Module, args: tuple) -> None:
            inputs[name] = args[0].detach().clone()

        hooks.append(module.register_forward_pre_hook(keep))

    keep_input("tokens_in", network.backbone.blocks[0])
    keep_input("block4_in", network.backbone.blocks[4])
    taps = network.backbone.taps
    network.backbone.taps = lambda *args: inputs.setdefault("all", taps(*args))  # type: ignore[method-assign]

    def finish() -> dict:
        for hook in hooks:
            hook.remove()
        del network.backbone.taps
        named = {"taps": inputs["all"][0], "camera": inputs["all"][1], **{k: inputs[k] for k in ("tokens_in", "block4_in")}}
        for k in range(12):
            tokens = seen[f"backbone.blocks.{k}"][0]
            named[f"block{k}"] = tokens if tokens.shape[0] > 1 else tokens.unflatten(1, (-1, named["tokens_in"].shape[1]))[0]
        for k in range(4):
            named[f"proj{k + 1}"] = seen[f"head.pyramid.projects.{k}"][0]
            named[f"l{k + 1}_rn"] = seen[f"head.pyramid.levels.{k}"][0]
            named[f"ref{k + 1}"] = seen[f"head.fusion.stages.{k}"][0]
            named[f"ref{k + 1}_aux"] = seen[f"head.ray_fusion.stages.{k}"][0]
        named["out_conv1"], named["out_conv1_aux3"] = seen["head.output1"][0], seen["head.ray_output1"][0]
        named["logits"], named["aux_logits"] = seen["head.output2"][0], seen["head.ray_output2"][0]
        if seen["cam_enc"]:
            named["cam_enc"] = seen["cam_enc"][0]
        return named

    return finish


def _check_inputs(network: DepthAnything3, comparison: Comparison) -> None:
    """Compare the inputs, the position table and the normalised cameras."""
    stored = comparison.stored
    corner = image_levels(3, HEIGHT, WIDTH, TAG)
    assert (corner[tuple(slice(0, n) for n in stored["input_k_v3_corner"].shape)] == stored["input_k_v3_corner"]).all()
    comparison.check("input_norm_v3_s14", normalise(images(3, HEIGHT, WIDTH, TAG))[:, :, ::14, ::14])
    table = resize_positions(network.backbone.pos_embed, HEIGHT // 14, WIDTH // 14, antialias=False)
    comparison.check("pos_table_t16", table[0, ::16])
    T_cam_world, K = known_cameras()
    comparison.check("cameras_w2c_raw", T_cam_world)
    comparison.check("cameras_K_pixels", K)
    comparison.check("cameras_w2c_normalised", relative_and_scaled(T_cam_world))
