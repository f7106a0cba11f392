"""Train the built-in depth network for a given number of minutes on whatever machine there is.

Input: ``TrainConfig``. Output: a folder with ``mini.safetensors`` (averaged, fp16), a checkpoint and ``log.jsonl``.
Does not: read photos or pictures; worlds are made on the fly and textures come packed.
Usage: python -m models.training.trainer --minutes 50 --out DIR --textures PACK.npz
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.records import Cameras, Rasterizer

from ..mini import MiniNetwork, MiniOutput, normalize_photo
from ..mini_predictor import MiniPredictor
from ..precision import autocast_dtype, to_channels_last
from .drawn_depth import Depicted, half_size, pull, shared_surface
from .ingredients import without
from .losses import Target, depth_loss, depth_metrics, normal_loss, target_position
from .makers import APART
from .real_scenes import RealScene, depth_on_photos, load_scenes
from .stretch import Stretch, begin_with, go_last, made_in_background, run_stretch, stretch_parser, update
from .textures import load_textures
from .worlds import Capture, Worlds

__all__ = ["TrainConfig", "main", "train"]

log = logging.getLogger(__name__)
SIZES = ((192, 256), (256, 192), (256, 320), (320, 416))
SIZE_SHARES = (0.4, 0.15, 0.3, 0.15)
"""Height and width of training photos, and how often each is used. Below 160 pixels the planes lie closer together than
features at 1/8 can tell apart."""
HELD_OUT_TEXTURES = 20


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Stretch):
    """One stretch of training of the depth network."""

    captures: int | None = None
    """Worlds per step; None takes one on a CPU, 8 with CUDA."""
    references: int = 2
    """Reference views per world and step."""
    without: str = ""
    """Ingredients of worlds to leave out, by name with commas between: an ablation. Held-out worlds keep all of them."""
    normals: float = 0.0
    """Weight of the loss on surface normals."""
    colours: float = 0.0
    """Weight of the colour loss of an input photo and of one that is held out, drawn from the predicted depth. 0 draws nothing."""
    count: float = 0.0
    """Of the head: weight of the loss that teaches where Gaussians are worth having, at another budget each step; 30 pulls about as
    much as the colours do. 0 leaves that to the rule."""
    scenes: Path | None = None
    """Pack of real scenes (`python -m data.pack_training`) by which a stretch is judged, too; None takes held-out worlds alone."""

    @property
    def worlds_per_step(self) -> int:
        """Worlds of a step, on this device."""
        return self.captures or (8 if self.on_cuda else 1)


@dataclass(frozen=True)
class Batch:
    """B captures of one size with the choice of reference views and neighbours."""

    captures: list[Capture]
    references: np.ndarray
    """``B R`` view indices."""
    neighbours: np.ndarray
    """``B R S`` view indices."""
    hidden: np.ndarray | None = None
    """``B`` indices of views that are neither reference nor neighbour; None where there are none."""


def make_batch(
    worlds: Worlds, captures: int, references: int, *, views: int, size: tuple[int, int], neighbours: int, hide: bool = False
) -> Batch:
    """Photograph new worlds and pick reference views and neighbours at random.

    Args:
        hide: take one more photo of each world, which is neither.
    """
    made = [worlds.capture(views + hide, *size) for _ in range(captures)]
    hidden = worlds.rng.integers(views + 1, size=captures) if hide else None
    refs = np.stack([worlds.rng.permutation(views)[: min(references, views)] for _ in made])
    others = np.stack([[worlds.rng.permutation([v for v in range(views) if v != r])[:neighbours] for r in row] for row in refs])
    if hidden is not None:  # step over the hidden one
        refs, others = refs + (refs >= hidden[:, None]), others + (others >= hidden[:, None, None])
    return Batch(made, refs, others, hidden)


def batches(config: TrainConfig, textures: np.ndarray | None, seed: int) -> Generator[Batch, None, None]:
    """Yield random batches made in the background."""
    draws_here = config.colours > 0 and not config.on_cuda
    return made_in_background(partial(batch_maker, config, textures, seed), config.maker_count, apart=draws_here)


def batch_maker(config: TrainConfig, textures: np.ndarray | None, seed: int, number: int) -> Callable[[], Batch]:
    """What makes one batch after the other, others for every number."""
    wanted = without(name.strip() for name in config.without.split(",") if name.strip())
    worlds, hide = Worlds(textures, seed + APART * number, wanted, cast=config.cast), config.colours > 0

    def make() -> Batch:
        views = int(worlds.rng.integers(3, 6))
        size = SIZES[int(worlds.rng.choice(len(SIZES), p=SIZE_SHARES))]
        near = max(int(worlds.rng.integers(1, views)), min(2, views - 1))
        return make_batch(worlds, config.worlds_per_step, config.references, views=views, size=size, neighbours=near, hide=hide)

    return make


def run_network(network: MiniNetwork, batch: Batch, device: str) -> tuple[MiniOutput, dict[int, Tensor], Tensor]:
    """Encode every photo once, then estimate every chosen reference view."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(c, name) for c in batch.captures])).to(device).float()

    images, K, T_world_cam, ranges = stack("images"), stack("K"), stack("T_world_cam"), stack("depth_range")
    count, views = images.shape[:2]
    rows = torch.arange(count)[:, None] * views
    refs = (rows + torch.from_numpy(batch.references)).flatten().to(device)
    sources = (rows[..., None] + torch.from_numpy(batch.neighbours)).flatten(0, 1).to(device)
    K, T_world_cam = K.flatten(0, 1), T_world_cam.flatten(0, 1)
    dtype = autocast_dtype(device)
    with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
        features = network.encode(normalize_photo(images.flatten(0, 1)))
        output = network(
            {name: value[refs] for name, value in features.items()},
            features["match8"][sources],
            features["match4"][sources],
            (K[refs], T_world_cam[refs], K[sources], T_world_cam[sources]),
            ranges.flatten(0, 1)[refs],
        )
    depth = {
        cell: torch.from_numpy(np.stack([c.depth[cell] for c in batch.captures])).to(device).flatten(0, 1)[refs]
        for cell in (2, 4, 8)
    }
    return output, depth, ranges.flatten(0, 1)[refs]


