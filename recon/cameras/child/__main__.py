"""The program that runs COLMAP, in a process of its own: ``python -m recon.cameras.child COMMAND FOLDER``.

Input: ``job.npz`` in FOLDER. Output: ``result.npz`` there, progress as JSON lines on stdout, COLMAP's log on stderr.
It ends as soon as its stdin is closed, so it never outlives the process that started it.
Does not: import torch or PIL. A native crash, or a library of pycolmap's that clashes with another one's, stays in here.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

MAPPING_MODEL = "SIMPLE_RADIAL"
"""Camera model while photos are added: one focal length and one distortion coefficient, hard to over-fit."""
FINAL_MODEL_VIEWS = 5
"""Cameras shared by this many placed photos get a second distortion coefficient in the last adjustment."""
FOCAL_GUESS = 1.2
"""Focal length over longest side where EXIF says nothing."""
MATCH_BLOCKS = 12
"""Pairs are matched in this many blocks, with news after each."""

MIN_INLIERS = 15
"""Matches that must fit one two-view geometry for a pair of photos to agree."""

STRICT = {
    "init_min_tri_angle": 16.0,
    "init_min_num_inliers": 100,
    "abs_pose_min_num_inliers": 30,
    "min_num_matches": 15,
    "two_view_points": False,
}
RELAXED = {
    "init_min_tri_angle": 4.0,
    "init_min_num_inliers": 30,
    "abs_pose_min_num_inliers": 15,
    "min_num_matches": 10,
    "two_view_points": True,
}
"""Points that only two photos see are the least certain ones, but all that two photos alone can have."""
ENOUGH = 0.8
"""A first attempt that places this share of the photos is final; otherwise a relaxed one follows."""


def say(**news: Any) -> None:
    """Send one line of news to the parent."""
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def stop_with_parent() -> None:
    """End this process when the parent closes our stdin or dies."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold while the interpreter shuts down
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def speak_on_stderr() -> None:
    """Keep COLMAP's log to warnings, and to stderr: by itself it leaves log files in the temporary folder.

    Some of its functions set the flags back, so the files are also denied a name.
    """
    log = pycolmap.logging
    log.minloglevel, log.logtostderr = log.Level.WARNING.value, True
    for level in (log.Level.INFO, log.Level.WARNING, log.Level.ERROR, log.Level.FATAL):
        log.set_log_destination(level, "")


def fill_database(path: Path, job: dict[str, np.ndarray], camera_of: np.ndarray) -> None:
    """Write photos, their cameras and their features. Image i + 1 is photo i.

    Args:
        path: database to create.
        job: sizes ``V 2`` (width, height), focal_px ``V`` (0 when unknown), keypoints_i ``N 4``, descriptors_i ``N 128``.
        camera_of: camera number of each photo; photos with one number share intrinsics.
    """
    database = pycolmap.Database.open(path)
    with pycolmap.DatabaseTransaction(database):
        for number in np.unique(camera_of):
            members = np.flatnonzero(camera_of == number)
            width, height = (int(v) for v in job["sizes"][members[0]])
            known = job["focal_px"][members][job["focal_px"][members] > 0]
            focal = float(np.median(known)) if len(known) else FOCAL_GUESS * max(width, height)
            camera = pycolmap.Camera.create_from_model_name(int(number) + 1, MAPPING_MODEL, focal, width, height)
            camera.has_prior_focal_length = bool(len(known))
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=int(number) + 1)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        for i, number in enumerate(camera_of):
            image = pycolmap.Image(name=f"{i:06d}", camera_id=int(number) + 1, image_id=i + 1)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=i + 1, rig_id=int(number) + 1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(i + 1, job[f"keypoints_{i}"])
            kind = pycolmap.FeatureExtractorType.SIFT
            database.write_descriptors(i + 1, pycolmap.FeatureDescriptors(kind, job[f"descriptors_{i}"]))
    database.close()


def match(path: Path, pairs: np.ndarray, seed: int) -> int:
    """Match the chosen pairs and verify them by their two-view geometry; returns how many agree."""
    verification = pycolmap.TwoViewGeometryOptions()
    verification.min_num_inliers = MIN_INLIERS
    verification.ransac.random_seed = seed
    listed = path.with_name("pairs.txt")
    options = pycolmap.ImportedPairingOptions()
    options.match_list_path = listed
    blocks = [b for b in np.array_split(pairs, MATCH_BLOCKS) if len(b)]
    for number, block in enumerate(blocks, start=1):
        listed.write_text("".join(f"{i:06d} {j:06d}\n" for i, j in block))
        pycolmap.match_image_pairs(path, pairing_options=options, verification_options=verification)
        say(step="matching", fraction=number / len(blocks))
    database = pycolmap.Database.open(path)
    _, inliers = database.read_two_view_geometry_num_inliers()
    database.close()
    return sum(count >= MIN_INLIERS for count in inliers)


