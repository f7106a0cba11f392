"""Cameras the user brings, and the camera files we write.

Input: a COLMAP model folder, a nerfstudio or instant-ngp ``transforms.json``, or our ``cameras.json``.
Output: ``SfmResult`` at the original size, every number kept as it was; ``cameras.json`` and ``transforms.json``.
Does not: refine cameras, or turn the world.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..files import read_json, write_json_atomic
from ..records import Cameras, Views
from .colmap_models import read_colmap_model
from .result import SfmResult, blank_cameras, place

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of our ``cameras.json``."""
OPENGL_TO_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
"""T_opengl_opencv: camera axes right, up, back <- right, down, forward. Its own inverse."""
PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
"""Values of ``camera_model`` in transforms.json that k1 k2 p1 p2 describe."""
ASPECT_TOLERANCE = 0.01
"""How far the two scale factors between a file's size and a photo's may differ."""
RIGID_TOLERANCE = 1e-3
"""How far R^T R of a camera may be from the identity."""


class PhotoNames:
    """Finds the photo that a camera file means: by its name, by the end of its path, or by either without suffix."""

    def __init__(self, views: Views) -> None:
        self._by_key: dict[str, set[int]] = {}
        for index, view in enumerate(views):
            for key in self._keys(view.name):
                self._by_key.setdefault(key, set()).add(index)

    @staticmethod
    def _keys(name: str) -> list[str]:
        """The whole name, its shorter and shorter ends, and the same without suffix, most telling first."""
        parts = [p for p in PurePosixPath(name.replace("\\", "/")).parts if p not in (".", "/")]
        ends = ["/".join(parts[i:]) for i in range(len(parts))]
        return ends + [str(PurePosixPath(end).with_suffix("")) for end in ends]

    def find(self, name: str) -> int | None:
        """Index of the one photo that ``name`` can mean; None when there is none or there are several."""
        for key in self._keys(name):
            found = self._by_key.get(key, set())
            if len(found) == 1:
                return next(iter(found))
        return None


def match_names(source: Path, names: Sequence[str], views: Views) -> list[int]:
    """Index of the photo behind each name of a camera file.

    Raises:
        UserError: a name means no photo, or two names mean the same one.
    """
    finder = PhotoNames(views)
    found = [finder.find(name) for name in names]
    absent = [name for name, index in zip(names, found, strict=True) if index is None]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise UserError(
            f"{source} has cameras for {len(absent)} photos that are not among those given: {shown}.",
            "Give the folder with these photos, or a camera file for the photos given.",
        )
    rows = [index for index in found if index is not None]
    twice = sorted({views[i].name for i in rows if rows.count(i) > 1}) if len(set(rows)) < len(rows) else []
    if twice:
        raise UserError(f"{source} has several cameras for {', '.join(twice[:5])}.", "Keep one camera per photo.")
    if not rows:
        raise UserError(f"{source} holds no cameras.", "Give a file with a camera for each photo.")
    return rows


def check_size(source: Path, name: str, size: tuple[int, int], photo: tuple[int, int]) -> None:
    """Accept a camera for the same picture at another size; nothing else.

    Raises:
        UserError: the shapes differ.
    """
    if min(size) <= 0:
        raise UserError(f"{source}: {name} has the size {size[0]}x{size[1]}.", "Repair the file.")
    sx, sy = photo[0] / size[0], photo[1] / size[1]
    # rounding a size to whole pixels moves the factor by up to half a pixel's share
    allowed = ASPECT_TOLERANCE + 1.0 / min(*size, *photo)
    if abs(sx / sy - 1) > allowed:
        turned = " (the photo is turned by its EXIF orientation, the camera is not)" if size == photo[::-1] else ""
        raise UserError(
            f"{source}: {name} is described as {size[0]}x{size[1]} pixels, but the photo has {photo[0]}x{photo[1]}{turned}.",
            "Give cameras for these very photos, uncropped.",
        )


def load_cameras(path: Path, views: Views) -> SfmResult:
    """Load the cameras of photos from a file, exactly as they are.

    Cameras of the same picture at another size are scaled. Photos the file does not name come out as not registered.

    Args:
        path: a COLMAP model folder (or one above it, with sparse/0), ``transforms.json`` or ``cameras.json``.
        views: the photos.

    Raises:
        UserError: the file is missing, malformed, names absent photos, or uses lenses that are not supported.
    """
    path = Path(path)
    if path.is_dir():
        return load_colmap(path, views)
    if path.suffix in (".bin", ".txt"):
        return load_colmap(path.parent, views)
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise UserError(
            f"{path} has no list of frames.", "Give a COLMAP model folder, a nerfstudio transforms.json or our cameras.json."
        )
    frames = data["frames"]
    if not all(isinstance(frame, dict) for frame in frames):
        raise UserError(f"{path}: every frame must be an object.", "Repair the file.")
    try:
        if any("transform_matrix" in frame for frame in frames):
            return _load_transforms(path, data, views)
        return _load_ours(path, data, views)
    except (KeyError, TypeError, ValueError) as error:
        what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} cannot be understood: {what}.", "Repair the file or write it again.") from error