def half_size_K(batch: Batch) -> Tensor:
    """``K`` of every chosen reference view in pixels of the network's depth maps, which are half as large as photos."""
    K = np.concatenate([capture.K[chosen] for capture, chosen in zip(batch.captures, batch.references, strict=True)])
    return torch.from_numpy(K).float() * torch.tensor([0.5, 0.5, 1.0])[:, None]


def depicted(batch: Batch, output: MiniOutput, target: Target, device: str) -> list[Depicted]:
    """Every reference view with the photos to draw from its depth: one of its neighbours, and the hidden view of its world.

    Raises:
        ValueError: the batch hides no views.
    """
    if batch.hidden is None:
        raise ValueError("colours: wanted a batch with hidden views (make_batch(..., hide=True)), got one without")
    solid = target.valid[2] & (target.position[2] > 0)
    confidence, found = output.confidence_logit.detach().float().sigmoid(), []
    for world, capture in enumerate(batch.captures):
        photos = half_size(torch.from_numpy(capture.images).to(device).float())
        K = torch.from_numpy(capture.K).to(device).float() * torch.tensor([0.5, 0.5, 1.0], device=device)[:, None]
        T_world_cam = torch.from_numpy(capture.T_world_cam).to(device).float()
        depth = torch.from_numpy(capture.depth[2]).to(device).float()
        for ref, others in zip(batch.references[world], batch.neighbours[world], strict=True):
            shown = [int(others[0]), int(batch.hidden[world])]
            size = (photos.shape[2],) * len(shown), (photos.shape[1],) * len(shown)
            cameras = Cameras(T_world_cam=T_world_cam[shown], K=K[shown], width=size[0], height=size[1])
            found.append(
                Depicted(
                    photo=photos[ref],
                    confidence=confidence[len(found)],
                    solid=solid[len(found)],
                    K=K[ref],
                    T_world_cam=T_world_cam[ref],
                    target_photos=photos[shown],
                    target_cameras=cameras,
                    shared=shared_surface(depth[shown], cameras, depth[ref], K[ref], T_world_cam[ref]),
                )
            )
    return found


def exact_normals(batch: Batch) -> Tensor:
    """Normals of every chosen reference view, ``B h w 3``, at half the size of photos."""
    chosen = [c.normals[r] for c, r in zip(batch.captures, batch.references, strict=True) if c.normals is not None]
    return torch.from_numpy(np.concatenate(chosen))


@torch.no_grad()
def validate(network: Any, held_out: list[Batch], device: str, scenes: Sequence[RealScene] = ()) -> dict[str, float]:
    """Average metrics over held-out worlds, and over real scenes where there are any."""
    network.eval()
    totals: dict[str, list[float]] = {}
    for batch in held_out:
        output, depth, depth_range = run_network(network, batch, device)
        target = target_position(depth, depth_range, network.config.planes)
        predicted = network.depth(output.position, depth_range)
        for name, value in depth_metrics(output, depth[2], predicted, target).items():
            totals.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in totals.items()} | depth_on_photos(
        MiniPredictor(network, device), scenes
    )


