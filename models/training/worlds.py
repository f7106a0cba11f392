"""Procedural worlds: random scenes and camera paths, ray-cast on the fly with exact depth and normals.

Input: a random generator and textures. Output: ``Capture`` records (photos, cameras, depth, normals, depth ranges).
Does not: read image files; textures come packed or are generated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .ingredients import WorldConfig
from .objects import Objects
from .paths import camera_path, euler, intrinsics, pick_style
from .photography import photograph
from .raycast import CpuCaster
from .raycast_cuda import CudaCaster
from .relief import reliefs
from .scenes import Scene, Scenes
from .shading import Eyes, World, mip_atlas
from .textures import generated_textures

__all__ = ["Capture", "WorldConfig", "Worlds", "off_plane", "textured"]

Array = np.ndarray
MANY_PIXELS = 40_000
"""Photos with more pixels are cast with one ray a pixel instead of two."""
RELIEFS = 24
"""Height fields of one source of worlds."""
LEAST_OFF_PLANE, LEAST_TEXTURED = 0.35, 0.25
"""Shares of a photo's pixels, on average over the photos, that lie off its best plane and that have texture around them."""
OFF_PLANE = 0.03
"""Inverse depth, over its spread in the photo or its middle, whichever is larger, from which a pixel lies off the plane."""
PLANES_TRIED = 48
TEXTURED = 0.02
"""Standard deviation of grey within 8 x 8 pixels from which they have texture."""


@dataclass(frozen=True)
class Capture:
    """Photos of one world with exact depth. ``depth[c]`` is sampled at the centres of c x c pixel blocks; 1e30 is sky."""

    images: Float[Array, "V H W 3"]
    K: Float[Array, "V 3 3"]
    T_world_cam: Float[Array, "V 4 4"]
    """What a solver would report: the true cameras with small errors."""
    depth: dict[int, Float[Array, "V h w"]]
    depth_range: Float[Array, "V 2"]
    style: str
    kind: str = ""
    """Kind of world."""
    normals: Float[Array, "V h_fine w_fine 3"] | None = None
    """Exact unit normals of the surfaces in the finest depth, at its pixels: in the frame of the camera that took the photo (before
    the errors of ``T_world_cam``), OpenCV axes, towards the camera, 0 for sky. They are those of the geometry, facets of relief and
    walls of holes included; shading smooths relief. None where a capture did not come from ``Worlds``."""