def find_colmap_folder(folder: Path) -> Path:
    """The folder that holds the model itself: this one, or 0, sparse, sparse/0, colmap or colmap/sparse/0 below it.

    Raises:
        UserError: there is none.
    """
    for below in (".", "0", "sparse", "sparse/0", "colmap", "colmap/sparse/0"):
        for suffix in (".bin", ".txt"):
            if all((folder / below / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return folder / below
    raise UserError(
        f"{folder} holds no COLMAP model (cameras and images, .bin or .txt).",
        "Give the folder of the model, a transforms.json or a cameras.json.",
    )


def load_colmap(folder: Path, views: Views) -> SfmResult:
    """Load a COLMAP model with its points and their observations."""
    source = find_colmap_folder(folder)
    result = read_colmap_model(source)
    names = [str(name) for name in result["names"]]
    rows = match_names(source, names, views)
    for name, row, size in zip(names, rows, result["sizes"], strict=True):
        check_size(source, name, (int(size[0]), int(size[1])), (views[row].original_width, views[row].original_height))
    return place(views, result, rows)


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> Float[Tensor, "..."]:
    """A finite float64 tensor of one shape.

    Raises:
        ValueError: it is not.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is not made of numbers") from error
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{what} should be {'x'.join(map(str, shape))} finite numbers")
    return torch.from_numpy(array)


def _rigid(value: Any, what: str) -> Float[Tensor, "4 4"]:
    """A camera-to-world matrix, 4x4 or 3x4, whose left 3x3 part is a rotation."""
    rows = len(value) if isinstance(value, list) else 0
    T = torch.eye(4, dtype=torch.float64)
    T[:3] = _numbers(value, (4, 4), what)[:3] if rows == 4 else _numbers(value, (3, 4), what)
    R = T[:3, :3]
    if (R.T @ R - torch.eye(3, dtype=torch.float64)).abs().max() > RIGID_TOLERANCE or torch.det(R) < 0:
        raise ValueError(f"the left 3x3 part of {what} is not a rotation")
    return T


def _load_ours(path: Path, data: Mapping[str, Any], views: Views) -> SfmResult:
    if data.get("format", FORMAT) != FORMAT:
        raise ValueError(f"format {data['format']!r} is not known; {FORMAT} is")
    frames = [frame for frame in data["frames"] if frame.get("registered", True)]
    params, T_world_cams, sizes = [], [], []
    for frame in frames:
        name = str(frame["name"])
        K = _numbers(frame["K"], (3, 3), f"K of {name}")
        if K[0, 0] <= 0 or K[1, 1] <= 0 or K[0, 1] != 0 or K[1, 0] != 0:
            raise ValueError(f"K of {name} should have positive focal lengths and no skew")
        bend = _numbers(frame.get("distortion") or [0.0] * 4, (4,), f"distortion of {name}")
        params.append([K[0, 0], K[1, 1], K[0, 2], K[1, 2], *bend])
        T_world_cams.append(_rigid(frame["T_world_cam"], f"T_world_cam of {name}"))
        sizes.append((int(frame["width"]), int(frame["height"])))
    return _from_frames(path, [str(frame["name"]) for frame in frames], params, T_world_cams, sizes, views)


def _load_transforms(path: Path, data: Mapping[str, Any], views: Views) -> SfmResult:
    """Camera-to-world matrices in OpenGL axes (x right, y up, z back); intrinsics per frame or for all."""
    names = [str(frame["file_path"]) for frame in data["frames"]]
    rows = match_names(path, names, views)
    params, T_world_cams, sizes = [], [], []
    for name, row, frame in zip(names, rows, data["frames"], strict=True):
        merged = {**data, **frame}
        model = str(merged.get("camera_model", "OPENCV"))
        higher = [key for key in ("k3", "k4", "k5", "k6") if float(merged.get(key) or 0.0) != 0.0]
        if model not in PERSPECTIVE or merged.get("is_fisheye") or higher:
            uses = f"the camera model {model}" if model not in PERSPECTIVE else ", ".join(higher) or "a fisheye lens"
            raise UserError(f"{path} uses {uses}.", "Supported: pinhole cameras with k1 k2 p1 p2 (undistort other photos first).")
        width = int(merged.get("w", views[row].original_width))
        height = int(merged.get("h", views[row].original_height))
        params.append(_transforms_intrinsics(name, merged, width, height))
        T_world_cams.append(_rigid(frame["transform_matrix"], f"transform_matrix of {name}") @ OPENGL_TO_OPENCV)
        sizes.append((width, height))
    return _from_frames(path, names, params, T_world_cams, sizes, views)


def _transforms_intrinsics(name: str, frame: Mapping[str, Any], width: int, height: int) -> list[float]:
    """Fx fy cx cy k1 k2 p1 p2 of a frame, from focal lengths or from angles of view."""

    def focal(length: str, angle: str, side: int) -> float | None:
        if frame.get(length) is not None:
            return float(frame[length])
        return None if frame.get(angle) is None else side / (2.0 * math.tan(float(frame[angle]) / 2.0))

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    fx, fy = fx or fy, fy or fx
    if fx is None or fy is None or not (0 < fx < math.inf and 0 < fy < math.inf):
        raise ValueError(f"{name} has no focal length (fl_x or camera_angle_x)")
    centre = [float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))]
    values = [fx, fy, *centre, *(float(frame.get(key) or 0.0) for key in ("k1", "k2", "p1", "p2"))]
    return _numbers(values, (8,), f"intrinsics of {name}").tolist()


def _from_frames(
    path: Path, names: list[str], params: list, T_world_cams: list[Tensor], sizes: list[tuple[int, int]], views: Views
) -> SfmResult:
    rows = match_names(path, names, views)
    for name, row, size in zip(names, rows, sizes, strict=True):
        check_size(path, name, size, (views[row].original_width, views[row].original_height))
    result = {
        "T_world_cam": torch.stack(T_world_cams)[:, :3].numpy(),
        "params": np.array(params, np.float64).reshape(-1, 8),
        "sizes": np.array(sizes, np.int64).reshape(-1, 2),
        "points_world": np.zeros((0, 3)),
        "points_rgb": np.zeros((0, 3), np.uint8),
        "observed": np.zeros((0, 2), np.int64),
        "at_px": np.zeros((0, 2)),
        "reprojection_error_px": np.array(0.0),
    }
    return place(views, result, rows)


def write_cameras_json(path: Path, cameras: Cameras, views: Views) -> None:
    """Write every photo's camera at the original size; ``load_cameras`` reads the same numbers back.

    Args:
        path: file to write.
        cameras: at the original size, in the order of ``views``.
        views: the photos.
    """
    blank = blank_cameras(views).distortion
    distortion = cameras.distortion if cameras.distortion is not None else blank
    assert distortion is not None
    frames = [
        {
            "name": view.name,
            "width": cameras.width[i],
            "height": cameras.height[i],
            "K": cameras.K[i],
            "distortion": distortion[i],
            "T_world_cam": cameras.T_world_cam[i],
            "registered": bool(cameras.registered_mask[i]),
            "holdout": view.holdout,
        }
        for i, view in enumerate(views)
    ]
    write_json_atomic(path, {"format": FORMAT, "frames": frames})


def _relative(target: Path, folder: Path) -> str:
    """Path of a photo as seen from a folder; absolute where there is no way from one to the other (Windows drives)."""
    try:
        return Path(os.path.relpath(target, folder)).as_posix()
    except ValueError:
        return target.as_posix()


def write_transforms_json(path: Path, cameras: Cameras, views: Views) -> None:
    """Write the placed photos as nerfstudio does: OpenGL camera axes, intrinsics and distortion per frame.

    Args:
        path: file to write.
        cameras: at the original size, in the order of ``views``.
        views: the photos; their paths are written relative to the file.
    """
    seen_from = Path(path).parent.resolve()
    frames = []
    for i, view in enumerate(views):
        if not bool(cameras.registered_mask[i]):
            continue
        K = cameras.K[i].double()
        k1, k2, p1, p2 = [0.0] * 4 if cameras.distortion is None else cameras.distortion[i].double().tolist()
        frame = {"file_path": _relative(view.path.resolve(), seen_from), "w": cameras.width[i], "h": cameras.height[i]}
        frame |= {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        frame |= {"k1": k1, "k2": k2, "p1": p1, "p2": p2}
        frame["transform_matrix"] = cameras.T_world_cam[i].double() @ OPENGL_TO_OPENCV
        frames.append(frame)
    write_json_atomic(path, {"camera_model": "OPENCV", "frames": frames})