def map_photos(path: Path, choice: dict[str, Any], seed: int, views: int) -> pycolmap.Reconstruction | None:
    """Place photos one after another; returns the largest model, or None.

    Source: Schonberger and Frahm, "Structure-from-motion revisited", CVPR 2016.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.extract_colors = False
    options.min_model_size = 2
    options.max_num_models = 5
    options.min_num_matches = choice["min_num_matches"]
    options.mapper.init_min_tri_angle = choice["init_min_tri_angle"]
    options.mapper.init_min_num_inliers = choice["init_min_num_inliers"]
    options.mapper.abs_pose_min_num_inliers = choice["abs_pose_min_num_inliers"]
    options.triangulation.ignore_two_view_tracks = not choice["two_view_points"]
    placed = [0]

    def one_more() -> None:
        placed[0] = min(placed[0] + 1, views)
        say(step="placing", fraction=placed[0] / views, placed=placed[0])

    output = path.with_name("models")
    output.mkdir(exist_ok=True)
    models = pycolmap.incremental_mapping(path, path.parent, output, options, next_image_callback=one_more)
    return max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)


def adjust(model: pycolmap.Reconstruction) -> None:
    """Last bundle adjustment over everything, with a second distortion coefficient where a camera has photos enough."""
    views = dict.fromkeys(model.cameras, 0)
    for i in model.reg_image_ids():
        views[model.image(i).camera_id] += 1
    for number, camera in model.cameras.items():
        if camera.model_name == MAPPING_MODEL and views[number] >= FINAL_MODEL_VIEWS:
            params = np.append(camera.params, 0.0)
            camera.model = pycolmap.CameraModelId.RADIAL
            camera.params = params
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    pycolmap.bundle_adjustment(model, options)
    model.update_point_3d_errors()


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


def solve(folder: Path) -> dict[str, np.ndarray]:
    """Match, map and adjust; a second, more lenient attempt follows a first one that left photos out."""
    job = dict(np.load(folder / "job.npz"))
    seed, views = int(job["seed"]), len(job["sizes"])
    tries = [("shared intrinsics", STRICT, job["camera_of"]), ("relaxed thresholds", RELAXED, job["camera_of"])]
    if len(np.unique(job["camera_of"])) < views:
        tries.append(("own intrinsics per photo, relaxed thresholds", RELAXED, np.arange(views)))
    attempts, best, verified, database, cameras_in_database = [], None, 0, folder / "database.db", None
    for label, choice, camera_of in tries:
        if cameras_in_database is None or not np.array_equal(cameras_in_database, camera_of):
            database = folder / f"database_{len(attempts)}.db"
            fill_database(database, job, camera_of)
            verified, cameras_in_database = max(verified, match(database, job["pairs"], seed)), camera_of
        model = map_photos(database, choice, seed, views) if verified else None
        placed = model.num_reg_images() if model else 0
        attempts.append({"tried": label, "placed": placed, "points": model.num_points3D() if model else 0, **choice})
        if model is not None and (best is None or placed > best[0]):
            best = (placed, len(attempts) - 1, model)
        if not verified or (best is not None and best[0] >= ENOUGH * views):
            break
    result: dict[str, np.ndarray] = {}
    if best is not None:
        adjust(best[2])
        attempts[best[1]]["chosen"] = True
        result = describe(best[2])
    (folder / "attempts.json").write_text(json.dumps({"attempts": attempts, "verified_pairs": verified}))
    return result


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


def main(command: str, folder: Path) -> None:
    """Run one command; an error of COLMAP's becomes ``error.json``."""
    stop_with_parent()
    speak_on_stderr()
    try:
        result: dict[str, Any] = {**{"solve": solve, "read": read, "write": write}[command](folder)}
    except (ValueError, RuntimeError, OSError, KeyError, IndexError) as error:
        (folder / "error.json").write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        sys.exit(1)
    np.savez(folder / "result.npz", **result)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