def held_out_batches(textures: np.ndarray | None, count: int) -> list[Batch]:
    """Pairs of worlds of fixed seeds and textures that training never sees; of two sizes."""
    worlds = Worlds(textures, seed=990_001)
    sizes = ((192, 256), (256, 320))
    return [make_batch(worlds, 2, 2, views=5, size=sizes[i % 2], neighbours=4) for i in range(count)]


def check_colours(config: TrainConfig, rasterizer: Rasterizer | None) -> None:
    """Whether what is to be drawn can be.

    Raises:
        ValueError: there is nothing to draw with.
    """
    if config.colours > 0 and rasterizer is None:
        raise ValueError(f"colours: {config.colours:g} wants a rasterizer to draw with, got None; 'recon train mini' has one")


def train(config: TrainConfig, rasterizer: Rasterizer | None = None) -> Path:
    """Run one time-boxed stretch and return the path of the averaged fp16 weights.

    Args:
        rasterizer: differentiable in the Gaussians, on the device of the stretch; needed where ``config.colours`` is not 0.

    Raises:
        ValueError: colours are wanted and there is no rasteriser.
    """
    check_colours(config, rasterizer)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures) if config.textures else None
    seen, unseen = (None, None) if textures is None else (textures[HELD_OUT_TEXTURES:], textures[:HELD_OUT_TEXTURES])
    network = to_channels_last(MiniNetwork()).to(config.device)
    if config.start is not None:
        begin_with(config.start, network)
    held_out = held_out_batches(unseen, max(1, config.validation_worlds // 2))
    scenes = load_scenes(config.scenes) if config.scenes else []

    def step_of(batch: Batch, average: torch.nn.Module, optimizer: Any, step: int, elapsed: float) -> dict[str, float]:
        return train_step(network, average, optimizer, batch, step, config=config, settled=elapsed > 0.75, rasterizer=rasterizer)

    return run_stretch(
        config,
        "mini",
        network,
        source=lambda step: batches(config, seen, config.seed + 1000 * (step + 1)),
        step_of=step_of,
        validate=lambda average: validate(average, held_out, config.device, scenes),
        warm_up=100,
    )


def train_step(
    network: MiniNetwork,
    average: torch.nn.Module,
    optimizer,
    batch: Batch,
    step: int,
    *,
    config: TrainConfig,
    settled: bool = False,
    rasterizer: Rasterizer | None = None,
) -> dict[str, float]:
    """One update of the network and of its moving average.

    Args:
        config: says what the loss is made of.
        settled: batch statistics stay as they are.
        rasterizer: what draws where ``config.colours`` is not 0.
    """
    network.train()
    if settled:  # the last quarter sees the statistics that inference will use
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                module.eval()
    output, depth, depth_range = run_network(network, batch, config.device)
    target = target_position(depth, depth_range, network.config.planes)
    predicted = network.depth(output.position.float(), depth_range)
    loss, parts = depth_loss(output, target, network.config)
    if config.normals > 0:
        solid = target.valid[2] & (target.position[2] > 0)
        K, true = half_size_K(batch).to(config.device), exact_normals(batch).to(config.device)
        turned = normal_loss(predicted, depth[2], true, solid, K)
        loss, parts = loss + config.normals * turned, {**parts, "normals": float(turned.detach())}
    if config.colours > 0:
        check_colours(config, rasterizer)
        assert rasterizer is not None
        seen = pull(predicted, depicted(batch, output, target, config.device), rasterizer)
        parts["colours"] = math.nan if seen is None else float(seen.detach())
        loss = loss if seen is None else loss + config.colours * seen
    norm = update(network, average, optimizer, loss, step)
    return {"loss": float(loss.detach()), "gradient_norm": norm, **parts}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = stretch_parser(__doc__, TrainConfig)
    parser.add_argument("--captures", type=int, default=TrainConfig.captures, help="worlds of a step")
    parser.add_argument("--without", default=TrainConfig.without, help="ingredients of worlds to leave out, with commas between")
    parser.add_argument("--normals", type=float, default=TrainConfig.normals, help="weight of the loss on surface normals")
    parser.add_argument("--scenes", type=Path, default=None, help="pack of real scenes to judge by, of data/pack_training.py")
    parser.add_argument("--plan", action="store_true", help="foretell what the stretch will see, and train nothing")
    given = vars(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    go_last(given["device"])
    if given.pop("plan"):
        from .plan import plan_stretch

        log.info("%s", plan_stretch(TrainConfig(**given)))
        return 0
    train(TrainConfig(**given))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
