"""Placing photos: incremental and global structure from motion, and the last adjustment.

Input: a database with verified pairs. Output: models. Does not: match.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from .database import KNOWN_MODEL, MAPPING_MODEL
from .principal import free_principal_points, robust_cost
from .speech import say

FINAL_MODEL_VIEWS = 5
"""Cameras shared by this many placed photos get a second distortion coefficient in the last adjustment."""
SETTLED = 1e-6
"""The last adjustment ends when a step lowers its cost by a smaller share; steps after that move no camera measurably."""
ROBUST_PX = 1.0
"""Points that miss their pixel by more than this count less and less in the last adjustment: some matches that passed are wrong."""
MODELS = 5
"""Models looked for at most: photos of several scenes give several."""
STARTS = 3
"""Times that photos of many lenses are placed, each time from other random choices: with a focal length for every photo the order
of placing matters, and a photo that went wrong early holds the others back."""
STARTS_UP_TO = 24
"""More photos than this are placed once: it would take too long."""
HELD_BY = 30
"""Photos with this many points that three photos or more see do not need those that only two see."""
FIT_PX = 4.0
"""An observation this far off its point says nothing for a model, and is no part of it."""

ANY = -1
"""The number of a photo that COLMAP is to choose."""

Model = pycolmap.Reconstruction


def known_cameras(path: Path) -> set[int]:
    """Cameras whose intrinsics the user gave; they stay as they are."""
    database = pycolmap.Database.open(path)
    known = {camera.camera_id for camera in database.read_all_cameras() if camera.model_name == KNOWN_MODEL}
    database.close()
    return known


def map_incrementally(path: Path, choice: dict[str, Any], seed: int, views: int) -> list[Model]:
    """Place photos one after another; photos of many lenses several times, of which the start that explains most is taken.

    Args:
        path: the database.
        choice: init_min_tri_angle (degrees), init_min_num_inliers, abs_pose_min_num_inliers, min_num_matches, two_view_points,
            lower_the_bar.

    Returns:
        Models of disjoint or overlapping groups of photos, the one with most photos first.
    """
    starts = STARTS if has_many_lenses(path) and views <= STARTS_UP_TO else 1
    tried = []
    for number in range(starts):
        models = map_once(path, choice, seed + number, partial(_say_placed, views, number, starts))
        if starts > 1 and models:
            solve_robustly(models[0], [])  # before they are compared, for one wrong match can spoil a mapper's model
        tried.append(models)
    return max(tried, key=lambda models: (models[0].num_reg_images(), explained(models[0])) if models else (0, 0.0))


def _say_placed(views: int, start: int, starts: int, placed: int) -> None:
    placed = min(placed, views)
    say(step="placing", fraction=(start + placed / views) / starts, placed=placed)


def has_many_lenses(path: Path) -> bool:
    """Whether more than half of the photos have a lens of their own that is to be found."""
    known = known_cameras(path)
    database = pycolmap.Database.open(path)
    cameras = [image.camera_id for image in database.read_all_images()]
    database.close()
    own = [number for number in set(cameras) - known if cameras.count(number) == 1]
    return 2 * len(own) > len(cameras)


def explained(model: Model) -> float:
    """How much a model explains: its observations, each counted the more the nearer it lies to its point."""
    cost, count = robust_cost(model, ROBUST_PX)
    return 0.5 * ROBUST_PX**2 * float(np.log1p((FIT_PX / ROBUST_PX) ** 2)) * count - cost


def map_once(path: Path, choice: dict[str, Any], seed: int, tell: Callable[[int], None]) -> list[Model]:
    """Place photos one after another.

    Source: Schonberger and Frahm, "Structure-from-motion revisited", CVPR 2016.

    Args:
        tell: told how many photos are placed.
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
        placed[0] += 1
        tell(placed[0])

    if not choice["lower_the_bar"] and not can_start(path, options):
        return []
    output = path.with_name("models")
    output.mkdir(exist_ok=True)
    return largest_first(pycolmap.incremental_mapping(path, path.parent, output, options, next_image_callback=one_more))


