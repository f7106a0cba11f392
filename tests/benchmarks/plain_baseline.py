"""The yardstick of the polish benchmark: plain 3DGS optimisation from sparse points, through our own rasteriser.

Input: posed photos and sparse points. Output: Gaussians after a number of seconds.
Isotropic Gaussians at the points, torch's Adam, the learning rates and gradient-driven clone, split and prune of the 3DGS
paper, and the resolution ladder that suits short runs (45% of the time at a quarter of the size, 45% at half, 10% whole).
Shares the rasteriser and the loss kernel with the product and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import cv2
import numpy as np
import torch

from recon.geometry import quats_to_rotations, rgb_to_sh0
from recon.polishing.losses import LossConfig, photo_loss
from recon.polishing.schedule import Clock
from recon.polishing.targets import Targets
from recon.posed import PosedViews
from recon.records import Cameras, Gaussians, Rasterizer, RasterOptions

GROW_GRADIENT = 2e-4
"""Mean gradient with respect to the position in normalised image coordinates above which a Gaussian is cloned or split."""
NAMES = ("means", "quats", "scales", "opacities", "sh")


def sparse_points(posed: PosedViews, *, features: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangulate SIFT matches with the given cameras: ratio test, two-view linear triangulation, 2 px, 1.5 degrees.

    Returns:
        Points ``M 3`` in the world and their colours ``M 3``.
    """
    sift = cv2.SIFT.create(nfeatures=features)
    found = []
    for i in range(len(posed)):
        image = (posed.image(i).numpy() * 255).astype(np.uint8)
        keypoints, descriptors = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        found.append((np.array([k.pt for k in keypoints], np.float64).reshape(-1, 2) + 0.5, descriptors, image))
    T_cam_world, K = posed.cameras.T_cam_world.double().numpy(), posed.cameras.K.double().numpy()
    P = [K[i] @ T_cam_world[i, :3] for i in range(len(posed))]
    centers = posed.cameras.centers_world.double().numpy()
    points, colors, taken = [], [], set()
    matcher = cv2.BFMatcher()
    for a, b in itertools.combinations(range(len(posed)), 2):
        if found[a][1] is None or found[b][1] is None or len(found[b][1]) < 2:
            continue
        pairs = [
            m[0] for m in matcher.knnMatch(found[a][1], found[b][1], k=2) if len(m) == 2 and m[0].distance < 0.75 * m[1].distance
        ]
        pairs = [m for m in pairs if (a, m.queryIdx) not in taken and (b, m.trainIdx) not in taken]
        if not pairs:
            continue
        xa, xb = found[a][0][[m.queryIdx for m in pairs]], found[b][0][[m.trainIdx for m in pairs]]
        homogeneous = cv2.triangulatePoints(P[a], P[b], xa.T, xb.T)
        X = (homogeneous[:3] / homogeneous[3:]).T
        good = np.isfinite(X).all(1)
        for p, x in ((P[a], xa), (P[b], xb)):
            projected = X @ p[:, :3].T + p[:, 3]
            good &= (projected[:, 2] > 0) & (np.linalg.norm(projected[:, :2] / projected[:, 2:] - x, axis=1) < 2)
        ra, rb = X - centers[a], X - centers[b]
        cosine = (ra * rb).sum(1) / (np.linalg.norm(ra, axis=1) * np.linalg.norm(rb, axis=1) + 1e-12)
        good &= cosine < math.cos(math.radians(1.5))
        for k in np.nonzero(good)[0]:
            taken.update({(a, pairs[k].queryIdx), (b, pairs[k].trainIdx)})
            points.append(X[k])
            colors.append(found[a][2][int(xa[k, 1] - 0.5), int(xa[k, 0] - 0.5)] / 255)
    return torch.tensor(np.array(points).reshape(-1, 3)).float(), torch.tensor(np.array(colors).reshape(-1, 3)).float()


