"""Train the splat head on procedural worlds whose depth is spoilt in the ways real depth sources are.

Input: ``HeadTrainConfig``, a rasteriser and a depth network (both passed in). Output: a folder with ``head.safetensors`` (averaged,
fp16), a checkpoint and ``log.jsonl``.
Does not: import the rasteriser, or train the depth network.

Each step photographs a world, takes depth from the network or from the truth made worse, fuses it as ``recon.fuse`` does, draws
the input views and held-out views, and follows the colour error back to the head. With CUDA the depth network, the head and the
rasteriser work on the GPU; depth is checked and blocks are cut on the CPU, whose kernels do that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.fuse import FuseConfig
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Gaussians, Prediction, Rasterizer, RasterOptions
from recon.refining import Updater

from ..head import HeadNetwork, LearnedSplatHead
from .described import cut_capture, cut_capture_softly, describe_capture, settle, splat_capture
from .losses import color_loss
from .makers import APART
from .real_scenes import HeadExam, load_scenes
from .stretch import Stretch, begin_with, made_in_background, run_stretch, update
from .textures import load_textures
from .trainer import HELD_OUT_TEXTURES
from .worlds import Capture, Worlds

__all__ = ["HeadTrainConfig", "capture_to_posed", "head_step", "made_worlds", "spoil_depth", "train_head"]

INPUT_VIEWS, TARGET_VIEWS = 4, 2
SOURCES = ("network", "noise", "smooth", "scale", "missing")
"""Where a step's depth comes from."""
SOURCE_SHARES = (0.5, 0.15, 0.15, 0.1, 0.1)
FUSE = FuseConfig(shell=300, recolor_steps=0)
BUDGETS = (0.005, 0.05)
"""Gaussians over pixels of all input photos where the cut is learnt, drawn evenly in logarithms: one head serves all budgets.
20,000 for a dozen photos of 640 pixels are 0.5%, 200,000 are 5%."""
EXAM_BUDGETS = (0.006, 0.015, 0.04)
ROUNDS = 2
"""Rounds of refinement before a scene that was cut softly is judged."""
MEMORY = 0.99
"""Share of the moving average that stays at each step: a stretch has hundreds of them, not thousands."""


@dataclass(frozen=True, kw_only=True)
class HeadTrainConfig(Stretch):
    """One stretch of head training."""

    minutes: float = 10.0
    validation_worlds: int = 8
    size: tuple[int, int] = (128, 160)
    """Height and width of the photos in pixels."""
    scenes: Path | None = None
    """Pack of real scenes, whose held-out photos are drawn at validation; None takes held-out worlds alone."""

    count: float = 0.0
    """Weight of the loss that teaches where Gaussians are worth having, at another budget each step; 0 leaves that to the rule.
    With 30 its gradient is about as long as that of the colours."""

    usual_rate: ClassVar[float] = 2.0e-3


def shuffled(capture: Capture, rng: np.random.Generator) -> Capture:
    """The same photos in another order, so that those held out lie anywhere on the path."""
    order = [int(i) for i in rng.permutation(len(capture.images))]
    return Capture(
        capture.images[order],
        capture.K[order],
        capture.T_world_cam[order],
        {cell: z[order] for cell, z in capture.depth.items()},
        capture.depth_range[order],
        capture.style,
    )


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


def predict_capture(
    capture: Capture, posed: PosedViews, predictor, rng: np.random.Generator, source: str | None = None
) -> Prediction:
    """Depth for the input views, from the network or from the truth made worse.

    Args:
        source: one of SOURCES; None draws one.
    """
    views = len(posed)
    source = source or str(rng.choice(SOURCES, p=SOURCE_SHARES))
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


@dataclass(frozen=True)
class Lesson:
    """A world with depth of its input views."""

    inputs: PosedViews
    everything: PosedViews
    """Input photos, then held-out ones."""
    prediction: Prediction

    @property
    def held_out(self) -> range:
        """Which of the photos no Gaussian was made of."""
        return range(len(self.inputs), len(self.everything))


def make_lesson(capture: Capture, predictor, rng: np.random.Generator, source: str | None = None) -> Lesson:
    """Give a world's input views depth from one of SOURCES; None draws one."""
    views = len(capture.images)
    inputs, everything = capture_to_posed(capture, range(views - TARGET_VIEWS)), capture_to_posed(capture, range(views))
    return Lesson(inputs, everything, predict_capture(capture, inputs, predictor, rng, source))


