"""Bundle adjustment of cameras that somebody else predicted: matches become points, points and cameras are solved for together.

Input: matches and predicted cameras of a job. Output: arrays of a model. Does not: add photos, or find cameras.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap

from .database import fill_database, take_matches
from .mapping import adjust, known_cameras
from .models import describe
from .speech import say

ROUNDS = ((0.02, 5.0), (0.008, 3.0), (0.0035, 2.0))
"""Points made anew in every round from better cameras: largest reprojection error over the longest side of the photo, and largest
angle in degrees between a ray and its point. The last one is about 4 pixels of 1200."""
LOSS_SHARE = 0.25
"""Where errors start to count less than their square, over the round's largest error."""
MIN_TRI_ANGLE_DEG = 1.0
"""Rays that meet at a smaller angle make no point."""
LEAST_OBSERVATIONS = 20
"""Photos that see fewer points keep the camera that was predicted."""


def refine_cameras(folder: Path) -> dict[str, np.ndarray]:
    """Adjust predicted cameras to given matches; what the user knows of lenses stays as it is.

    The job holds what ``fill_database`` and ``take_matches`` want, T_cam_world ``V 3 4`` and placed ``V``. Leaves ``models.json``
    with the photos whose cameras were adjusted.
    """
    job = dict(np.load(folder / "job.npz"))
    path, seed = folder / str(job["database"]), int(job["seed"])
    path.unlink(missing_ok=True)
    fill_database(path, job)
    take_matches(path, job, seed)
    known, side = known_cameras(path), float(job["sizes"].max())
    model = predicted_model(path, job)
    for number, (share, angle) in enumerate(ROUNDS):
        model = triangulate(model, path, share * side, angle, seed)
        leave_out_weak(model)
        if model.num_reg_images() < 2:
            break
        adjust_robustly(model, known, LOSS_SHARE * share * side)
        say(step="placing", fraction=(number + 1) / len(ROUNDS), placed=model.num_reg_images())
    adjusted = sorted(int(i) - 1 for i in model.reg_image_ids())
    if len(adjusted) >= 2:
        pycolmap.ObservationManager(model).filter_all_points3D(ROUNDS[-1][0] * side, MIN_TRI_ANGLE_DEG)
        leave_out_weak(model)
        adjusted = sorted(int(i) - 1 for i in model.reg_image_ids())
    (folder / "models.json").write_text(json.dumps([adjusted] if len(adjusted) >= 2 else []))
    if len(adjusted) < 2:
        return {}
    adjust(model)
    return describe(model)


def predicted_model(path: Path, job: dict[str, np.ndarray]) -> pycolmap.Reconstruction:
    """A model without points: the lenses of the database, the poses of the job."""
    model = pycolmap.Reconstruction()
    database = pycolmap.Database.open(path)
    for camera in database.read_all_cameras():
        model.add_camera_with_trivial_rig(camera)
    for image in database.read_all_images():
        if not job["placed"][image.image_id - 1]:
            continue
        px = database.read_keypoints(image.image_id)[:, :2].astype(np.float64)
        own = pycolmap.Image(name=image.name, keypoints=px, camera_id=image.camera_id, image_id=image.image_id)
        model.add_image_with_trivial_frame(own, pycolmap.Rigid3d(job["T_cam_world"][image.image_id - 1]))
    database.close()
    return model


def triangulate(
    model: pycolmap.Reconstruction, path: Path, error_px: float, angle_deg: float, seed: int
) -> pycolmap.Reconstruction:
    """Make points from all matches, with cameras that are only about right."""
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.num_threads = 1
    options.extract_colors = False
    options.min_num_matches = 1
    options.mapper.filter_max_reproj_error = error_px
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = MIN_TRI_ANGLE_DEG
    options.triangulation.create_max_angle_error = options.triangulation.continue_max_angle_error = angle_deg
    options.triangulation.merge_max_reproj_error = options.triangulation.complete_max_reproj_error = error_px
    options.triangulation.ignore_two_view_tracks = False
    output = path.with_name("triangulated")
    output.mkdir(exist_ok=True)
    return pycolmap.triangulate_points(model, path, path.parent, output, clear_points=True, options=options)


def leave_out_weak(model: pycolmap.Reconstruction) -> None:
    """Take photos that see next to no points out of the model."""
    manager = pycolmap.ObservationManager(model)
    for number in list(model.reg_image_ids()):
        image = model.image(number)
        if image.num_points3D < LEAST_OBSERVATIONS:
            manager.deregister_frame(image.frame_id)


def adjust_robustly(model: pycolmap.Reconstruction, known: set[int], scale_px: float) -> None:
    """Bundle adjustment in which far-off points count little; distortion is left to the last adjustment."""
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_extra_params = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = scale_px
    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
    for number in known:
        config.set_constant_cam_intrinsics(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
