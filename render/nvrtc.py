"""The rasteriser on an NVIDIA GPU without a CUDA toolkit: kernels compiled at run time by the NVRTC that torch brings.

Input: checked ``Gaussians`` and ``Cameras`` on a CUDA device. Output: ``Rendering``, differentiable like the twin.
Projection and shading are the twin's, in torch on the GPU, where autograd gives their gradients. Splats are sorted into tiles with
torch's sort. Two CUDA kernels, one thread a pixel, composite the tiles and take gradients back to the splats.
Does not: match gsplat's speed; it serves machines where gsplat's kernels cannot be built.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from . import twin
from .constants import ALPHA_CAP, ALPHA_MIN, TILE, TRANSMITTANCE_STOP

SPLAT = 13
"""Floats of a splat: mean x y, conic a b c, opacity, red green blue, depth, normal x y z."""
PICTURE = 6
"""Floats of a pixel: red green blue, sum of w z, sum of w, final transmittance."""
EXTRAS = 4
"""Floats of a pixel: median depth, normal x y z."""

SOURCE = r"""
#define ALPHA_AT(s, x, y)                                              \
    float dx = x + 0.5f - s[0], dy = y + 0.5f - s[1];                  \
    float full = s[5] * expf(-0.5f * (s[2] * dx * dx + s[4] * dy * dy) - s[3] * dx * dy); \
    float alpha = fminf(full, ALPHA_CAP);

extern "C" __global__ void draw(const int* starts, const int* hits, const float* splats, int columns, int width, int height,
                                float* picture, float* extras, int* last, float* contribution)
{
    int tile = blockIdx.x, x = tile % columns * TILE + threadIdx.x, y = tile / columns * TILE + threadIdx.y;
    if (x >= width || y >= height) return;
    float through = 1.0f, sums[PICTURE] = {0}, more[EXTRAS] = {0};
    int pixel = y * width + x, end = starts[tile];
    for (int hit = starts[tile]; hit < starts[tile + 1]; hit++) {
        const float* s = splats + (long long)hits[hit] * SPLAT;
        ALPHA_AT(s, x, y)
        if (!(alpha >= ALPHA_MIN)) continue;
        float after = through * (1.0f - alpha);
        if (after <= STOP) break;
        float weight = through * alpha;
        for (int k = 0; k < 4; k++) sums[k] += weight * s[6 + k];
        sums[4] += weight;
        for (int k = 0; k < 3; k++) more[1 + k] += weight * s[10 + k];
        if (through > 0.5f && after <= 0.5f) more[0] = s[9];
        atomicAdd(contribution + hits[hit], weight);
        through = after;
        end = hit + 1;
    }
    sums[5] = through;
    for (int k = 0; k < PICTURE; k++) picture[pixel * PICTURE + k] = sums[k];
    for (int k = 0; k < EXTRAS; k++) extras[pixel * EXTRAS + k] = more[k];
    last[pixel] = end;
}

extern "C" __global__ void gather(const int* starts, const int* hits, const float* splats, int columns, int width, int height,
                                  const float* picture, const int* last, const float* incoming, float* gradient)
{
    int tile = blockIdx.x, x = tile % columns * TILE + threadIdx.x, y = tile / columns * TILE + threadIdx.y;
    if (x >= width || y >= height) return;
    int pixel = y * width + x;
    const float* g = incoming + pixel * PICTURE;
    float through = picture[pixel * PICTURE + 5], behind = through * g[5];
    for (int hit = last[pixel] - 1; hit >= starts[tile]; hit--) {
        const float* s = splats + (long long)hits[hit] * SPLAT;
        float* out = gradient + (long long)hits[hit] * SPLAT;
        ALPHA_AT(s, x, y)
        if (!(alpha >= ALPHA_MIN)) continue;
        float rest = 1.0f / (1.0f - alpha);
        through *= rest;
        float weight = through * alpha, own = g[4];
        for (int k = 0; k < 4; k++) own += s[6 + k] * g[k];
        float v = full <= ALPHA_CAP ? alpha * (through * own - behind * rest) : 0.0f;
        behind += weight * own;
        atomicAdd(out + 0, v * (s[2] * dx + s[3] * dy));
        atomicAdd(out + 1, v * (s[3] * dx + s[4] * dy));
        atomicAdd(out + 2, -0.5f * v * dx * dx);
        atomicAdd(out + 3, -v * dx * dy);
        atomicAdd(out + 4, -0.5f * v * dy * dy);
        atomicAdd(out + 5, v / s[5]);
        for (int k = 0; k < 4; k++) atomicAdd(out + 6 + k, weight * g[k]);
    }
}
"""


def source() -> str:
    """The kernels with the project's constants."""
    numbers = {"ALPHA_CAP": ALPHA_CAP, "ALPHA_MIN": ALPHA_MIN, "STOP": TRANSMITTANCE_STOP}
    sizes = {"TILE": TILE, "SPLAT": SPLAT, "PICTURE": PICTURE, "EXTRAS": EXTRAS}
    defines = [f"#define {name} {value!r}f" for name, value in numbers.items()]
    return "\n".join([*defines, *(f"#define {name} {value}" for name, value in sizes.items()), SOURCE])


@cache
def why_unavailable() -> str:
    """Say why kernels cannot be compiled at run time; empty when they can."""
    if not torch.cuda.is_available():
        return "no CUDA device, or a torch built without CUDA"
    if not hasattr(torch.cuda, "_compile_kernel"):
        return f"torch {torch.__version__} cannot compile kernels at run time; 2.9 or newer can"
    try:
        _kernel("draw")
    except (RuntimeError, OSError, ImportError) as error:
        return f"NVRTC does not compile ({error})"
    return ""


