"""Photos in: order, sizes, orientation, hold-outs, and everything that can be wrong with a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recon.capture.files import find_files
from recon.config import Holdout
from recon.errors import CannotReconstruct, UserError
from recon.photos import natural_key, open_photos, working_size

import helpers

JPEG_TOLERANCE = 12
"""Grey levels by which a smooth JPEG of quality 95 may differ after decoding at another size."""


def gradient(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture without symmetry: every flip and turn of it differs."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 / width + 20, y * 200 / height + 20, (x + 2 * y) * 80 / (width + height) + 10 * seed], -1).astype(
        np.uint8
    )


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_names_come_in_natural_order(tmp_path):
    for i, name in enumerate(["img10.png", "img2.png", "Img1.png", "b.png"]):
        save(tmp_path / name, gradient(40, 30, i))
    views = open_photos(tmp_path, long_side=64).views
    assert views.names == ["b.png", "Img1.png", "img2.png", "img10.png"]
    assert sorted(["a10", "a9", "a"], key=natural_key) == ["a", "a9", "a10"]


@pytest.mark.parametrize(
    ("size", "long_side", "wanted"), [((800, 600), 640, (640, 480)), ((300, 400), 640, (300, 400)), ((1000, 3), 100, (100, 1))]
)
def test_working_size_never_enlarges(size, long_side, wanted):
    assert working_size(*size, long_side) == wanted


def test_mixed_sizes_decode_lazily_at_their_own_working_size(tmp_path):
    save(tmp_path / "a.png", gradient(200, 100))
    save(tmp_path / "b.jpg", gradient(90, 120, 1), quality=95)
    views = open_photos(tmp_path, long_side=100).views
    assert [(v.width, v.height) for v in views] == [(100, 50), (75, 100)]
    assert [(v.original_width, v.original_height) for v in views] == [(200, 100), (90, 120)]
    assert views[0].scale_xy == (0.5, 0.5)
    assert tuple(views[1].load().shape) == (100, 75, 3)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png can no longer be read"):
        views[0].load()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The stored pixels are the upright ones, turned back: all eight decode to the same picture."""
    upright = Image.fromarray(gradient(160, 96))
    back = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose[back[orientation]])
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif)
    (view,) = open_photos(tmp_path, long_side=80).views
    assert (view.original_width, view.original_height, view.width, view.height) == (160, 96, 80, 48)
    wanted = np.asarray(upright.resize((80, 48), Image.Resampling.BOX)).astype(int)
    assert np.abs(view.decode(80, 48).astype(int) - wanted).max() <= JPEG_TOLERANCE


def test_large_jpegs_shrink_to_the_same_picture_as_slow_decoding(tmp_path):
    pixels = gradient(1600, 1200)
    save(tmp_path / "a.jpg", pixels, quality=95)
    (view,) = open_photos(tmp_path, long_side=200).views
    wanted = np.asarray(Image.fromarray(pixels).resize((200, 150), Image.Resampling.BOX)).astype(int)
    assert np.abs(view.decode(200, 150).astype(int) - wanted).max() <= JPEG_TOLERANCE


def test_other_pixel_kinds_become_rgb(tmp_path):
    grey = gradient(48, 32)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    alpha = np.dstack([gradient(48, 32), np.full((32, 48), 255, np.uint8)])
    alpha[:16, :, 3] = 0
    Image.fromarray(alpha).save(tmp_path / "clear.png")
    Image.fromarray(gradient(48, 32)).convert("P").save(tmp_path / "palette.png")
    pixels = {view.name: view.decode(48, 32) for view in open_photos(tmp_path, long_side=64).views}
    assert all(p.shape == (32, 48, 3) and p.dtype == np.uint8 for p in pixels.values())
    assert np.array_equal(pixels["deep.png"], pixels["grey.png"])
    assert (pixels["clear.png"][:16] == 0).all()
    assert np.array_equal(pixels["clear.png"][16:], gradient(48, 32)[16:])


def test_holdout_counts_readable_photos(tmp_path):
    helpers.write_noise_photos(tmp_path, 6)
    (tmp_path / "photo_002.jpg").write_bytes(b"broken")
    views = open_photos(tmp_path, long_side=64, holdout=Holdout(every=2, offset=1)).views
    assert [v.name for v in views if v.holdout] == ["photo_001.jpg", "photo_004.jpg"]


def test_files_of_the_same_name_get_names_of_their_folders(tmp_path):
    for i, folder in enumerate(("left", "right")):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "1.png", gradient(40, 30, i))
    found = find_files([tmp_path / "right", tmp_path / "left" / "1.png"])
    assert list(found.photos) == ["left/1.png", "right/1.png"]


def test_what_is_no_photo_is_skipped_with_a_reason(tmp_path):
    good = helpers.write_noise_photos(tmp_path, 3)
    whole = good[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "whole.png", gradient(64, 48))
    png = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "fake.jpg").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / ".hidden.jpg").write_text("hello")
    (tmp_path / "raw.dng").write_bytes(b"II*\0")
    save(tmp_path / "icon.png", gradient(8, 8))
    found = open_photos(tmp_path, long_side=64)
    assert len(found.views) == 4
    reasons = dict(found.skipped)
    assert set(reasons) == {"cut.jpg", "cut.png", "notes.txt", "fake.jpg", "empty.jpg", "raw.dng", "icon.png"}
    assert "cut off" in reasons["cut.jpg"]
    assert "cut off" in reasons["cut.png"]
    assert "not a JPEG, PNG" in reasons["notes.txt"]
    assert "develop it" in reasons["raw.dng"]
    assert "8x8" in reasons["icon.png"]


def test_no_photo_at_all(tmp_path):
    with pytest.raises(CannotReconstruct, match="No photos"):
        open_photos([], long_side=64)
    with pytest.raises(CannotReconstruct, match="no files"):
        open_photos(tmp_path, long_side=64)
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(CannotReconstruct, match=r"No photo could be read: a\.jpg") as caught:
        open_photos(tmp_path, long_side=64)
    assert caught.value.remedy
    with pytest.raises(UserError, match="There is no file or folder"):
        open_photos(tmp_path / "absent", long_side=64)
    with pytest.raises(UserError, match="too small"):
        open_photos(tmp_path, long_side=4)


def test_one_photo_opens(tmp_path):
    """The pipeline decides what one photo is good for."""
    assert len(open_photos(helpers.write_noise_photos(tmp_path, 1), long_side=64).views) == 1


def test_copies_of_one_photo_are_refused(tmp_path):
    (photo,) = helpers.write_noise_photos(tmp_path, 1)
    for name in ("b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    with pytest.raises(CannotReconstruct, match="All 3 photos are the same picture"):
        open_photos(tmp_path, long_side=64)
    helpers.write_noise_photos(tmp_path, 2)
    assert len(open_photos(tmp_path, long_side=64).views) == 4


def test_same_body_lens_and_size_share_a_camera(tmp_path):
    exif = Image.Exif()
    exif[271], exif[272] = "Maker", "Body 1"
    exif.get_ifd(0x8769)[37386] = 4.0
    save(tmp_path / "a.jpg", gradient(64, 48), exif=exif)
    save(tmp_path / "b.jpg", gradient(64, 48, 1), exif=exif)
    save(tmp_path / "c.jpg", gradient(48, 64, 2), exif=exif)
    save(tmp_path / "d.jpg", gradient(64, 48, 3))
    keys = [view.camera_id for view in open_photos(tmp_path, long_side=64).views]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
