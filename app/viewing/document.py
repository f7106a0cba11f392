"""The scene that is shown, and what was done to it: every step can be undone.

Input: a ``Scene`` and edits. Output: the Gaussians that are left, the frame of the page, and the edited scene to be saved.
Does not: draw, or touch what lies on disk.

All visitors see the same document. A step keeps its own mask over the Gaussians that were opened, so undo is exact.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recon.errors import UserError
from recon.formats.conventions import Similarity, moved_cameras, moved_gaussians, rotation_between
from recon.records import Gaussians, Scene

from ..mesh_command import known_length
from ..scene_files import cameras_around, median_distance, placed_cameras
from .page_frame import PageFrame
from .splats import SHOWN_DISTANCE

logger = logging.getLogger(__name__)

UP_PAGE = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Box:
    """A turned box in the world."""

    center_world: Float[Tensor, " 3"]
    """Middle, world units."""
    R_world_box: Float[Tensor, "3 3"]
    """Columns are the box's axes."""
    size: Float[Tensor, " 3"]
    """Full side lengths, world units."""

    def inside(self, points_world: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """True for points within."""
        local = (points_world.double() - self.center_world.double()) @ self.R_world_box.double()
        return (local.abs() <= self.size.double() / 2).all(dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """The document after one edit."""

    done: str
    """What was done, for people."""
    keep: Bool[Tensor, " N"]
    """Which of the opened Gaussians are left."""
    R_page_world: Float[Tensor, "3 3"]
    """Rotation that brings up to -y."""
    ground: float | None = None
    """Height of the ground: y of the turned world, world units; None when nobody said."""
    metres_per_unit: float | None = None
    """Length of a world unit; None when nobody knows."""


class Document:
    """A scene with its history.

    Args:
        scene: what was opened; at least one Gaussian, on the CPU.
    """

    def __init__(self, scene: Scene) -> None:
        if len(scene.gaussians) == 0:
            raise UserError("The scene holds no Gaussians.", "Run the reconstruction again.")
        self.scene = scene
        self.placed = placed_cameras(scene)
        self.cameras = cameras_around(scene.gaussians) if self.placed is None else self.placed
        self.scale = SHOWN_DISTANCE / median_distance(scene)
        keep = torch.ones(len(scene.gaussians), dtype=torch.bool)
        unit = known_length(scene)
        self._steps = [Step(done="opened", keep=keep, R_page_world=torch.eye(3, dtype=torch.float64), metres_per_unit=unit)]
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._selected: tuple[Step, Gaussians] = (self._steps[0], scene.gaussians)

    @property
    def step(self) -> Step:
        return self._steps[-1]

    @property
    def frame(self) -> PageFrame:
        return PageFrame(scale=self.scale, R_page_world=self.step.R_page_world)

    @property
    def history(self) -> tuple[str, ...]:
        """What was done since opening, oldest first."""
        return tuple(step.done for step in self._steps[1:])

    @property
    def gaussians(self) -> Gaussians:
        """Those that are left."""
        with self._lock:
            step = self.step
            if self._selected[0].keep is not step.keep:
                left = self.scene.gaussians if bool(step.keep.all()) else self.scene.gaussians.select(step.keep)
                self._selected = (step, left)
            return self._selected[1]

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after every edit and undo; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def remove(self, done: str, gone: Bool[Tensor, " M"]) -> int:
        """Take away Gaussians, given as a mask over those that are left; returns how many went.

        Raises:
            UserError: none would be left.
        """
        with self._lock:
            count = int(gone.sum())
            if count == len(self.gaussians):
                raise UserError("Nothing would be left.", "Make the box larger, or keep the other side.")
            if count == 0:
                return 0
            keep = self.step.keep.clone()
            keep[torch.nonzero(keep).flatten()[gone]] = False
            self._steps.append(replace(self.step, done=f"{done}: {count:,} Gaussians", keep=keep))
        self._tell()
        return count

    def set_ground(self, points_world: Float[Tensor, "3 3"]) -> None:
        """Turn the scene so that three points lie level, with the cameras above them.

        Raises:
            UserError: the points lie on a line.
        """
        points = points_world.double()
        edges = points[1:] - points[0]
        normal = torch.linalg.cross(edges[0], edges[1])
        if float(normal.norm()) < 0.05 * float(edges.norm(dim=1).prod()):
            raise UserError("These three points lie on a line.", "Click three points of the ground that are far apart.")
        up = torch.nn.functional.normalize(normal, dim=0)
        above = self.cameras.centers_world.double().mean(dim=0) - points.mean(dim=0)
        up = up if float(up @ above) >= 0 else -up
        R = rotation_between((self.step.R_page_world @ up).float(), UP_PAGE.float()).double() @ self.step.R_page_world
        U, _, Vh = torch.linalg.svd(R)
        R = U @ Vh
        with self._lock:
            ground = float((points @ R.T)[:, 1].mean())
            self._steps.append(replace(self.step, done="ground set", R_page_world=R, ground=ground))
        self._tell()

    def set_length(self, length_units: float, metres: float) -> None:
        """Say how long something is.

        Raises:
            UserError: a length is not above zero.
        """
        if not (length_units > 0 and 0 < metres < 1e9):
            raise UserError("A length must be above zero.", "Click two different points and type how far apart they are.")
        with self._lock:
            unit = metres / length_units
            self._steps.append(replace(self.step, done=f"scale set: {unit:.4g} m per unit", metres_per_unit=unit))
        self._tell()

    def undo(self) -> str | None:
        """Take back the last step and say which; None when there is none."""
        with self._lock:
            if len(self._steps) == 1:
                return None
            undone = self._steps.pop().done
        self._tell()
        return undone

    def edited(self) -> Scene:
        """The scene as it would be saved: turned, with the ground at y = 0, in metres where the scale is known."""
        step = self.step
        length = step.metres_per_unit or 1.0
        shift = torch.zeros(3) if step.ground is None else torch.tensor([0.0, -step.ground * length, 0.0])
        turned = not torch.equal(step.R_page_world, torch.eye(3, dtype=torch.float64))
        R = step.R_page_world.float() if turned else torch.eye(3)
        move = Similarity(R_new_old=R, scale=length, shift=shift)
        cameras = self.scene.cameras
        return Scene(
            gaussians=moved_gaussians(self.gaussians, move),
            cameras=None if cameras is None else moved_cameras(cameras, move),
            provenance=self.scene.provenance,
        )
