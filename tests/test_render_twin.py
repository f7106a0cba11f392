"""The Numba kernels against the torch twin in float64: pictures, extra outputs and every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from raster_scenes import FIELDS, adversarial_scenes, cameras_around, random_scene
from torch import Tensor

from recon.records import Cameras, Gaussians, RasterOptions, Rendering
from render import twin
from render.constants import ALPHA_CAP, ALPHA_MIN, TRANSMITTANCE_STOP
from render.rasterizer import load_rasterizer

VALUE_TOLERANCE = 1e-4  # absolute, of colours in [0, 1]; asked for by the product
DEPTH_TOLERANCE = 1e-4  # relative
GRADIENT_TOLERANCE = 1e-3  # relative; asked for by the product
# A pixel whose alpha or transmittance lies this near (relatively) to a cut-off may fall on either side in float32.
CUT_OFF_MARGIN = 2e-4

BACKGROUND = (0.2, 0.5, 0.7)


def to_double(gaussians: Gaussians) -> Gaussians:
    return Gaussians(**{name: getattr(gaussians, name).double() for name in FIELDS})


def cameras_to(cameras: Cameras, dtype: torch.dtype) -> Cameras:
    return replace(cameras, T_world_cam=cameras.T_world_cam.to(dtype), K=cameras.K.to(dtype))


def clear_pixels(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Tensor:
    """True, ``V H W``, for pixels that no cut-off decides."""
    masks = []
    for view in range(len(cameras)):
        width, height = cameras.width[view], cameras.height[view]
        splats = twin.project(to_double(gaussians), cameras_to(cameras, torch.float64), view, options)
        index = torch.arange(width * height)
        pixels = torch.stack([index % width, index // width], dim=-1).double() + 0.5
        dx, dy = (pixels[:, None] - splats.means_px[None]).unbind(-1)
        a, b, c = splats.conics.unbind(-1)
        full = splats.opacities * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        alpha = torch.where(full >= ALPHA_MIN, full.clamp(max=ALPHA_CAP), torch.zeros_like(full))
        through = torch.cumprod(1 - alpha, dim=1)
        far = (full / ALPHA_MIN - 1).abs() > CUT_OFF_MARGIN
        far &= (full / ALPHA_CAP - 1).abs() > CUT_OFF_MARGIN
        far &= (through / TRANSMITTANCE_STOP - 1).abs() > CUT_OFF_MARGIN * 5
        masks.append(far.all(dim=1).reshape(height, width))
    return torch.stack(masks)


def assert_same_pictures(fast: Rendering, slow: Rendering, clear: Tensor) -> None:
    for name in ("color", "alpha", "normals"):
        difference = (getattr(fast, name) - getattr(slow, name)).abs()
        difference = difference.amax(dim=-1) if difference.ndim == 4 else difference
        assert (difference * clear).max().item() <= VALUE_TOLERANCE, name
    depth = (fast.depth - slow.depth).abs() / slow.depth.abs().clamp(min=1.0)
    assert (depth * clear).max().item() <= DEPTH_TOLERANCE
    # The median jumps where the transmittance grazes a half; elsewhere it is one Gaussian's depth.
    same = (fast.median_depth - slow.median_depth).abs() <= DEPTH_TOLERANCE * slow.median_depth.clamp(min=1.0)
    assert (same | ~clear).float().mean().item() >= 0.995


def draw_both(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> tuple[Rendering, Rendering]:
    fast = load_rasterizer("cpu")(gaussians, cameras, options)
    slow = load_rasterizer("torch")(to_double(gaussians), cameras_to(cameras, torch.float64), options)
    return fast, slow


def gradients(name: str, dtype: torch.dtype, gaussians: Gaussians, cameras: Cameras, options: RasterOptions, weight: Tensor):
    """Gradients of a fixed random combination of color, alpha and depth, over the pixels with weight."""
    leaves = {field: getattr(gaussians, field).to(dtype, copy=True).requires_grad_() for field in FIELDS}
    T_world_cam = cameras.T_world_cam.to(dtype, copy=True).requires_grad_()
    K = cameras.K.to(dtype, copy=True).requires_grad_()
    rendering = load_rasterizer(name)(Gaussians(**leaves), replace(cameras, T_world_cam=T_world_cam, K=K), options)
    g = torch.Generator().manual_seed(7)
    total = torch.zeros((), dtype=dtype)
    for picture in (rendering.color, rendering.alpha, rendering.depth * 0.3):
        mask = weight[..., None] if picture.ndim == 4 else weight
        total = total + (picture * mask.to(dtype) * torch.randn(picture.shape, generator=g).to(dtype)).sum()
    total.backward()
    return {**{field: leaf.grad for field, leaf in leaves.items()}, "T_world_cam": T_world_cam.grad, "K": K.grad}


def row_scales(name: str, exact: dict[str, Tensor], gaussians: Gaussians) -> Tensor:
    """Size of each Gaussian's gradient, on which its error is judged.

    A quaternion's gradient is the difference between those of the axes it turns: for a sphere it is zero by cancellation. Its
    scale is therefore at least that of the axes.
    """
    rows = exact[name].flatten(1) if exact[name].ndim > 1 else exact[name][:, None]
    scale = rows.abs().amax(dim=1)
    if name == "quats":
        scale = torch.maximum(scale, (exact["scales"] * gaussians.scales).abs().amax(dim=1) / gaussians.quats.norm(dim=1))
    return scale


def assert_same_gradients(fast: dict[str, Tensor], slow: dict[str, Tensor], gaussians: Gaussians) -> None:
    for name, exact in slow.items():
        assert torch.isfinite(fast[name]).all(), name
        if not exact.numel():
            continue
        error = (fast[name] - exact).abs()
        if name not in FIELDS:
            assert error.max() <= GRADIENT_TOLERANCE * exact.abs().max().clamp(min=1e-9), name
            continue
        # Every Gaussian's gradient is right on its own scale, down to 2e-5 of the largest one in the scene.
        scale = row_scales(name, slow, gaussians)
        error = error.flatten(1).amax(dim=1) if error.ndim > 1 else error
        assert (error <= GRADIENT_TOLERANCE * scale + 2e-5 * scale.max() + 1e-12).all(), name


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("antialiased", [False, True])
def test_random_scene_draws_as_the_twin(sh_degree: int, antialiased: bool) -> None:
    gaussians, cameras = random_scene(400, sh_degree=sh_degree, seed=sh_degree), cameras_around(2)
    options = RasterOptions(background=BACKGROUND, antialiased=antialiased, median_depth=True, normals=True, contribution=True)
    fast, slow = draw_both(gaussians, cameras, options)
    clear = clear_pixels(gaussians, cameras, options)
    assert clear.float().mean() > 0.8
    assert_same_pictures(fast, slow, clear)
    assert fast.contribution is not None
    assert torch.allclose(fast.contribution.double(), slow.contribution, rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("antialiased", [False, True])
def test_random_scene_gradients(antialiased: bool) -> None:
    gaussians, cameras = random_scene(400, seed=11), cameras_around(2)
    options = RasterOptions(background=BACKGROUND, antialiased=antialiased)
    weight = clear_pixels(gaussians, cameras, options)
    fast = gradients("cpu", torch.float32, gaussians, cameras, options, weight)
    slow = gradients("torch", torch.float64, gaussians, cameras, options, weight)
    assert_same_gradients(fast, slow, gaussians)


@pytest.mark.parametrize("name", list(adversarial_scenes()))
def test_adversarial_scene(name: str) -> None:
    gaussians, cameras = adversarial_scenes()[name], cameras_around(1)
    options = RasterOptions(background=BACKGROUND, median_depth=True, normals=True)
    fast, slow = draw_both(gaussians, cameras, options)
    clear = clear_pixels(gaussians, cameras, options)
    assert_same_pictures(fast, slow, clear)
    assert_same_gradients(
        gradients("cpu", torch.float32, gaussians, cameras, options, clear),
        gradients("torch", torch.float64, gaussians, cameras, options, clear),
        gaussians,
    )


@pytest.mark.parametrize(
    ("count", "width", "height"), [(0, 20, 20), (0, 1, 1), (30, 1, 1), (30, 16, 16), (30, 17, 1), (200, 33, 70)]
)
def test_odd_sizes(count: int, width: int, height: int) -> None:
    gaussians, cameras = random_scene(count, seed=2), cameras_around(2, width=width, height=height)
    options = RasterOptions(background=BACKGROUND, median_depth=True, normals=True)
    fast, slow = draw_both(gaussians, cameras, options)
    clear = clear_pixels(gaussians, cameras, options)
    assert fast.color.shape == (2, height, width, 3)
    assert_same_pictures(fast, slow, clear)
    assert_same_gradients(
        gradients("cpu", torch.float32, gaussians, cameras, options, clear),
        gradients("torch", torch.float64, gaussians, cameras, options, clear),
        gaussians,
    )


def test_lower_sh_degree_on_request() -> None:
    gaussians, cameras = random_scene(200, sh_degree=3), cameras_around(1)
    options = RasterOptions(sh_degree=1)
    fast, slow = draw_both(gaussians, cameras, options)
    assert (fast.color - slow.color).abs().max() < 1e-3
    cut = Gaussians(**{**{f: getattr(gaussians, f) for f in FIELDS}, "sh": gaussians.sh[:, :4].contiguous()})
    assert torch.equal(fast.color, load_rasterizer("cpu")(cut, cameras).color)


def test_near_and_far_cut_by_centre_depth() -> None:
    gaussians, cameras = random_scene(200), cameras_around(1)
    options = RasterOptions(near=2.2, far=2.9, background=BACKGROUND)
    fast, slow = draw_both(gaussians, cameras, options)
    clear = clear_pixels(gaussians, cameras, options)
    assert ((fast.color - slow.color).abs().amax(dim=-1) * clear).max() <= VALUE_TOLERANCE
    assert fast.alpha.sum() < load_rasterizer("cpu")(gaussians, cameras).alpha.sum()


def test_tiles_are_a_part_of_the_whole() -> None:
    gaussians, cameras = random_scene(300), cameras_around(2)
    g = torch.Generator().manual_seed(0)
    tiles = torch.rand(2, 3, 4, generator=g) < 0.5
    whole = load_rasterizer("cpu")(gaussians, cameras, RasterOptions(background=BACKGROUND))
    options = RasterOptions(background=BACKGROUND, tiles=tiles)
    part = load_rasterizer("cpu")(gaussians, cameras, options)
    mask = tiles.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :37, :50]
    assert torch.equal(part.color[mask], whole.color[mask])
    assert torch.equal(part.color[~mask], torch.tensor(BACKGROUND).expand_as(part.color[~mask]))
    assert part.alpha[~mask].abs().max() == 0
    assert part.depth[~mask].abs().max() == 0
    weight = clear_pixels(gaussians, cameras, options)
    assert_same_gradients(
        gradients("cpu", torch.float32, gaussians, cameras, options, weight),
        gradients("torch", torch.float64, gaussians, cameras, options, weight),
        gaussians,
    )


def test_non_finite_gaussians_are_dropped_and_counted() -> None:
    gaussians, cameras = random_scene(200), cameras_around(2)
    clean = load_rasterizer("cpu")(gaussians.select(torch.arange(6, 200)), cameras)
    broken = {field: getattr(gaussians, field).clone() for field in FIELDS}
    broken["means"][0, 1] = float("nan")
    broken["quats"][1, 2] = float("inf")
    broken["scales"][2, 0] = float("-inf")
    broken["opacities"][3] = float("nan")
    broken["means"][4], broken["opacities"][4], broken["sh"][4, 3, 1] = 0.0, 0.9, float("nan")
    broken["quats"][5] = 0.0
    for device in ("cpu", "torch"):
        leaves = {field: tensor.clone().requires_grad_() for field, tensor in broken.items()}
        drawn = load_rasterizer(device)(Gaussians(**leaves), cameras)
        assert drawn.dropped == (6, 6)
        assert (drawn.color - clean.color).abs().max() < (1e-7 if device == "cpu" else 1e-2)
        drawn.color.sum().backward()
        assert torch.isfinite(leaves["means"].grad[6:]).all()
        if device == "cpu":
            assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())
            assert leaves["means"].grad[:6].abs().max() == 0


def test_no_gradient_is_kept_when_none_is_wanted() -> None:
    rendering = load_rasterizer("cpu")(random_scene(10), cameras_around(1))
    assert not rendering.color.requires_grad
    with torch.no_grad():
        leaf = random_scene(10)
        leaf.means.requires_grad_()
        assert not load_rasterizer("cpu")(leaf, cameras_around(1)).color.requires_grad