def head_maker(config: HeadTrainConfig, textures: np.ndarray | None, seed: int, number: int) -> Callable[[], Capture]:
    """What photographs one world after the other, others for every number."""
    worlds = Worlds(textures, seed + APART * number, cast=config.cast)

    def make() -> Capture:
        return shuffled(worlds.capture(INPUT_VIEWS + TARGET_VIEWS, *config.size), worlds.rng)

    return make


def made_worlds(config: HeadTrainConfig, textures: np.ndarray | None, seed: int) -> Generator[Capture, None, None]:
    """Yield worlds made in the background."""
    return made_in_background(partial(head_maker, config, textures, seed), config.maker_count, apart=not config.on_cuda)


def draw(gaussians: Gaussians, lesson: Lesson, shown: Sequence[int], rasterizer: Rasterizer, device: str) -> tuple[Tensor, Tensor]:
    """Pictures of some views and their photos, on the device."""
    cameras = lesson.everything.cameras.select(shown).to(device)
    drawn = rasterizer(gaussians.to(device), cameras, RasterOptions()).color
    return drawn, torch.stack([lesson.everything.image(i) for i in shown]).to(drawn)


def head_step(
    capture: Capture,
    average: HeadNetwork,
    optimizer,
    step: int,
    share: float = 0.0,
    *,
    head: HeadNetwork,
    rasterizer: Rasterizer,
    predictor,
    rng: np.random.Generator,
    device: str = "cpu",
    count: float = 0.0,
    updater: Updater | None = None,
) -> dict[str, float]:
    """One update of the head and of its moving average, on one input view and the held-out views of a world.

    Args:
        count: as in ``HeadTrainConfig``.
        updater: refines what is cut softly before it is judged; None judges it as it is.
    """
    lesson = make_lesson(capture, predictor, rng)
    shown = [int(rng.integers(len(lesson.inputs))), *lesson.held_out]
    config = budgeted(lesson, float(np.exp(rng.uniform(*np.log(BUDGETS))))) if count else FUSE
    described = describe_capture(lesson.inputs, lesson.prediction, head, FUSE, device)
    gaussians = cut_capture(described, config)
    if gaussians is None:  # the views share nothing
        return {}
    loss = color_loss(*draw(gaussians, lesson, shown, rasterizer, device))
    parts = {"loss": float(loss.detach())}
    partly = cut_capture_softly(described, config) if count else None
    if partly is not None:
        partly = partly.to(device)
        if updater is not None:
            partly = settle(partly, lesson.inputs, rasterizer, updater, ROUNDS)
        worth = color_loss(*draw(partly, lesson, shown[1:], rasterizer, device))
        parts["cut"] = float(worth.detach())
        loss = loss + count * worth
    return parts | {"gradient_norm": update(head, average, optimizer, loss, step, memory=MEMORY)}


def budgeted(lesson: Lesson, share: float) -> FuseConfig:
    """How to fuse a lesson with so many Gaussians over pixels of its input photos."""
    pixels = sum(h * w for h, w in zip(lesson.inputs.cameras.height, lesson.inputs.cameras.width, strict=True))
    return replace(FUSE, max_gaussians=round(share * pixels))


def held_out_lessons(textures: np.ndarray | None, size: tuple[int, int], count: int, predictor) -> list[Lesson]:
    """Worlds of fixed seeds and textures that training never sees; depth is the network's, or without one the truth with noise."""
    worlds, rng, found = Worlds(textures, 990_004), np.random.default_rng(0), []
    while len(found) < count:
        capture = shuffled(worlds.capture(INPUT_VIEWS + TARGET_VIEWS, *size), worlds.rng)
        lesson = make_lesson(capture, predictor, rng, source="noise" if predictor is None else "network")
        if splat_capture(lesson.inputs, lesson.prediction, HeadNetwork(), FUSE) is not None:
            found.append(lesson)
    return found