def initial(points: torch.Tensor, colors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Isotropic Gaussians as large as the mean distance to the three nearest points, opacity 0.1, SH degree 1."""
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(float("inf"))
    spacing = distances.topk(min(3, len(points) - 1), largest=False).values.mean(1).clamp_min(1e-7)
    sh = torch.zeros(len(points), 4, 3)
    sh[:, 0] = rgb_to_sh0(colors)
    return {
        "means": points.clone(),
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        "scales": spacing.log()[:, None].repeat(1, 3),
        "opacities": torch.full((len(points),), math.log(0.1 / 0.9)),
        "sh": sh,
    }


class PlainOptimisation:
    """3DGS training by the clock."""

    def __init__(self, posed: PosedViews, rasterizer: Rasterizer, seconds: float, timer: Callable[[], float]) -> None:
        self.posed, self.rasterizer = posed, rasterizer
        self.targets = Targets(posed)
        points, colors = sparse_points(posed)
        self.point_count = len(points)
        centers = posed.cameras.centers_world
        self.extent = 1.1 * float((centers - centers.mean(0)).norm(dim=1).max())
        self.values = initial(points, colors) if len(points) >= 4 else None
        self.memory = {n: [torch.zeros_like(v), torch.zeros_like(v)] for n, v in (self.values or {}).items()}
        self.steps, self.since = 0, 0
        self.order: list[int] = []
        self.generator = torch.Generator().manual_seed(0)
        self._forget()
        self.clock = Clock(seconds, timer)

    def _forget(self) -> None:
        count = len(self.values["means"]) if self.values else 0
        self.gradient_sum, self.gradient_count = torch.zeros(count), torch.zeros(count)

    def gaussians(self) -> Gaussians:
        """The present scene."""
        v = self.values
        assert v is not None
        return Gaussians(
            means=v["means"],
            quats=torch.nn.functional.normalize(v["quats"], dim=1),
            scales=v["scales"].exp(),
            opacities=torch.sigmoid(v["opacities"]),
            sh=v["sh"],
        )

    def run(self, until: float, observe: Callable[[PlainOptimisation], None]) -> None:
        """Train until a share of the clock has passed."""
        while (share := self.clock.share) < until:
            self._step(share)
            observe(self)
            self.since += 1
            if self.since >= 100 and 0.05 < share < 0.6:
                self._densify()
                self.since = 0

    def _step(self, share: float) -> None:
        if not self.order:
            self.order = torch.randperm(len(self.posed), generator=self.generator).tolist()
        view = self.order.pop()
        factor = 4 if share < 0.45 else 2 if share < 0.9 else 1
        target = self.targets.at(view, factor)
        width, height = self.targets.size(view, factor)
        K = self.targets.scaled_K(self.posed.cameras.K[view], view, factor)
        camera = Cameras(T_world_cam=self.posed.cameras.T_world_cam[view][None], K=K[None], width=width, height=height)
        leaves = {n: v.clone().requires_grad_() for n, v in self.values.items()}
        scene = Gaussians(
            means=leaves["means"], quats=torch.nn.functional.normalize(leaves["quats"], dim=1), scales=leaves["scales"].exp(),
            opacities=torch.sigmoid(leaves["opacities"]), sh=leaves["sh"],
        )  # fmt: skip
        degree = 0 if share < 0.5 else 1
        rendering = self.rasterizer(scene, camera, RasterOptions(sh_degree=degree))
        loss = photo_loss(rendering.color[0].detach(), target, LossConfig())
        gradients = dict(zip(leaves, torch.autograd.grad(rendering.color, list(leaves.values()), loss.gradient[None]), strict=True))
        depth = (leaves["means"].detach() - camera.T_world_cam[0, :3, 3]) @ camera.T_world_cam[0, :3, 2]
        on_screen = gradients["means"].norm(dim=1) * depth.clamp_min(1e-6) / (K[0, 0] * 2 / max(width, height))
        self.gradient_sum += on_screen
        self.gradient_count += gradients["opacities"] != 0
        self.steps += 1
        rates = {"means": 1.6e-4 * self.extent * 0.01**share, "quats": 1e-3, "scales": 5e-3, "opacities": 0.05, "sh": 2.5e-3}
        for name, g in gradients.items():
            first, second = self.memory[name]
            first.mul_(0.9).add_(g, alpha=0.1)
            second.mul_(0.999).addcmul_(g, g, value=0.001)
            change = (first / (1 - 0.9**self.steps)) / ((second / (1 - 0.999**self.steps)).sqrt() + 1e-15)
            if name == "sh":
                change[:, 1:] /= 20
            self.values[name] -= rates[name] * change

    def _densify(self) -> None:
        mean = self.gradient_sum / self.gradient_count.clamp_min(1)
        scales = self.values["scales"].exp().amax(1)
        hot = mean > GROW_GRADIENT
        small, large = hot & (scales <= 0.01 * self.extent), hot & (scales > 0.01 * self.extent)
        keep = ~large & (torch.sigmoid(self.values["opacities"]) > 0.005)
        R = quats_to_rotations(self.values["quats"][large])
        parts: dict[str, list[torch.Tensor]] = {n: [v[keep], v[small]] for n, v in self.values.items()}
        for _ in range(2):
            offset = torch.randn(int(large.sum()), 3, generator=self.generator) * self.values["scales"][large].exp()
            parts["means"].append(self.values["means"][large] + (R @ offset[:, :, None])[:, :, 0])
            parts["scales"].append(self.values["scales"][large] - math.log(1.6))
            for name in ("quats", "opacities", "sh"):
                parts[name].append(self.values[name][large])
        self.values = {n: torch.cat(p) for n, p in parts.items()}
        added = len(self.values["means"]) - int(keep.sum())
        self.memory = {n: [torch.cat([m[keep], m.new_zeros(added, *m.shape[1:])]) for m in pair] for n, pair in self.memory.items()}
        self._forget()
