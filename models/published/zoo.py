"""The published networks by name, and loading one from its file.

Input: a name, a checkpoint file, a device. Output: a network ready to run.
Does not: download (``models.checkpoints``) or convert conventions (``models.published.doors``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recon.errors import UserError

from .checkpoint.files import open_checkpoint
from .checkpoint.keys import KeyMap, fill, match_keys, require_match
from .networks.anysplat import AnySplat, anysplat_keys
from .networks.da3 import DA3_BASE, DA3_SMALL, DepthAnything3, da3_keys
from .networks.geometry import Geometry, KnownCameras
from .networks.mapanything import MapAnything, mapanything_keys
from .networks.pi3 import Pi3, pi3_keys
from .networks.precision import backbone_matrices
from .networks.vggt import Vggt, vggt_keys
from .networks.yonosplat import YonoSplat, yonosplat_keys


@runtime_checkable
class GeometryNetwork(Protocol):
    """What the doors need of a network."""

    compute_dtype: torch.dtype

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry: ...


@dataclass(frozen=True, kw_only=True)
class Network:
    """One published network."""

    title: str
    """As its authors call it."""
    build: Callable[[], nn.Module]
    keys: Callable[[], KeyMap]
    long_side: int
    """Longest input side in pixels it was made for."""
    uses_cameras: bool
    """Known cameras condition it (YoNoSplat: their intrinsics alone)."""
    makes_gaussians: bool
    dim: int
    """Channels of its backbone."""
    head_features: int
    """Widest map at full size, per pixel; sets the memory of the dense heads."""


NETWORKS: Mapping[str, Network] = {
    "da3-small": Network(
        title="Depth Anything 3 SMALL", build=lambda: DepthAnything3(DA3_SMALL), keys=da3_keys, long_side=504,
        uses_cameras=True, makes_gaussians=False, dim=384, head_features=32,
    ),
    "da3-base": Network(
        title="Depth Anything 3 BASE", build=lambda: DepthAnything3(DA3_BASE), keys=da3_keys, long_side=504,
        uses_cameras=True, makes_gaussians=False, dim=768, head_features=64,
    ),
    "vggt": Network(
        title="VGGT-1B", build=Vggt, keys=vggt_keys, long_side=518,
        uses_cameras=False, makes_gaussians=False, dim=1024, head_features=128,
    ),
    "anysplat": Network(
        title="AnySplat", build=AnySplat, keys=anysplat_keys, long_side=448,
        uses_cameras=False, makes_gaussians=True, dim=1024, head_features=256,
    ),
    "pi3": Network(
        title="Pi3", build=Pi3, keys=pi3_keys, long_side=518,
        uses_cameras=False, makes_gaussians=False, dim=1024, head_features=16,
    ),
    "yonosplat": Network(
        title="YoNoSplat", build=YonoSplat, keys=yonosplat_keys, long_side=224,
        uses_cameras=True, makes_gaussians=True, dim=1024, head_features=32,
    ),
    "mapanything": Network(
        title="MapAnything", build=MapAnything, keys=mapanything_keys, long_side=518,
        uses_cameras=False, makes_gaussians=False, dim=1536, head_features=128,
    ),
}  # fmt: skip


def find_network(name: str) -> Network:
    """Look up a network.

    Raises:
        UserError: there is none of that name.
    """
    if name not in NETWORKS:
        raise UserError(f"There is no published network {name!r}.", f"There are: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def load_network(name: str, path: Path, device: torch.device | str = "cpu", *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Build a network and fill it from a checkpoint file, strictly: every tensor must be known, fit and be there.

    Args:
        dtype: number format in which the backbone's matrices are kept, from the start: no float32 copy of them is made.

    Raises:
        BrokenCheckpoint: the file cannot be read.
        WrongCheckpoint: it belongs to another network, or lacks or adds tensors; names them.
    """
    network_spec, keys = find_network(name), find_network(name).keys()
    opened = open_checkpoint(path)
    network = on_meta(network_spec.build)
    match = match_keys(network, keys, opened.shapes)
    if not match.complete:
        require_match(match, network_name=name, file_name=Path(path).name, looks_like=identify(opened.shapes))
    kept = {f"{layer}.weight": dtype for layer, _ in backbone_matrices(network)}
    fill(network, match, opened.read, device=device, dtypes=kept)
    return network


def identify(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Say which network the tensors of a file belong to; None when they fit none."""
    for name, candidate in NETWORKS.items():
        if match_keys(on_meta(candidate.build), candidate.keys(), shapes).complete:
            return name
    return None


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network that takes no memory yet."""
    with torch.device("meta"):
        return build()
