"""COLMAP models to plain arrays and back.

Input: a model, or arrays. Output: arrays, or a model folder. Does not: find or refine anything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap


def opencv_params(camera: pycolmap.Camera) -> list[float] | None:
    """COLMAP parameters to fx fy cx cy k1 k2 p1 p2; None where the model has other terms."""
    p = [float(v) for v in camera.params]
    match camera.model_name:
        case "SIMPLE_PINHOLE":
            return [p[0], p[0], p[1], p[2], 0.0, 0.0, 0.0, 0.0]
        case "PINHOLE":
            return [*p, 0.0, 0.0, 0.0, 0.0]
        case "SIMPLE_RADIAL":
            return [p[0], p[0], p[1], p[2], p[3], 0.0, 0.0, 0.0]
        case "RADIAL":
            return [p[0], p[0], p[1], p[2], p[3], p[4], 0.0, 0.0]
        case "OPENCV":
            return p
        case "FULL_OPENCV" if not any(p[8:]):
            return p[:8]
    return None


def describe(model: pycolmap.Reconstruction) -> dict[str, np.ndarray]:
    """A model as plain arrays: photos, cameras in OpenCV terms, points and who observed them where."""
    index_of = {point_id: i for i, point_id in enumerate(sorted(model.point3D_ids()))}
    points = [model.point3D(point_id) for point_id in index_of]
    images = [model.image(i) for i in sorted(model.reg_image_ids())]
    params = [opencv_params(model.camera(image.camera_id)) for image in images]
    unsupported = sorted({model.camera(i.camera_id).model_name for i, p in zip(images, params, strict=True) if p is None})
    observed, at_px, keypoint = [], [], []
    for row, image in enumerate(images):
        seen = [(k, p) for k, p in enumerate(image.points2D) if p.has_point3D()]
        observed += [(row, index_of[p.point3D_id]) for _, p in seen]
        at_px += [p.xy for _, p in seen]
        keypoint += [k for k, _ in seen]
    return {
        "names": np.array([image.name for image in images], dtype=np.str_),
        "image_ids": np.array([image.image_id for image in images], np.int64),
        "T_world_cam": np.array([image.cam_from_world().inverse().matrix() for image in images]).reshape(-1, 3, 4),
        "params": np.array([p if p is not None else [0.0] * 8 for p in params]).reshape(-1, 8),
        "sizes": np.array([(model.camera(i.camera_id).width, model.camera(i.camera_id).height) for i in images]).reshape(-1, 2),
        "points_world": np.array([p.xyz for p in points]).reshape(-1, 3),
        "points_rgb": np.array([p.color for p in points], np.uint8).reshape(-1, 3),
        "observed": np.array(observed, np.int64).reshape(-1, 2),
        "at_px": np.array(at_px, np.float64).reshape(-1, 2),
        "keypoint": np.array(keypoint, np.int64),
        "reprojection_error_px": np.array(model.compute_mean_reprojection_error() if len(points) else 0.0),
        "unsupported": np.array(unsupported, dtype=np.str_),
    }


def read(folder: Path) -> dict[str, np.ndarray]:
    """Read the model whose folder is named in the job."""
    job = np.load(folder / "job.npz")
    return describe(pycolmap.Reconstruction(str(job["path"])))


def write(folder: Path) -> dict[str, np.ndarray]:
    """Write the model described in the job to the folder ``model``, in COLMAP's binary format."""
    job = dict(np.load(folder / "job.npz"))
    model = pycolmap.Reconstruction()
    shared, camera_of = np.unique(np.concatenate([job["params"], job["sizes"]], axis=1), axis=0, return_inverse=True)
    for number, row in enumerate(shared, start=1):
        camera = pycolmap.Camera(
            camera_id=number, model="OPENCV", width=int(row[8]), height=int(row[9]), params=[float(v) for v in row[:8]]
        )
        model.add_camera_with_trivial_rig(camera)
    slot = np.zeros(len(job["observed"]), np.int64)
    for i, name in enumerate(job["names"]):
        mine = np.flatnonzero(job["observed"][:, 0] == i)
        slot[mine] = np.arange(len(mine))
        number = int(camera_of.reshape(-1)[i]) + 1
        image = pycolmap.Image(name=str(name), keypoints=job["at_px"][mine], camera_id=number, image_id=i + 1)
        cam_from_world = pycolmap.Rigid3d(job["T_world_cam"][i]).inverse()
        model.add_image_with_trivial_frame(image, cam_from_world)
    order = np.argsort(job["observed"][:, 1], kind="stable")
    bounds = np.searchsorted(job["observed"][order, 1], np.arange(len(job["points_world"]) + 1))
    for point, (xyz, rgb) in enumerate(zip(job["points_world"], job["points_rgb"], strict=True)):
        track = pycolmap.Track()
        for row in order[bounds[point] : bounds[point + 1]]:
            track.add_element(int(job["observed"][row, 0]) + 1, int(slot[row]))
        model.add_point3D(xyz, track, rgb)
    if len(job["points_world"]):
        model.update_point_3d_errors()
    target = folder / "model"
    target.mkdir()
    model.write_binary(target)
    return {}