def can_start(path: Path, options: pycolmap.IncrementalPipelineOptions) -> bool:
    """Whether two photos are as far apart, and share as many points, as ``options`` ask of the first two.

    COLMAP goes on with half as much otherwise, twice, and then places photos for a long time around a pair that tells no depth.
    """
    wanted = pycolmap.DatabaseCacheOptions()
    wanted.min_num_matches = options.min_num_matches
    database = pycolmap.Database.open(path)
    mapper = pycolmap.IncrementalMapper(pycolmap.DatabaseCache.create(database, wanted))
    database.close()
    for _ in range(options.init_num_trials):
        model = Model()
        mapper.begin_reconstruction(model)
        found = mapper.find_initial_image_pair(options.mapper, ANY, ANY)
        if found is None:
            return False
        pair, T_second_first = found
        mapper.register_initial_image_pair(options.mapper, *pair, T_second_first)
        for number in pair:
            mapper.triangulate_image(options.triangulation, number)
        if model.num_points3D():
            return True
        mapper.end_reconstruction(True)
    return False


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
    options.num_threads = options.mapper.num_threads = 1  # several sum in another order each time, and are no faster
    options.random_seed = options.mapper.random_seed = seed
    options.min_model_size = 2
    options.mapper.global_positioning.use_gpu = options.mapper.bundle_adjustment.ceres.use_gpu = False
    output = own.with_name("models")
    output.mkdir(exist_ok=True)
    say(step="placing", fraction=0.1, placed=0)
    models = largest_first(pycolmap.global_mapping(own, own.parent, output, options))
    for model in models:  # it knows no lens that stays as it is
        restore_known_lenses(model, path)
    return models


def restore_known_lenses(model: Model, path: Path) -> None:
    """Give the lenses that the user told back their numbers; the adjustment that follows moves cameras and points to fit."""
    database = pycolmap.Database.open(path)
    for camera in database.read_all_cameras():
        if camera.model_name == KNOWN_MODEL and camera.camera_id in model.cameras:
            model.cameras[camera.camera_id].params = camera.params
    database.close()


def largest_first(models: dict[int, Model]) -> list[Model]:
    """Models with two photos or more, the one with most photos and points first."""
    usable = [model for model in models.values() if model.num_reg_images() >= 2]
    return sorted(usable, key=lambda m: (-m.num_reg_images(), -m.num_points3D()))


def leave_out_two_view_points(model: Model) -> None:
    """Take points that only two photos see away where both photos are held by others.

    They helped to place photos, but a wrong match of two photos fits some point nearly always, while a third photo contradicts
    it; in the last adjustment the wrong ones bend the cameras.
    """
    held = dict.fromkeys(model.reg_image_ids(), 0)
    for point in model.points3D.values():
        if point.track.length() > 2:
            for seen in point.track.elements:
                held[seen.image_id] += 1
    for number in list(model.point3D_ids()):
        track = model.point3D(number).track
        if track.length() == 2 and all(held[seen.image_id] >= HELD_BY for seen in track.elements):
            model.delete_point3D(number)


def adjust(model: Model) -> None:
    """Last bundle adjustment over everything, robust against matches that are still wrong.

    Cameras with photos enough get a second distortion coefficient, and a principal point as far as the matches prove it.
    """
    views = dict.fromkeys(model.cameras, 0)
    for i in model.reg_image_ids():
        views[model.image(i).camera_id] += 1
    rich = [n for n, camera in model.cameras.items() if camera.model_name == MAPPING_MODEL and views[n] >= FINAL_MODEL_VIEWS]
    for number in rich:
        camera = model.camera(number)
        params = np.append(camera.params, 0.0)
        camera.model = pycolmap.CameraModelId.RADIAL
        camera.params = params

    def solve(model: Model, free: bool) -> None:
        solve_robustly(model, rich if free else [])

    solve(model, False)
    free_principal_points(model, rich, solve, ROBUST_PX)
    leave_out_contradicted(model)
    model.update_point_3d_errors()


def leave_out_contradicted(model: Model) -> None:
    """Take observations away that the adjusted cameras contradict, and points that fewer than two remain of.

    The loss let go of them, but they would be passed on as points of the scene; one beside a camera's centre misses by any number.
    """
    manager = pycolmap.ObservationManager(model)
    manager.filter_observations_with_negative_depth()
    manager.filter_all_points3D(FIT_PX, 0.0)


def solve_robustly(model: Model, free: list[int]) -> None:
    """Bundle adjustment with a loss that mistrusts large errors.

    Args:
        free: cameras whose principal points are found too; those of the others stay.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_principal_point = bool(free)
    options.ceres.loss_function_type, options.ceres.loss_function_scale = pycolmap.LossFunctionType.CAUCHY, ROBUST_PX
    options.ceres.solver_options.function_tolerance = SETTLED
    config = pycolmap.BundleAdjustmentConfig()
    for i in model.reg_image_ids():
        config.add_image(i)
    for number, camera in model.cameras.items():
        if camera.model_name == KNOWN_MODEL or (free and number not in free):
            config.set_constant_cam_intrinsics(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
