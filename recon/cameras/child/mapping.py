"""Placing photos: incremental and global structure from motion, and the last adjustment.

Input: a database with verified pairs. Output: models. Does not: match.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from .database import KNOWN_MODEL, MAPPING_MODEL
from .speech import say

FINAL_MODEL_VIEWS = 5
"""Cameras shared by this many placed photos get a second distortion coefficient in the last adjustment."""
ROBUST_PX = 1.0
"""Points that miss their pixel by more than this count less and less in the last adjustment: some matches that passed are wrong."""
MODELS = 5
"""Models looked for at most: photos of several scenes give several."""

Model = pycolmap.Reconstruction


def known_cameras(path: Path) -> set[int]:
    """Cameras whose intrinsics the user gave; they stay as they are."""
    database = pycolmap.Database.open(path)
    known = {camera.camera_id for camera in database.read_all_cameras() if camera.model_name == KNOWN_MODEL}
    database.close()
    return known


def map_incrementally(path: Path, choice: dict[str, Any], seed: int, views: int) -> list[Model]:
    """Place photos one after another.

    Source: Schonberger and Frahm, "Structure-from-motion revisited", CVPR 2016.

    Args:
        path: the database.
        choice: init_min_tri_angle (degrees), init_min_num_inliers, abs_pose_min_num_inliers, min_num_matches, two_view_points.

    Returns:
        Models of disjoint or overlapping groups of photos, the one with most photos first.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.num_threads = 1  # pairs to start from are tried side by side otherwise, and the first to succeed wins
    options.extract_colors = False
    options.min_model_size = 2
    options.max_num_models = MODELS
    options.min_num_matches = choice["min_num_matches"]
    options.mapper.init_min_tri_angle = choice["init_min_tri_angle"]
    options.mapper.init_min_num_inliers = choice["init_min_num_inliers"]
    options.mapper.abs_pose_min_num_inliers = choice["abs_pose_min_num_inliers"]
    options.triangulation.ignore_two_view_tracks = not choice["two_view_points"]
    options.constant_cameras = options.mapper.constant_cameras = known_cameras(path)
    placed = [0]

    def one_more() -> None:
        placed[0] = min(placed[0] + 1, views)
        say(step="placing", fraction=placed[0] / views, placed=placed[0])

    output = path.with_name("models")
    output.mkdir(exist_ok=True)
    return largest_first(pycolmap.incremental_mapping(path, path.parent, output, options, next_image_callback=one_more))


def map_globally(path: Path, seed: int) -> list[Model]:
    """Place all photos at once: rotations are averaged, then places and points are solved for together.

    Focal lengths that nobody told are estimated from the pairs first, as rotations cannot be found without them.
    Source: Pan et al., "Global structure-from-motion revisited", ECCV 2024.

    Returns:
        Models, the one with most photos first.
    """
    own = path.with_name(f"global_{path.name}")
    shutil.copy(path, own)
    database = pycolmap.Database.open(own)
    unknown = not all(camera.has_prior_focal_length for camera in database.read_all_cameras())
    database.close()
    if unknown:
        calibration = pycolmap.ViewGraphCalibrationOptions()
        calibration.random_seed = seed
        pycolmap.calibrate_view_graph(own, calibration)
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = options.mapper.random_seed = seed
    options.min_model_size = 2
    options.mapper.global_positioning.use_gpu = options.mapper.bundle_adjustment.ceres.use_gpu = False
    output = own.with_name("models")
    output.mkdir(exist_ok=True)
    say(step="placing", fraction=0.1, placed=0)
    return largest_first(pycolmap.global_mapping(own, own.parent, output, options))


def largest_first(models: dict[int, Model]) -> list[Model]:
    """Models with two photos or more, the one with most photos and points first."""
    usable = [model for model in models.values() if model.num_reg_images() >= 2]
    return sorted(usable, key=lambda m: (-m.num_reg_images(), -m.num_points3D()))


def adjust(model: Model) -> None:
    """Last bundle adjustment over everything, robust against matches that are still wrong.

    Cameras with photos enough get a second distortion coefficient.
    """
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
    options.ceres.loss_function_type, options.ceres.loss_function_scale = pycolmap.LossFunctionType.CAUCHY, ROBUST_PX
    config = pycolmap.BundleAdjustmentConfig()
    for i in model.reg_image_ids():
        config.add_image(i)
    for number, camera in model.cameras.items():
        if camera.model_name == KNOWN_MODEL:
            config.set_constant_cam_intrinsics(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()
