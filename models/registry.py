"""Find networks by name: the shipped weights, published weights on this machine, weights from a file, or random ones.

Input: names and paths. Output: ready predictors and heads.
Does not: run them, or download anything; ``models.checkpoints`` does that for published networks.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from recon.errors import UserError
from recon.fuse import SplatHead
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Prediction, Views

from .camera_network import CameraConfig, CameraNetwork
from .head import HeadConfig, HeadNetwork, LearnedSplatHead
from .learned_cameras import LearnedCameras
from .learned_matcher import LearnedMatcher
from .matcher import MatcherConfig, MatcherNetwork
from .mini import MiniConfig, MiniNetwork
from .mini_predictor import MiniPredictor
from .plane_sweep import PlaneSweepPredictor
from .refiner import LearnedUpdater, RefinerConfig, RefinerNetwork

__all__ = [
    "CameraPredictor",
    "DepthPredictor",
    "camera_models",
    "depth_models",
    "load_camera_predictor",
    "load_matcher",
    "load_predictor",
    "load_splat_head",
    "load_updater",
    "require_camera_model",
    "require_model",
    "shipped_weights",
]

PREFERRED = ("da3-base", "vggt-commercial", "da3-small")
"""Published networks that 'auto' may take, best first: those that may be used commercially, told known cameras first."""


@runtime_checkable
class DepthPredictor(Protocol):
    """Depth and confidence for posed photos."""

    name: str
    """As the command line calls it."""

    def __call__(
        self, posed: PosedViews, neighbours: tuple[tuple[int, ...], ...], depth_range: Float[Tensor, "V 2"], progress: Progress
    ) -> Prediction: ...


@runtime_checkable
class CameraPredictor(Protocol):
    """Cameras and depth for photos without cameras."""

    name: str
    """As the command line calls it."""
    makes_gaussians: bool
    """It gives Gaussians too, which fit its cameras as they are."""

    def predict_views(self, views: Views, progress: Progress) -> Prediction: ...


@dataclass(frozen=True, kw_only=True)
class ShippedWeights:
    """One entry of ``weights/manifest.toml``."""

    name: str
    """Name of the model."""
    file: str
    """File in the ``weights`` package."""
    sha256: str
    """Checksum of the file, hexadecimal."""
    size_bytes: int
    """Size of the file."""
    licence: str
    """SPDX identifier."""
    source: str
    """Where the weights come from."""
    command: str
    """The command that trained them."""
    quality: Mapping[str, Any]
    """What was measured when they were made."""


@lru_cache
def shipped_weights() -> dict[str, ShippedWeights]:
    """Read the manifest of the weights that come with the product."""
    text = resources.files("weights").joinpath("manifest.toml").read_text(encoding="utf-8")
    return {entry["name"]: ShippedWeights(**entry) for entry in tomllib.loads(text).get("weights", [])}


def depth_models() -> tuple[str, ...]:
    """List the names ``load_predictor`` knows."""
    from .checkpoints import all_checkpoints

    return ("auto", "mini", *all_checkpoints(), "plane-sweep")


def camera_models() -> tuple[str, ...]:
    """List the names ``load_camera_predictor`` knows."""
    from .checkpoints import all_checkpoints

    return ("network", *all_checkpoints())


def load_predictor(name: str, device: str = "cpu", weights: Path | None = None, random_seed: int | None = None) -> DepthPredictor:
    """Make the depth source called ``name``.

    Args:
        name: one of ``depth_models()``; 'auto' takes the best published network that is on this machine and fits into its
            memory, else 'mini'.
        device: 'cpu' or 'cuda'.
        weights: file to use instead of the shipped or installed one; None uses that one. With 'auto' the file decides.
        random_seed: untrained 'mini' from this seed, for comparisons; None loads trained weights.
    Raises:
        UserError: unknown name, or the weights are missing, damaged or of another network.
    """
    require_model(name, weights)
    chosen = choose_automatically(device, weights) if name == "auto" else name
    if random_seed is not None and chosen != "mini":
        raise UserError(f"Random weights are made for 'mini' alone, not for {chosen!r}.", "Choose the model 'mini'.")
    if chosen == "plane-sweep":
        if weights is not None:
            raise UserError("The plane sweep has no weights.", "Leave out --weights, or choose the model 'mini'.")
        return PlaneSweepPredictor(device)
    if chosen != "mini":
        from .checkpoints import load_installed

        return load_installed(chosen, device, weights)
    if random_seed is not None:
        with torch.random.fork_rng():
            torch.manual_seed(random_seed)
            return MiniPredictor(MiniNetwork(), device)
    path = weights or shipped_path("mini")
    network = MiniNetwork(read_config(path, MiniConfig))
    fill(network, path)
    return MiniPredictor(network, device)


def require_model(name: str, weights: Path | None = None) -> None:
    """Check that ``load_predictor`` could find what it needs, without loading it.

    Raises:
        UserError: there is no such name, its weights are not on this machine, or the file given is not there.
    """
    from .checkpoints import all_checkpoints, installed_path

    if name not in depth_models():
        raise unknown_model(name, depth_models())
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"There is no weights file {weights}.", "Check the path, or pull the model with `recon weights pull NAME`.")
    if weights is None and name in all_checkpoints():
        installed_path(name)


def require_camera_model(name: str, weights: Path | None = None) -> None:
    """Check that ``load_camera_predictor`` could find what it needs; only weights from a file are read.

    Raises:
        UserError: there is no such name, its weights are not on this machine, or the file given is not of our camera network.
    """
    from .checkpoints import installed_path

    if name not in camera_models():
        raise unknown_model(name, camera_models())
    if weights is not None:
        load_camera_predictor(name, weights=weights)
    elif name != "network":
        installed_path(name)


def load_camera_predictor(name: str, device: str = "cpu", weights: Path | None = None) -> CameraPredictor:
    """Make the network called ``name`` that finds cameras from photos alone.

    Args:
        name: a published network, or 'network' for the best on this machine: a published one, else ours where it is shipped.
        device: 'cpu' or 'cuda'.
        weights: of our own camera network, which 'network' then is; None leaves the choice.
    Raises:
        UserError: unknown name, or its weights are not on this machine, damaged or of another network.
    """
    from .checkpoints import load_installed

    if weights is None:
        require_camera_model(name)
    elif name != "network":
        raise UserError(f"Weights of our camera network do not make {name!r}.", "Choose the network 'network'.")
    chosen = best_installed(device) if name == "network" and weights is None else name
    if chosen is not None and chosen != "network":
        return load_installed(chosen, device)
    if weights is None and "cameras" not in shipped_weights():
        raise UserError(
            "No network that finds cameras is on this machine, or none fits into its memory.",
            "Fetch one: recon weights pull da3-small; `recon doctor` says which fit. Or train ours: recon train cameras --out DIR, "
            "then give --camera-network DIR/cameras.safetensors. Or find cameras with --cameras sfm.",
        )
    path = weights or shipped_path("cameras")
    network = CameraNetwork(read_config(path, CameraConfig))
    fill(network, path)
    return LearnedCameras(network, device)


def best_installed(device: str) -> str | None:
    """Find the first of ``PREFERRED`` that is on this machine and fits into its memory; None when there is none."""
    from .checkpoints import find_checkpoint, is_installed
    from .published.planner import verdict
    from .published.zoo import find_network

    fits = (name for name in PREFERRED if is_installed(name) and verdict(find_network(find_checkpoint(name).network), device)[0])
    return next(fits, None)


def choose_automatically(device: str, weights: Path | None) -> str:
    """Say which model 'auto' means: the network a given file belongs to, else the best installed, else 'mini'."""
    if weights is None:
        return best_installed(device) or "mini"
    from .published.checkpoint.files import open_checkpoint
    from .published.zoo import identify

    return identify(open_checkpoint(Path(weights)).shapes) or "mini"


def unknown_model(name: str, known: Sequence[str]) -> UserError:
    """Say that a name is unknown and which was probably meant."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return UserError(f"There is no model called {name!r}.", f"{hint}Choose one of: {', '.join(known)}.")


