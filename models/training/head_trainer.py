"""Train the splat head on procedural worlds whose depth is spoilt in the ways real depth sources are.

Input: ``HeadTrainConfig``, a rasteriser and a depth network (both passed in). Output: ``head.safetensors``, ``head.jsonl`` and
its ``curves.svg``.
Does not: import the rasteriser, or train the depth network.

Each step photographs a world, takes depth from the network or from the truth made worse, fuses it as ``recon.fuse`` does, draws
the input views and held-out views, and follows the colour error back to the head.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from recon.fuse import FuseConfig, SplatAttributes, all_evidence, cut_layers, layer_to_gaussians
from recon.fusing.evidence import at_photo_size
from recon.fusing.shell import build_shell
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Gaussians, Prediction, Rasterizer, RasterOptions

from ..head import HeadConfig, HeadNetwork
from .curves import draw_curves
from .textures import load_textures
from .trainer import HELD_OUT_TEXTURES
from .worlds import Capture, Worlds

__all__ = ["HeadTrainConfig", "capture_to_posed", "splat_capture", "spoil_depth", "train_head"]

INPUT_VIEWS, TARGET_VIEWS = 4, 2
SOURCES = ("network", "noise", "smooth", "scale", "missing")
"""Where a step's depth comes from."""
SOURCE_SHARES = (0.5, 0.15, 0.15, 0.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class HeadTrainConfig:
    """One stretch of head training."""

    out: Path
    """Folder for weights and log."""
    minutes: float = 10.0
    """Wall time."""
    textures: Path | None = None
    """Texture pack; None trains on generated textures alone."""
    threads: int = 1
    """Torch threads."""
    seed: int = 0
    """Seed of worlds and weights."""
    learning_rate: float = 2.0e-3
    """Peak of the linear decay by time."""
    size: tuple[int, int] = (128, 160)
    """Height and width of the photos in pixels."""
    max_steps: int | None = None
    """Stop after this many steps; None stops by time alone."""


def capture_to_posed(capture: Capture, indices: Sequence[int]) -> PosedViews:
    """Present some views of a capture as posed photos."""
    images = [torch.from_numpy(capture.images[i]).float() for i in indices]
    height, width = images[0].shape[:2]
    cameras = Cameras(
        T_world_cam=torch.from_numpy(capture.T_world_cam[list(indices)]).double(),
        K=torch.from_numpy(capture.K[list(indices)]).double(),
        width=(width,) * len(images),
        height=(height,) * len(images),
    )
    valid = torch.ones(height, width, dtype=torch.bool)
    return PosedViews(names=tuple(str(i) for i in indices), cameras=cameras, read=lambda i: (images[i], valid))


def spoil_depth(depth: Float[Tensor, "h w"], source: str, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Make exact depth worse in one of the ways of real sources; return it with a confidence that knows some of it."""
    noise = torch.from_numpy(rng.normal(size=(2, *depth.shape))).float()
    spoilt = depth * (1 + rng.uniform(0.002, 0.02) * noise[0])
    if source == "smooth":  # flying pixels at edges
        reach = int(rng.integers(1, 4))
        spoilt = 1 / F.avg_pool2d(1 / spoilt[None], 2 * reach + 1, 1, reach, count_include_pad=False)[0]
    elif source == "scale":
        spoilt = spoilt * float(np.exp(rng.normal(0, 0.02)))
    elif source == "missing":
        blobs = F.interpolate(torch.from_numpy(rng.random((1, 1, 6, 8))).float(), size=depth.shape, mode="bilinear")[0, 0]
        wrong = blobs > rng.uniform(0.55, 0.8)
        spoilt = torch.where(wrong, spoilt * torch.exp(0.5 * noise[1]), spoilt)
    error = (spoilt / depth - 1).abs()
    confidence = torch.sigmoid(3 - error / 0.01 + rng.uniform(0, 1.5) * noise[1])
    if rng.random() < 0.15:  # a source that does not know itself
        confidence = torch.full_like(confidence, 0.6)
    return spoilt, confidence.clamp(0.01, 0.99)


def predict_capture(capture: Capture, posed: PosedViews, predictor, rng: np.random.Generator) -> Prediction:
    """Depth for the input views, from the network or from the truth made worse."""
    views = len(posed)
    source = str(rng.choice(SOURCES, p=SOURCE_SHARES))
    if predictor is None and source == "network":
        source = "noise"
    ranges = torch.from_numpy(capture.depth_range[:views]).float()
    if predictor is not None and source == "network":
        others = tuple(tuple(j for j in range(views) if j != i) for i in range(views))
        return predictor(posed, others, ranges, Progress())
    far = float(ranges[:, 1].max()) * 3
    pairs = [spoil_depth(torch.from_numpy(capture.depth[2][i]).clamp(max=far), source, rng) for i in range(views)]
    height, width = pairs[0][0].shape
    cameras = posed.cameras.resized(width, height)
    return Prediction(cameras=cameras, depth=tuple(p[0] for p in pairs), confidence=tuple(p[1] for p in pairs))


def splat_capture(posed: PosedViews, prediction: Prediction, head: HeadNetwork, config: FuseConfig) -> Gaussians | None:
    """Fuse as ``recon.fuse.fuse`` does, keeping the head's gradients; None when nothing supports any depth."""
    size = (posed.cameras.height[0], posed.cameras.width[0])
    with torch.no_grad():
        depth = [at_photo_size(d, *size, inverse=True) for d in prediction.depth]
        confidence = [at_photo_size(c, *size, inverse=False) for c in prediction.confidence]
        evidence = all_evidence(posed, depth, confidence, config, Progress())
    outputs = head(
        torch.stack([posed.image(i) for i in range(len(posed))]),
        torch.stack([e.depth for e in evidence]),
        torch.stack(confidence),
        torch.stack([e.residuals for e in evidence]),
    )
    names = ("opacity", "log_scale", "color_delta", "importance")
    attributes = [SplatAttributes(**dict(zip(names, maps, strict=True))) for maps in zip(*outputs, strict=True)]
    with torch.no_grad():
        budget = config.max_gaussians or size[0] * size[1] // 3
        layers = cut_layers(posed, evidence, [a.importance for a in attributes], budget, config)
        shell = build_shell(posed, depth, [e.trust for e in evidence], count=config.shell, radius_factor=config.shell_radius)
    parts = [layer_to_gaussians(layer, attributes[layer.leaves.view], config) for layer in layers if len(layer.leaves)]
    if not parts:
        return None
    return Gaussians.concatenate([*parts, shell] if shell is not None else parts)


def train_head(config: HeadTrainConfig, rasterizer: Rasterizer, predictor=None) -> Path:
    """Train for the given time and return the path of the averaged fp16 weights.

    Args:
        rasterizer: differentiable in the Gaussians.
        predictor: depth network that half of the steps take their depth from; None uses spoilt truth alone.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures)[HELD_OUT_TEXTURES:] if config.textures else None
    worlds = Worlds(textures, config.seed + 500_000)
    head, fuse_config = HeadNetwork(), FuseConfig(shell=300, recolor_steps=0)
    average = HeadNetwork()
    average.load_state_dict(head.state_dict())
    optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate)
    began, step, recent = time.perf_counter(), 0, []
    with (config.out / "head.jsonl").open("a") as journal:
        while (elapsed := (time.perf_counter() - began) / (60 * config.minutes)) < 1 and step != config.max_steps:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - 0.95 * elapsed)
            loss = _head_step(head, worlds, rasterizer, predictor, fuse_config, config.size)
            if loss is None:
                continue
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            if bool(torch.isfinite(norm)):
                optimizer.step()
            step += 1
            with torch.no_grad():
                decay = min(0.99, step / (step + 10))
                torch._foreach_lerp_(list(average.parameters()), list(head.parameters()), 1 - decay)
            recent.append(float(loss.detach()))
            if step % 20 == 0:
                record = {"step": step, "minutes": round(elapsed * config.minutes, 2), "loss": float(np.mean(recent[-20:]))}
                journal.write(json.dumps({**record, "rule": head.rule.tolist()}) + "\n")
                journal.flush()
                save_head(average, config.out / "head.safetensors")
                draw_curves(config.out / "head.jsonl")
    return save_head(average, config.out / "head.safetensors")


def save_head(head: HeadNetwork, path: Path) -> Path:
    """Write fp16 weights with their sizes."""
    sizes = {f.name: str(getattr(head.config, f.name)) for f in fields(HeadConfig)}
    save_file({name: value.half().contiguous() for name, value in head.state_dict().items()}, path, metadata=sizes)
    return path


def _head_step(
    head: HeadNetwork, worlds: Worlds, rasterizer: Rasterizer, predictor, fuse_config: FuseConfig, size: tuple[int, int]
) -> Tensor | None:
    """Colour loss of one world at input and held-out views; None when its views share nothing."""
    capture = worlds.capture(INPUT_VIEWS + TARGET_VIEWS, *size)
    order = [int(i) for i in worlds.rng.permutation(INPUT_VIEWS + TARGET_VIEWS)]
    shuffled = Capture(
        capture.images[order],
        capture.K[order],
        capture.T_world_cam[order],
        {cell: z[order] for cell, z in capture.depth.items()},
        capture.depth_range[order],
        capture.style,
    )
    inputs = capture_to_posed(shuffled, range(INPUT_VIEWS))
    everything = capture_to_posed(shuffled, range(INPUT_VIEWS + TARGET_VIEWS))
    prediction = predict_capture(shuffled, inputs, predictor, worlds.rng)
    gaussians = splat_capture(inputs, prediction, head, fuse_config)
    if gaussians is None:
        return None
    shown = [int(worlds.rng.integers(INPUT_VIEWS)), *range(INPUT_VIEWS, INPUT_VIEWS + TARGET_VIEWS)]
    drawn = rasterizer(gaussians, everything.cameras.select(shown).to("cpu"), RasterOptions()).color
    return color_loss(drawn, torch.stack([everything.image(i) for i in shown]).to(drawn.dtype))
