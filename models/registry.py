"""Find networks by name: the shipped weights, weights from a file, or random ones.

Input: names and paths. Output: ready predictors and heads.
Does not: run them, or download anything; ``models.checkpoints`` does that for published networks.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
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
from recon.records import Prediction

from .head import HeadConfig, HeadNetwork, LearnedSplatHead
from .mini import MiniConfig, MiniNetwork
from .mini_predictor import MiniPredictor
from .plane_sweep import PlaneSweepPredictor

__all__ = ["DEPTH_MODELS", "DepthPredictor", "load_predictor", "load_splat_head", "shipped_weights"]

DEPTH_MODELS = ("mini", "plane-sweep")
"""Names that ``load_predictor`` knows."""


@runtime_checkable
class DepthPredictor(Protocol):
    """Depth and confidence for posed photos."""

    def __call__(
        self, posed: PosedViews, neighbours: tuple[tuple[int, ...], ...], depth_range: Float[Tensor, "V 2"], progress: Progress
    ) -> Prediction: ...


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


def load_predictor(name: str, device: str = "cpu", weights: Path | None = None, random_seed: int | None = None) -> DepthPredictor:
    """Make the depth source called ``name``.

    Args:
        name: one of ``DEPTH_MODELS``.
        device: 'cpu' or 'cuda'.
        weights: safetensors file to use instead of the shipped one; None uses the shipped one.
        random_seed: untrained weights from this seed, for comparisons; None loads trained ones.
    Raises:
        UserError: unknown name, or the weights are missing, damaged or of another network.
    """
    if name == "plane-sweep":
        if weights is not None or random_seed is not None:
            raise UserError("The plane sweep has no weights.", "Leave out --weights, or choose the model 'mini'.")
        return PlaneSweepPredictor(device)
    if name != "mini":
        raise UserError(f"There is no depth model called {name!r}.", f"Choose one of: {', '.join(DEPTH_MODELS)}.")
    if random_seed is not None:
        with torch.random.fork_rng():
            torch.manual_seed(random_seed)
            return MiniPredictor(MiniNetwork(), device)
    path = weights or shipped_path("mini")
    network = MiniNetwork(read_config(path, MiniConfig))
    fill(network, path)
    return MiniPredictor(network, device)


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