def load_splat_head(device: str = "cpu", weights: Path | None = None, random_seed: int | None = None) -> SplatHead:
    """Make the head that turns depth into the appearance of Gaussians.

    Args:
        device: 'cpu' or 'cuda'.
        weights: safetensors file to use instead of the shipped one; None uses the shipped one, or, where no trained head
            is shipped, the untrained default, which follows confidence and residuals by rule.
        random_seed: untrained default whose hidden weights come from this seed; None loads trained ones.
    Raises:
        UserError: the weights are missing, damaged or of another network.
    """
    if random_seed is not None or (weights is None and "head" not in shipped_weights()):
        with torch.random.fork_rng():
            torch.manual_seed(random_seed or 0)
            return LearnedSplatHead(HeadNetwork(), device)
    path = weights or shipped_path("head")
    network = HeadNetwork(read_config(path, HeadConfig))
    fill(network, path)
    return LearnedSplatHead(network, device)


def load_updater(device: str = "cpu", weights: Path | None = None, random_seed: int | None = None) -> LearnedUpdater | None:
    """Make the network of learned refinement.

    Args:
        device: 'cpu' or 'cuda'.
        weights: safetensors file to use instead of the shipped one; None uses the shipped one, and where none is shipped there is
            no refinement.
        random_seed: untrained network, which matches colours, from this seed; None loads trained weights.

    Raises:
        UserError: the weights are missing, damaged or of another network.
    """
    if random_seed is not None:
        with torch.random.fork_rng():
            torch.manual_seed(random_seed)
            return LearnedUpdater(RefinerNetwork(), device)
    if weights is None and "refiner" not in shipped_weights():
        return None
    path = weights or shipped_path("refiner")
    network = RefinerNetwork(read_config(path, RefinerConfig))
    fill(network, path)
    return LearnedUpdater(network, device)