class Worlds:
    """An endless source of captures.

    Args:
        textures: ``T S S 3`` uint8 photographs; None uses generated ones alone.
        seed: seed of everything random.
        config: shares of the ingredients; None takes all of them.
        cast: 'cpu' or 'cuda', where rays are cast; a seed draws the same worlds either way.

    Raises:
        RuntimeError: there is nothing to cast on with CUDA.
    """

    def __init__(self, textures: Array | None, seed: int, config: WorldConfig | None = None, *, cast: str = "cpu") -> None:
        self.rng = np.random.default_rng(seed)
        self.config = config or WorldConfig()
        made = generated_textures(np.random.default_rng(seed + 1), 48)
        atlas = mip_atlas(made if textures is None else np.concatenate([textures, made]))
        self.caster = CudaCaster(atlas) if cast == "cuda" else CpuCaster(atlas)
        self.textures = len(atlas[0])
        self.photographs = 0 if textures is None else len(textures)
        self.palette: Array | None = None
        """Rows of the atlas that the next worlds may show; None means all."""
        self.heights = reliefs(np.random.default_rng(seed + 2), RELIEFS)
        self.scenes = Scenes(self.rng, self.config, Objects(self.rng, self.config, self._texture, self.heights))

    def capture(self, views: int, height: int, width: int) -> Capture:
        """Make a world and photograph it. Sizes are multiples of 8 in pixels."""
        rng = self.rng
        simple = bool(rng.random() < self.config.simple)
        while True:
            scene, style, eyes, coarse = self._scene(views, height, width, simple)
            world = World(scene.primitives, self.heights)
            sky = np.array(
                [self._texture(), rng.uniform(0.2, 1.0), *rng.uniform(0.0, 0.5, 3), *rng.uniform(0.2, 0.8, 3)], np.float32
            )
            samples = 1 if height * width > MANY_PIXELS else 2
            images = self.caster.colors(world, sky, self._light(), eyes, height, width, samples)
            if simple or textured(images) > LEAST_TEXTURED:
                break
        finest = min(self.config.cells, default=8)
        others = [cell for cell in self.config.cells if cell != finest]
        depth = {8: coarse} | {cell: self.caster.depth(world, eyes, height, width, cell) for cell in others}
        depth[finest], normals = self.caster.surfaces(world, eyes, height, width, finest)
        reported = eyes.T_world_cam
        if self.config.photographic:
            images = photograph(images, rng, config=self.config, depth=depth[min(depth)])
            reported = self._camera_errors(reported, eyes.K, scene.reach)
        return Capture(np.clip(images, 0, 1), eyes.K, reported, depth, self._range(coarse), style, scene.kind, normals)

    def _scene(self, views: int, height: int, width: int, simple: bool) -> tuple[Scene, str, Eyes, Array]:
        """Draw worlds and paths until the cameras see something; returns the depth at 8 x 8 blocks with them."""
        while True:
            scene = self.scenes.make(views)
            style = pick_style(self.rng, self.config, under_sky=scene.under_sky)
            T_world_cam = camera_path(self.rng, self.config, views, style, target=scene.target, reach=scene.reach)
            K = intrinsics(self.rng, self.config, views, height, width)
            eyes = Eyes(T_world_cam, K, self._bend(K, height, width))
            if not scene.above_ground(T_world_cam, self.heights):
                continue
            coarse = self.caster.depth(World(scene.primitives, self.heights), eyes, height, width, 8)
            if self._usable(coarse) and (simple or off_plane(coarse) > LEAST_OFF_PLANE):
                return scene, style, eyes, coarse

    def _texture(self) -> int:
        if self.palette is not None:
            return int(self.rng.choice(self.palette))
        if self.photographs and self.rng.random() < 0.75:
            return int(self.rng.integers(self.photographs))
        return int(self.rng.integers(self.photographs, self.textures))

    def _light(self) -> Float[Array, " 5"]:
        """Direction to the light, ambient share, and its size where it throws shadows, which it then does from above."""
        rng = self.rng
        direction = rng.normal(size=3) + np.array([0, -1.0, 0])
        direction /= np.linalg.norm(direction)
        if rng.random() >= self.config.shadows:
            return np.array([*direction, rng.uniform(0.5, 0.95), -1.0], np.float32)
        direction[1] = -max(abs(direction[1]), 0.35)
        direction /= np.linalg.norm(direction)
        size = math.exp(rng.uniform(math.log(0.004), math.log(0.15)))
        return np.array([*direction, rng.uniform(0.35, 0.8), size], np.float32)

    def _bend(self, K: Float[Array, "V 3 3"], height: int, width: int) -> Float[Array, " V"]:
        """Bend of the rays that a lens's correction left over; none in half of the captures."""
        bend = np.zeros(len(K), np.float32)
        if self.config.photographic and self.rng.random() < 0.5:
            focal = K[:, 0, 0]
            corner = math.hypot(height, width) / 2 / focal
            bend += np.float32(self.config.distortion_px * self.rng.normal()) / (focal * corner**3)
        return bend

    def _usable(self, depth: Array) -> bool:
        """No camera inside or against an object, and something other than sky in view."""
        solid = depth < 1e20
        if solid.mean(axis=(1, 2)).min() < 0.35:
            return False
        medians = np.array([np.median(d[s]) for d, s in zip(depth, solid, strict=True)])
        return bool(depth.min() > 0.08 and (depth.min(axis=(1, 2)) > 0.12 * medians).all() and medians.max() < 6 * medians.min())

    def _camera_errors(self, T_world_cam: Array, K: Array, reach: float) -> Array:
        """Perturb cameras as much as structure from motion does."""
        rng, out = self.rng, T_world_cam.copy()
        sigma = self.config.camera_noise_px * rng.exponential(1.0)
        for i in range(len(out)):
            error = rng.normal(0, sigma / K[i, 0, 0], 3)
            out[i, :3, :3] = out[i, :3, :3] @ euler(error[0], error[1], error[2]).astype(np.float32)
            out[i, :3, 3] += rng.normal(0, 0.3 * sigma / K[i, 0, 0] * reach, 3)
        return out

    def _range(self, depth: Array) -> Array:
        """Depth ranges as sparse points would give them: percentiles with margins, sometimes cut short."""
        rng, out = self.rng, np.empty((len(depth), 2), np.float32)
        near_margin, far_margin = rng.uniform(0.45, 0.97), math.exp(rng.uniform(0.03, 1.0))
        top = 90 if rng.random() < 0.15 else 99
        for i, d in enumerate(depth):
            solid = d[d < 1e20]
            low, high = np.percentile(solid, (1, top))
            out[i] = low * near_margin, max(high * far_margin, low * 1.5)
        return out


def off_plane(depth: Float[Array, "V h w"]) -> float:
    """Share of pixels that do not lie on their photo's largest plane, on average over the photos.

    A plane's inverse depth is affine in the pixel; the largest is found from random triples of pixels (Fischler and Bolles, "Random
    sample consensus", 1981).
    """
    height, width = depth.shape[1:]
    y, x = np.mgrid[0:height, 0:width]
    basis = np.stack([x.ravel() / width, y.ravel() / height, np.ones(height * width)], axis=1)
    triples = np.random.default_rng(0).integers(0, len(basis), (PLANES_TRIED, 3))
    shares = []
    for one in depth:
        inverse = np.where(one < 1e20, 1.0 / one, 0.0).ravel().astype(np.float64)
        low, middle, high = np.percentile(inverse, (5, 50, 95))
        allowed = OFF_PLANE * max(high - low, middle, 1e-9)
        proper = np.abs(np.linalg.det(basis[triples])) > 1e-3
        planes = np.linalg.solve(basis[triples[proper]], inverse[triples[proper]][..., None])[..., 0]
        off = (np.abs(planes @ basis.T - inverse) > allowed).mean(axis=1)
        shares.append(float(off.min()))
    return float(np.mean(shares))


def textured(images: Float[Array, "V H W 3"]) -> float:
    """Share of 8 x 8 blocks with texture, on average over the photos."""
    views, height, width = images.shape[:3]
    grey = images.mean(axis=-1)[:, : height // 8 * 8, : width // 8 * 8]
    blocks = grey.reshape(views, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4).reshape(views, -1, 64)
    return float((blocks.std(axis=-1) > TEXTURED).mean())