@cache
def _kernel(name: str) -> Any:
    return torch.cuda._compile_kernel(source(), name)


def launch(name: str, tiles: int, arguments: list[Any]) -> None:
    """Run a kernel on one block of TILE x TILE threads per tile."""
    _kernel(name)(grid=(tiles, 1, 1), block=(TILE, TILE, 1), args=arguments)


def bin_tiles(packed: Tensor, width: int, height: int, wanted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Runs of splats per tile, nearest first: starts (tiles + 1) and hits, int32.

    Args:
        packed: splats ``M 13``, nearest first.
        width: of the picture, pixels.
        height: of the picture, pixels.
        wanted: tiles to draw, bool ``tile_rows tile_cols``; None for all.
    """
    rows, columns = -(-height // TILE), -(-width // TILE)
    a, b, c, opacity = packed[:, 2], packed[:, 3], packed[:, 4], packed[:, 5]
    reach = 2.0 * torch.log((opacity / ALPHA_MIN).clamp(min=1.0)) / (a * c - b * b).clamp(min=1e-30)
    extent = torch.stack([(reach * c).sqrt(), (reach * a).sqrt()], dim=1) + 0.01
    limit = packed.new_tensor([columns - 1, rows - 1])
    first = ((packed[:, :2] - extent) / TILE).floor().clamp(min=0).minimum(limit + 1).long()
    last = ((packed[:, :2] + extent) / TILE).floor().clamp(min=-1).minimum(limit).long()
    sides = (last - first + 1).clamp(min=0) * (opacity >= ALPHA_MIN)[:, None]
    counts = sides.prod(dim=1)
    splat = torch.repeat_interleave(torch.arange(len(packed), device=packed.device), counts)
    within = torch.arange(len(splat), device=packed.device) - (counts.cumsum(0) - counts)[splat]
    across = sides[splat, 0].clamp(min=1)
    tile = (first[splat, 1] + within // across) * columns + first[splat, 0] + within % across
    if wanted is not None:
        keep = wanted.reshape(-1)[tile]
        tile, splat = tile[keep], splat[keep]
    tile, order = torch.sort(tile, stable=True)
    starts = torch.searchsorted(tile, torch.arange(rows * columns + 1, device=packed.device))
    return starts.int(), splat[order].int()


class _Composite(torch.autograd.Function):
    """Splats ``M 13`` -> pictures ``H W 6``; extras and contribution carry no gradient."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, width: int, height: int, wanted: Tensor | None):
        splats = packed.detach().contiguous()
        starts, hits = bin_tiles(splats, width, height, wanted)
        picture, extras = splats.new_zeros(height, width, PICTURE), splats.new_zeros(height, width, EXTRAS)
        last = torch.zeros(height, width, dtype=torch.int32, device=splats.device)
        contribution = splats.new_zeros(len(splats))
        columns = -(-width // TILE)
        launch("draw", len(starts) - 1, [starts, hits, splats, columns, width, height, picture, extras, last, contribution])
        ctx.save_for_backward(splats, starts, hits, picture, last)
        ctx.mark_non_differentiable(extras, contribution)
        return picture, extras, contribution

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor, *_: Any):  # pyright: ignore[reportIncompatibleMethodOverride] torch's own way
        splats, starts, hits, picture, last = ctx.saved_tensors
        height, width = last.shape
        gradient = torch.zeros_like(splats)
        columns = -(-width // TILE)
        pointers = [starts, hits, splats, columns, width, height, picture, last, incoming.contiguous(), gradient]
        launch("gather", len(starts) - 1, pointers)
        return gradient, None, None, None


def _draw_view(gaussians: Gaussians, cameras: Cameras, view: int, options: RasterOptions) -> tuple[Tensor, ...]:
    splats = twin.project(gaussians, cameras, view, options)
    parts = [splats.means_px, splats.conics, splats.opacities[:, None], splats.colors, splats.depths[:, None], splats.normals]
    wanted = None if options.tiles is None else options.tiles[view]
    packed = torch.cat(parts, dim=1).float()
    picture, extras, weights = _Composite.apply(packed, cameras.width[view], cameras.height[view], wanted)
    through = picture[..., 5]
    color = picture[..., :3] + through[..., None] * picture.new_tensor(options.background)
    depth = picture[..., 3] / picture[..., 4].clamp(min=1e-10)
    contribution = picture.new_zeros(len(gaussians)).index_add(0, splats.ids, weights)
    return color, picture[..., 4], depth, extras[..., 0], extras[..., 1:], contribution


def rasterize(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Rendering:
    """Draw checked Gaussians from checked cameras on their GPU."""
    views = [_draw_view(gaussians, cameras, view, options) for view in range(len(cameras))]
    color, alpha, depth, median, normals, contribution = (torch.stack(parts) for parts in zip(*views, strict=True))
    if options.tiles is not None:  # pictures of tiles not drawn are zero, background included
        shown = options.tiles.repeat_interleave(TILE, dim=1).repeat_interleave(TILE, dim=2)
        shown = shown[:, : cameras.height[0], : cameras.width[0], None]
        color = torch.where(shown, color, color.new_tensor(options.background))
    return Rendering(
        color=color,
        alpha=alpha,
        depth=depth,
        median_depth=median if options.median_depth else None,
        normals=normals if options.normals else None,
        contribution=contribution if options.contribution else None,
        dropped=(int((~twin.finite_mask(gaussians)).sum()),) * len(cameras),
    )