def load_matcher(device: str = "cpu", weights: Path | None = None, random_seed: int | None = None) -> LearnedMatcher | None:
    """Make the network that matches photos.

    Args:
        device: 'cpu' or 'cuda'.
        weights: safetensors file to use instead of the shipped one; None uses the shipped one, and where none is shipped there is
            no matcher.
        random_seed: untrained network from this seed, for comparisons; None loads trained weights.

    Raises:
        UserError: the weights are missing, damaged or of another network.
    """
    if random_seed is not None:
        with torch.random.fork_rng():
            torch.manual_seed(random_seed)
            return LearnedMatcher(MatcherNetwork(), device)
    if weights is None and "matcher" not in shipped_weights():
        return None
    path = weights or shipped_path("matcher")
    network = MatcherNetwork(read_config(path, MatcherConfig))
    fill(network, path)
    return LearnedMatcher(network, device)


def shipped_path(name: str) -> Path:
    """Path of shipped weights, after checking their checksum.

    Raises:
        UserError: the file is missing or damaged.
    """
    entry = shipped_weights().get(name)
    if entry is None:
        raise UserError(f"No weights of {name!r} come with this installation.", "Reinstall recon, or give --weights FILE.")
    path = Path(str(resources.files("weights").joinpath(entry.file)))
    if not path.is_file():
        raise UserError(f"The weights {entry.file} are missing.", "Reinstall recon, or give --weights FILE.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise UserError(f"The weights {entry.file} are damaged: their checksum is not the manifest's.", "Reinstall recon.")
    return path


def read_config(path: Path, record: type) -> Any:
    """Read a network's sizes from the metadata of its weights.

    Raises:
        UserError: the file is not a weights file of this network.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot read weights from {path}: {error}.", "Give a .safetensors file made by recon train.") from error
    known = {f.name: f.type for f in fields(record)}
    if set(known) - set(metadata):
        raise UserError(
            f"{path} holds weights of another network.", f"Its metadata lacks: {', '.join(sorted(set(known) - set(metadata)))}."
        )
    return record(**{name: float(metadata[name]) if known[name] == "float" else int(metadata[name]) for name in known})


def fill(network: nn.Module, path: Path) -> None:
    """Load weights into a network in float32.

    Raises:
        UserError: names or shapes differ.
    """
    with safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    wanted = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    differing = set(wanted) ^ set(tensors) or {n for n in wanted if wanted[n].shape != tensors[n].shape}
    if differing:
        raise UserError(f"{path} does not fit the network: {len(differing)} tensors differ.", f"First: {sorted(differing)[0]}.")
    network.load_state_dict(tensors, strict=False)
