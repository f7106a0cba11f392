"""COLMAP's database of a capture: photos, cameras, features, and pairs of photos that agree.

Input: arrays of a job. Output: a database file, verified matches. Does not: place photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from .speech import say

MAPPING_MODEL = "SIMPLE_RADIAL"
"""Camera model while photos are added: one focal length and one distortion coefficient, hard to over-fit."""
KNOWN_MODEL = "OPENCV"
"""Camera model of a lens the user knows."""
FOCAL_GUESS = 1.2
"""Focal length over longest side where EXIF says nothing."""
MIN_INLIERS = 15
"""Matches that must fit one two-view geometry for a pair of photos to agree."""


def known_lens(job: dict[str, np.ndarray], members: np.ndarray) -> np.ndarray | None:
    """Intrinsics the user gave for a camera's photos (fx fy cx cy k1 k2 p1 p2), None when they are to be found."""
    given = job["known"][members]
    return given[0] if np.isfinite(given).all() else None


def make_camera(number: int, members: np.ndarray, job: dict[str, np.ndarray]) -> pycolmap.Camera:
    """One camera for the photos ``members``: as the user knows it, from EXIF, or a guess."""
    width, height = (int(v) for v in job["sizes"][members[0]])
    lens = known_lens(job, members)
    if lens is not None:
        camera = pycolmap.Camera(camera_id=number, model=KNOWN_MODEL, width=width, height=height, params=[float(v) for v in lens])
        camera.has_prior_focal_length = True
        return camera
    told = job["focal_px"][members][job["focal_px"][members] > 0]
    focal = float(np.median(told)) if len(told) else FOCAL_GUESS * max(width, height)
    camera = pycolmap.Camera.create_from_model_name(number, MAPPING_MODEL, focal, width, height)
    camera.has_prior_focal_length = bool(len(told))
    return camera


def fill_database(path: Path, job: dict[str, np.ndarray]) -> None:
    """Write photos, their cameras and their features. Image i + 1 is photo i.

    Args:
        path: database to create.
        job: sizes ``V 2`` (width, height), focal_px ``V`` (0 when unknown), known ``V 8`` (NaN when unknown), camera_of ``V``
            (photos with one number share intrinsics), keypoints_i ``N 4``, and descriptors_i ``N 128`` unless matches are given.
    """
    database = pycolmap.Database.open(path)
    with pycolmap.DatabaseTransaction(database):
        for number in np.unique(job["camera_of"]):
            camera = make_camera(int(number) + 1, np.flatnonzero(job["camera_of"] == number), job)
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=int(number) + 1)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        for i, number in enumerate(job["camera_of"]):
            image = pycolmap.Image(name=f"{i:06d}", camera_id=int(number) + 1, image_id=i + 1)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=i + 1, rig_id=int(number) + 1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(i + 1, job[f"keypoints_{i}"])
            if f"descriptors_{i}" in job:
                kind = pycolmap.FeatureExtractorType.SIFT
                database.write_descriptors(i + 1, pycolmap.FeatureDescriptors(kind, job[f"descriptors_{i}"]))
    database.close()


def verification(seed: int) -> pycolmap.TwoViewGeometryOptions:
    """How matches of a pair are verified."""
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = MIN_INLIERS
    options.ransac.random_seed = seed
    return options


def take_matches(path: Path, job: dict[str, np.ndarray], seed: int) -> None:
    """Write matches that somebody else found, and verify them by their two-view geometry.

    Args:
        job: pairs ``P 2``, given_counts ``P``, given_matches ``M 2`` (rows of the keypoints), pair after pair.
    """
    listed = path.with_name("pairs.txt")
    listed.write_text("".join(f"{i:06d} {j:06d}\n" for i, j in job["pairs"]))
    database = pycolmap.Database.open(path)
    with pycolmap.DatabaseTransaction(database):
        ends = np.cumsum(job["given_counts"])
        for (i, j), end, count in zip(job["pairs"], ends, job["given_counts"], strict=True):
            database.write_matches(int(i) + 1, int(j) + 1, job["given_matches"][end - count : end].astype(np.uint32))
    database.close()
    pycolmap.verify_matches(path, listed, verification(seed))
    say(step="matching", fraction=1.0)


def verified_matches(path: Path) -> dict[str, np.ndarray]:
    """The matches that fit a two-view geometry.

    Returns:
        match_pairs ``P 2``, match_counts ``P``, match_px ``M 4`` (x, y in the first and the second photo), pair after pair.
    """
    database = pycolmap.Database.open(path)
    ids, geometries = database.read_two_view_geometries()
    px: dict[int, np.ndarray] = {}
    pairs, found = [], []
    for pair_id, geometry in zip(ids, geometries, strict=True):
        if len(geometry.inlier_matches) < MIN_INLIERS:
            continue
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        for image in (first, second):
            if image not in px:
                px[image] = database.read_keypoints(image)[:, :2]
        rows = np.asarray(geometry.inlier_matches, np.int64)
        pairs.append((first - 1, second - 1))
        found.append(np.concatenate([px[first][rows[:, 0]], px[second][rows[:, 1]]], axis=1))
    database.close()
    return {
        "match_pairs": np.array(pairs, np.int64).reshape(-1, 2),
        "match_counts": np.array([len(one) for one in found], np.int64),
        "match_px": np.concatenate(found).astype(np.float64) if found else np.zeros((0, 4)),
    }


def set_focal_lengths(path: Path, ratio: float) -> None:
    """Start all cameras of unknown focal length from ``ratio`` times their longest side."""
    database = pycolmap.Database.open(path)
    for camera in database.read_all_cameras():
        if not camera.has_prior_focal_length:
            camera.focal_length = ratio * max(camera.width, camera.height)
            database.update_camera(camera)
    database.close()
