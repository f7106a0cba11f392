"""The records every room shares, and the conventions they keep.

Input: arrays and tensors from loaders, networks and solvers. Output: frozen, validated dataclasses.
Does not: load files, run algorithms, or know about networks and rasterisers.

Conventions, stated once for the whole project
----------------------------------------------
Camera frame: OpenCV, +x right, +y down, +z forward. ``T_world_cam`` maps camera coordinates to world coordinates and is
what is stored; ``T_cam_world`` is derived. Points carry their frame in their name: ``points_world``, ``points_cam``.

Image frame: ``K`` is 3x3 in pixels. The top-left corner of the image is (0, 0) and pixel centres lie at +0.5, as in COLMAP
and gsplat. A resize by (sx, sy) multiplies the first two rows of ``K``. OpenCV functions put pixel centres at integers; the
half pixel is moved in ``recon.lens`` and nowhere else.

Depth is z along the optical axis; distance along a ray is called ``range``. Names carry units: ``_m _px _deg _s``.

Images are float32 in [0, 1], sRGB, ``V H W 3`` at every public door. Networks permute at their own door.

Gaussians hold physical values in the world frame: ``scales`` are standard deviations (> 0), ``opacities`` lie in (0, 1),
``quats`` are unit wxyz (local axes to world), ``sh`` is ``N K 3`` in the 3DGS basis, so that colour = 0.5 + SH(direction).
Logarithms and logits live only in optimisers and file formats.

Shape letters: B batch, V views, H W pixels, N Gaussians or points, K SH coefficients, P tokens, C channels, D depth planes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "Cameras",
    "Gaussians",
    "Prediction",
    "RasterOptions",
    "Rasterizer",
    "Rendering",
    "Scene",
    "View",
    "Views",
]

if TYPE_CHECKING:
    Sizes = tuple[int, ...]
else:
    Sizes = int | Sequence[int]  # one number is accepted and broadcast; what is stored is always a tuple

SH_COUNTS = {1: 0, 4: 1, 9: 2, 16: 3}
"""Number of SH coefficients -> SH degree."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class View:
    """One input photo: where it is, what is known about it, and how to decode it.

    Pixels are not held. ``load`` decodes at the working size each time it is called.
    """

    path: Path
    """The photo on disk."""
    name: str
    """Name relative to the capture folder, with forward slashes; unique in a capture."""
    original_width: int
    """Width in pixels after EXIF orientation has been applied."""
    original_height: int
    """Height in pixels after EXIF orientation has been applied."""
    width: int
    """Working width in pixels."""
    height: int
    """Working height in pixels."""
    decode: Callable[[int, int], np.ndarray]
    """(width, height) -> uint8 ``H W 3`` sRGB, EXIF orientation applied. Decodes the file at each call."""
    focal_px: float | None = None
    """Focal length in pixels of the original size, from EXIF; None when unknown."""
    camera_id: str = ""
    """Photos of one body and lens at one size share this key."""
    lens_is_shared: bool = False
    """The user said that photos with this key have one lens."""
    exif: Mapping[str, Any] = field(default_factory=dict)
    """Plain EXIF fields worth reporting (make, model, exposure). Never position or owner."""
    holdout: bool = False
    """True when the photo is scored and must not reach any stage but camera finding."""
    content: str = ""
    """Digest of the file's bytes; empty when it was not taken."""
    read_mask: Callable[[int, int], np.ndarray] | None = None
    """(width, height) -> bool ``H W``, True where the photo counts; None when all of it does."""
    intrinsics: tuple[float, ...] | None = None
    """fx, fy, cx, cy, k1, k2, p1, p2 in pixels of the original size when the user knows them; they are kept as they are."""

    @property
    def scale_xy(self) -> tuple[float, float]:
        """(sx, sy) that take original pixels to working pixels."""
        return self.width / self.original_width, self.height / self.original_height

    def load(self) -> Float[Tensor, "H W 3"]:
        """Decode the photo at the working size as float32 in [0, 1]."""
        return self.load_at(self.width, self.height)

    def counted(self, width: int, height: int) -> Bool[Tensor, "H W"] | None:
        """Which pixels of the photo may be used, at a size; None when all may."""
        return None if self.read_mask is None else torch.from_numpy(self.read_mask(width, height))

    def load_at(self, width: int, height: int) -> Float[Tensor, "H W 3"]:
        """Decode the photo at another size as float32 in [0, 1]."""
        return torch.from_numpy(self.decode(width, height)).float().div_(255.0)