@torch.no_grad()
def validate(head: Any, held_out: list[Lesson], exam: HeadExam, rasterizer: Rasterizer, device: str) -> dict[str, float]:
    """Colour loss and PSNR of held-out views of held-out worlds, and PSNR of held-out real photos, on average."""
    losses, decibels = [], []
    for lesson in held_out:
        gaussians = splat_capture(lesson.inputs, lesson.prediction, head, FUSE, device)
        assert gaussians is not None  # what supports depth does not depend on the head
        drawn, photos = draw(gaussians, lesson, lesson.held_out, rasterizer, device)
        losses.append(float(color_loss(drawn, photos)))
        decibels.append(mean_psnr(drawn, photos))
    found = {"loss": float(np.mean(losses)), "psnr": float(np.mean(decibels))}
    real = exam.psnr(LearnedSplatHead(head, device))
    if real is not None:
        found["photos_psnr"] = real
    return {name: round(value, 4) for name, value in found.items()}


@torch.no_grad()
def validate_cut(
    head: Any, held_out: list[Lesson], rasterizer: Rasterizer, updater: Updater | None, device: str
) -> dict[str, float]:
    """PSNR of held-out views of worlds at three budgets, cut as the head says and, with the same head, by the rule alone."""
    found: dict[str, list[float]] = {}
    for lesson in held_out:
        described = describe_capture(lesson.inputs, lesson.prediction, head, FUSE, device)
        flat = [replace(a, importance=torch.ones_like(a.importance)) for a in described.attributes]
        for share in EXAM_BUDGETS:
            for name, item in (("learnt", described), ("flat", replace(described, attributes=flat))):
                gaussians = cut_capture(item, budgeted(lesson, share))
                assert gaussians is not None
                gaussians = gaussians.to(device)
                if updater is not None:
                    gaussians = settle(gaussians, lesson.inputs, rasterizer, updater, updater.rounds)
                drawn, photos = draw(gaussians, lesson, lesson.held_out, rasterizer, device)
                found.setdefault(f"{name}_{share:.1%}", []).append(mean_psnr(drawn, photos))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def mean_psnr(drawn: Tensor, photos: Tensor) -> float:
    """PSNR of pictures, averaged over them."""
    return float((-10 * torch.log10(((drawn.clamp(0, 1) - photos) ** 2).mean(dim=(1, 2, 3)) + 1e-8)).mean())


def train_head(config: HeadTrainConfig, rasterizer: Rasterizer, predictor=None, updater: Updater | None = None) -> Path:
    """Run one time-boxed stretch and return the path of the averaged fp16 weights.

    Args:
        rasterizer: differentiable in the Gaussians, on the device of the stretch.
        predictor: depth network that half of the steps take their depth from; None uses spoilt truth alone.
        updater: refines scenes by which the cut is learnt (``config.count``), as the product does; None judges them unrefined.

    Raises:
        ValueError: ``config.scenes`` holds no scenes, or comes without a predictor; or the weights to begin with are not a head's.
    """
    if config.scenes is not None and predictor is None:
        raise ValueError("scenes: wanted a predictor for the depth of their photos, got None")
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures) if config.textures else None
    seen, unseen = (None, None) if textures is None else (textures[HELD_OUT_TEXTURES:], textures[:HELD_OUT_TEXTURES])
    head = HeadNetwork().to(config.device)
    exam = HeadExam(load_scenes(config.scenes) if config.scenes else [], predictor, rasterizer, config.device)
    held_out = held_out_lessons(unseen, config.size, config.validation_worlds, predictor)
    rule = validate(HeadNetwork().to(config.device), held_out, exam, rasterizer, config.device)
    rule = {f"rule_{name}": value for name, value in rule.items()}
    to_cut = held_out_lessons(unseen, config.size, config.validation_worlds, None) if config.count else []
    if config.start is not None:
        begin_with(config.start, head)
    tools = {"head": head, "rasterizer": rasterizer, "predictor": predictor, "device": config.device}
    tools |= {"count": config.count, "updater": updater}
    return run_stretch(
        config,
        "head",
        head,
        source=lambda step: made_worlds(config, seen, config.seed + 500_000 + 1000 * step),
        step_of=partial(head_step, rng=np.random.default_rng(config.seed), **tools),
        validate=lambda average: (
            rule
            | validate(average, held_out, exam, rasterizer, config.device)
            | validate_cut(average, to_cut, rasterizer, updater, config.device)
        ),
        warm_up=20,
    )
