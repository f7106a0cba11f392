"""The classical baseline on a scene whose depth is known exactly."""

from __future__ import annotations

import pytest
import torch

from models.plane_sweep import refine_best
from models.registry import load_predictor
from recon.errors import UserError
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras

WALL_Z, FOCAL, WIDTH, HEIGHT = 3.0, 80.0, 96, 64


def wall_views(shifts: tuple[float, ...]) -> PosedViews:
    """Photos of a wall at z = 3 with a smooth random picture, from cameras moved along x."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.rand(12, 4, generator=generator) * torch.tensor([8.0, 8.0, 6.28, 1.0]) - torch.tensor([4.0, 4.0, 0.0, 0.0])

    def photo(shift: float) -> torch.Tensor:
        v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
        x, y = (u - WIDTH / 2) / FOCAL * WALL_Z + shift, (v - HEIGHT / 2) / FOCAL * WALL_Z
        value = sum(w[3] * torch.sin(w[0] * 2 * x + w[1] * 2 * y + w[2]) for w in waves)
        return torch.sigmoid(value)[..., None].expand(-1, -1, 3).contiguous()

    images = [photo(shift) for shift in shifts]
    T_world_cam = torch.eye(4, dtype=torch.float64).repeat(len(shifts), 1, 1)
    T_world_cam[:, 0, 3] = torch.tensor(shifts, dtype=torch.float64)
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64).repeat(len(shifts), 1, 1)
    return PosedViews(
        names=tuple(str(s) for s in shifts),
        cameras=Cameras(T_world_cam=T_world_cam, K=K, width=(WIDTH,) * len(shifts), height=(HEIGHT,) * len(shifts)),
        read=lambda i: (images[i], torch.ones(HEIGHT, WIDTH, dtype=torch.bool)),
    )


def test_a_textured_wall_is_found_and_believed():
    posed = wall_views((-0.3, 0.0, 0.3))
    result = load_predictor("plane-sweep")(posed, ((1, 2), (0, 2), (1, 0)), torch.tensor([[1.5, 9.0]] * 3), Progress())
    inner = result.depth[1][4:-4, 8:-8]
    assert float((inner / WALL_Z - 1).abs().median()) < 0.01
    assert float(result.confidence[1][4:-4, 8:-8].median()) > 0.8
    assert result.cameras.width == (WIDTH // 2,) * 3


def test_a_plain_wall_is_not_believed():
    posed = wall_views((-0.3, 0.0, 0.3))
    plain = torch.full((HEIGHT, WIDTH, 3), 0.5)
    noisy = [plain + 0.002 * torch.randn(plain.shape, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    flat = PosedViews(
        names=posed.names, cameras=posed.cameras, read=lambda i: (noisy[i], torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    )
    result = load_predictor("plane-sweep")(flat, ((1, 2), (0, 2), (1, 0)), torch.tensor([[1.5, 9.0]] * 3), Progress())
    assert float(result.confidence[1].mean()) < 0.2


def test_parabola_finds_a_peak_between_planes():
    inverses = torch.linspace(0.1, 1.0, 10)
    scores = -((torch.arange(10.0) - 4.3) ** 2).view(10, 1, 1)
    depth, _ = refine_best(scores, inverses)
    assert float(depth) == pytest.approx(1 / (0.1 + 0.1 * 4.3), rel=1e-4)


def test_weights_for_a_method_without_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="no weights"):
        load_predictor("plane-sweep", weights=tmp_path / "any.safetensors")