@dataclass(frozen=True)
class Views(Sequence):
    """An ordered set of photos, sorted by natural name order. Pixels stay on disk until ``View.load``."""

    items: tuple[View, ...]

    def __post_init__(self) -> None:
        names = [view.name for view in self.items]
        _require(len(set(names)) == len(names), "Views: names must be unique within a capture")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[View]:
        return iter(self.items)

    def __getitem__(self, index):
        return Views(self.items[index]) if isinstance(index, slice) else self.items[index]

    @property
    def names(self) -> list[str]:
        return [view.name for view in self.items]

    def select(self, indices: Sequence[int]) -> Views:
        """Keep the photos at ``indices``, in that order."""
        return Views(tuple(self.items[int(i)] for i in indices))


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Pinhole cameras with optional lens distortion. All tensors share one device; float32 or float64."""

    T_world_cam: Float[Tensor, "V 4 4"]
    """Camera to world, rigid."""
    K: Float[Tensor, "V 3 3"]
    """Intrinsics in pixels of (width, height)."""
    width: Sizes
    """Image width per view in pixels. A single int is broadcast."""
    height: Sizes
    """Image height per view in pixels. A single int is broadcast."""
    distortion: Float[Tensor, "V 4"] | None = None
    """OpenCV k1 k2 p1 p2; None means no distortion."""
    registered: Bool[Tensor, " V"] | None = None
    """False where the photo could not be placed; None means all are."""
    names: tuple[str, ...] | None = None
    """Photo names, in the order of V."""

    def __post_init__(self) -> None:
        views = self.T_world_cam.shape[0]
        _require(
            tuple(self.T_world_cam.shape) == (views, 4, 4),
            f"Cameras.T_world_cam: wanted V 4 4, got {tuple(self.T_world_cam.shape)}",
        )
        _require(tuple(self.K.shape) == (views, 3, 3), f"Cameras.K: wanted {views} 3 3, got {tuple(self.K.shape)}")
        for name in ("width", "height"):
            value = getattr(self, name)
            value = (int(value),) * views if isinstance(value, int) else tuple(int(v) for v in value)
            _require(len(value) == views, f"Cameras.{name}: wanted {views} values, got {len(value)}")
            _require(all(v > 0 for v in value), f"Cameras.{name}: sizes must be positive, got {value}")
            object.__setattr__(self, name, value)
        if self.distortion is not None:
            _require(
                tuple(self.distortion.shape) == (views, 4),
                f"Cameras.distortion: wanted {views} 4, got {tuple(self.distortion.shape)}",
            )
        if self.registered is not None:
            _require(tuple(self.registered.shape) == (views,), f"Cameras.registered: wanted {views} flags")
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
            _require(len(self.names) == views, f"Cameras.names: wanted {views} names, got {len(self.names)}")

    def __len__(self) -> int:
        return self.T_world_cam.shape[0]

    @property
    def T_cam_world(self) -> Float[Tensor, "V 4 4"]:
        """World to camera, the rigid inverse of ``T_world_cam``."""
        R_cam_world = self.T_world_cam[:, :3, :3].transpose(1, 2)
        t = -(R_cam_world @ self.T_world_cam[:, :3, 3:])
        bottom = self.T_world_cam.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(self), 1, 4)
        return torch.cat([torch.cat([R_cam_world, t], dim=2), bottom], dim=1)

    @property
    def centers_world(self) -> Float[Tensor, "V 3"]:
        return self.T_world_cam[:, :3, 3]

    @property
    def registered_mask(self) -> Bool[Tensor, " V"]:
        if self.registered is None:
            return torch.ones(len(self), dtype=torch.bool, device=self.K.device)
        return self.registered

    def select(self, indices: Sequence[int]) -> Cameras:
        """Keep the cameras at ``indices``, in that order."""
        at = torch.as_tensor([int(i) for i in indices], dtype=torch.long, device=self.K.device)
        return Cameras(
            T_world_cam=self.T_world_cam[at],
            K=self.K[at],
            width=tuple(self.width[int(i)] for i in at),
            height=tuple(self.height[int(i)] for i in at),
            distortion=None if self.distortion is None else self.distortion[at],
            registered=None if self.registered is None else self.registered[at],
            names=None if self.names is None else tuple(self.names[int(i)] for i in at),
        )

    def resized(self, width: int | Sequence[int], height: int | Sequence[int]) -> Cameras:
        """Scale ``K`` to new image sizes; each axis uses its own factor."""
        views = len(self)
        widths = (width,) * views if isinstance(width, int) else tuple(int(w) for w in width)
        heights = (height,) * views if isinstance(height, int) else tuple(int(h) for h in height)
        K = self.K.clone()
        K[:, 0] *= K.new_tensor([w / o for w, o in zip(widths, self.width, strict=True)])[:, None]
        K[:, 1] *= K.new_tensor([h / o for h, o in zip(heights, self.height, strict=True)])[:, None]
        return replace(self, K=K, width=widths, height=heights)

    def to(self, device: torch.device | str) -> Cameras:
        """Move every tensor to ``device``."""
        moved = {
            n: getattr(self, n).to(device) for n in ("T_world_cam", "K", "distortion", "registered") if getattr(self, n) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """3D Gaussians in the world frame with physical values."""

    means: Float[Tensor, "N 3"]
    """Centres, world frame."""
    quats: Float[Tensor, "N 4"]
    """Unit wxyz, local axes to world."""
    scales: Float[Tensor, "N 3"]
    """Standard deviations along the local axes, world units, > 0."""
    opacities: Float[Tensor, " N"]
    """In (0, 1)."""
    sh: Float[Tensor, "N K 3"]
    """SH coefficients, K in {1, 4, 9, 16}; colour = max(0, 0.5 + SH(direction from camera centre to mean))."""

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        for name, shape in (("means", (n, 3)), ("quats", (n, 4)), ("scales", (n, 3)), ("opacities", (n,))):
            given = tuple(getattr(self, name).shape)
            _require(given == shape, f"Gaussians.{name}: wanted shape {shape}, got {given}")
        _require(
            self.sh.ndim == 3 and self.sh.shape[0] == n and self.sh.shape[2] == 3 and self.sh.shape[1] in SH_COUNTS,
            f"Gaussians.sh: wanted ({n}, K, 3) with K in {sorted(SH_COUNTS)}, got {tuple(self.sh.shape)}",
        )

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        return SH_COUNTS[self.sh.shape[1]]

    def select(self, mask_or_indices: Tensor) -> Gaussians:
        """Keep the Gaussians under a boolean mask or at the given indices."""
        return Gaussians(**{name: getattr(self, name)[mask_or_indices] for name in self.__dataclass_fields__})

    @staticmethod
    def concatenate(parts: Sequence[Gaussians]) -> Gaussians:
        """Join sets; lower SH degrees are padded with zeros."""
        _require(len(parts) > 0, "Gaussians.concatenate: wanted at least one set")
        count = max(part.sh.shape[1] for part in parts)
        padded = [torch.nn.functional.pad(part.sh, (0, 0, 0, count - part.sh.shape[1])) for part in parts]
        joined = {n: torch.cat([getattr(part, n) for part in parts]) for n in ("means", "quats", "scales", "opacities")}
        return Gaussians(**joined, sh=torch.cat(padded))

    def to(self, device: torch.device | str) -> Gaussians:
        """Move every tensor to ``device``."""
        return Gaussians(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def detach(self) -> Gaussians:
        return Gaussians(**{name: getattr(self, name).detach() for name in self.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class RasterOptions:
    """How a rasteriser draws. The constants of the drawing itself are fixed (house.md 2, gsplat 1.5.3)."""

    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """sRGB colour behind everything."""
    near: float = 0.01
    """Gaussians with centre depth below this are not drawn, world units."""
    far: float = 1.0e10
    """Gaussians with centre depth beyond this are not drawn, world units."""
    antialiased: bool = False
    """True compensates opacity for the 0.3 px blur (Mip-Splatting; gsplat's "antialiased" mode)."""
    sh_degree: int | None = None
    """Highest SH degree evaluated; None means all that is stored."""
    median_depth: bool = False
    """Also return the depth at which transmittance passes 0.5."""
    normals: bool = False
    """Also return normals in the camera frame (shortest axis of each Gaussian, facing the camera)."""
    contribution: bool = False
    """Also return the sum of blending weights per Gaussian and view."""
    tiles: Tensor | None = None
    """Bool ``V tile_rows tile_cols`` (16 px tiles): draw only these; None draws all. Other tiles stay background."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What a rasteriser returns."""

    color: Float[Tensor, "V H W 3"]
    """Composited colour over the background; not clamped above 1."""
    alpha: Float[Tensor, "V H W"]
    """Accumulated opacity."""
    depth: Float[Tensor, "V H W"]
    """Expected z-depth: sum(w z) / max(sum(w), 1e-10); 0 where nothing was hit."""
    median_depth: Float[Tensor, "V H W"] | None = None
    """z-depth where transmittance passes 0.5; 0 where it never does."""
    normals: Float[Tensor, "V H W 3"] | None = None
    """Camera frame, weighted mean, not normalised."""
    contribution: Float[Tensor, "V N"] | None = None
    """Sum of blending weights of each Gaussian in each view."""
    dropped: tuple[int, ...] = ()
    """Per view, Gaussians left out because they are not finite or their opacity is outside [0, 1]; a colour that is not finite
    counts where it would have been seen."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a feed-forward network says about a set of views, one entry per view, at that view's own size."""

    cameras: Cameras
    """Cameras at the size of the depth maps."""
    depth: tuple[Float[Tensor, "_ _"], ...]
    """z-depth per view, world units, > 0."""
    confidence: tuple[Float[Tensor, "_ _"], ...]
    """Probability in [0, 1] that the depth is right (within the width of one depth plane)."""
    gaussians: Gaussians | None = None
    """Gaussians when the network makes them itself."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a SCENE argument loads: Gaussians, the cameras that made them, and where they came from."""

    gaussians: Gaussians
    cameras: Cameras | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Rasterizer(Protocol):
    """Draws Gaussians from cameras of one common size. Differentiable in Gaussians, ``T_world_cam`` and ``K``."""

    def __call__(self, gaussians: Gaussians, cameras: Cameras, options: RasterOptions = ...) -> Rendering: ...


Predictor = Callable[[Views], Prediction]
