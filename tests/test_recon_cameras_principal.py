"""The principal point: found where many photos prove it, left in the middle where few do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sfm_scene import HEIGHT, WIDTH, Truth, write_room_photos

from recon.cameras.auto import find_cameras
from recon.cameras.recipes import LADDER
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Views

CUT_PX = 16
"""Columns cut off the left of every photo: the axis is then 8 pixels, 2.6% of the longest side, left of the middle."""
NEAR_PX = 3.0
"""The prior holds the axis back a little, and features of 320 px photos are good to 0.3 px."""


@pytest.fixture(scope="module")
def cut_room(tmp_path_factory) -> tuple[Truth, Views]:
    truth = write_room_photos(tmp_path_factory.mktemp("room"))
    folder = Path(tmp_path_factory.mktemp("cut"))
    for path in truth.paths:
        Image.open(path).crop((CUT_PX, 0, WIDTH, HEIGHT)).save(folder / path.name, quality=95)
    return truth, open_photos(folder, long_side=WIDTH - CUT_PX).views


def axes(views: Views) -> np.ndarray:
    """Principal points that are found, V 2."""
    result = find_cameras(views, progress=Progress(), seed=0, ladder=LADDER[:2])
    assert result.cameras.registered_mask.all()
    return result.cameras.K[:, :2, 2].numpy()


def test_cut_photos_show_where_the_axis_is(cut_room):
    truth, views = cut_room
    wanted = np.array([truth.K[0, 2] - CUT_PX, truth.K[1, 2]])
    found = axes(views)
    assert np.abs(found - wanted).max() < NEAR_PX
    assert np.abs(np.array([(WIDTH - CUT_PX) / 2, HEIGHT / 2]) - wanted).max() > 2 * NEAR_PX


def test_few_photos_leave_the_axis_in_the_middle(cut_room):
    _, views = cut_room
    found = axes(views[:4])
    assert np.abs(found - [(WIDTH - CUT_PX) / 2, HEIGHT / 2]).max() < 1e-6
