"""EXIF: focal lengths checked by hand, broken blocks, and what must never be kept."""

from __future__ import annotations

import json
import math

import pytest
from PIL import ExifTags, Image

from recon.exif import PhotoFacts, focal_px_from_exif, read_facts
from recon.files import plain
from recon.photos import open_photos

BASE = ExifTags.Base


def facts_of_saved(tmp_path, exif) -> PhotoFacts:
    """Write a 400x300 photo and read its facts."""
    Image.new("RGB", (400, 300), (90, 120, 30)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        return read_facts(image)


def test_focal_from_the_35_mm_equivalent():
    """A 3:2 picture 3600 px wide at 50 mm equivalent: 50 / 36 of its width."""
    assert focal_px_from_exif({BASE.FocalLengthIn35mmFilm: 50}, 3600, 2400) == pytest.approx(5000.0)
    assert focal_px_from_exif({BASE.FocalLengthIn35mmFilm: 50}, 2400, 3600) == pytest.approx(5000.0)


def test_equivalents_compare_diagonals():
    """A phone's 28 mm on a 4:3 picture: the iPhone X of llff_fern truly has 660 px at 800x600, widths would give 622."""
    focal = focal_px_from_exif({BASE.FocalLengthIn35mmFilm: 28}, 800, 600)
    assert focal == pytest.approx(28 * 1000 / math.hypot(36, 24))
    assert abs(focal - 661) < abs(28 * 800 / 36 - 661)


@pytest.mark.parametrize(("unit", "per_mm"), [(2, 1 / 25.4), (3, 0.1), (4, 1.0), (None, 1 / 25.4)])
def test_focal_from_the_sensor_resolution(unit, per_mm):
    """A sensor of 150 px per mm behind 20 mm: 3000 px, halved when the picture was halved since."""
    detail = {BASE.FocalLength: 20.0, BASE.FocalPlaneXResolution: 150 / per_mm, BASE.ExifImageWidth: 3600}
    detail |= {} if unit is None else {BASE.FocalPlaneResolutionUnit: unit}
    assert focal_px_from_exif(detail, 3600, 2400) == pytest.approx(3000.0)
    assert focal_px_from_exif(detail, 1800, 1200) == pytest.approx(1500.0)


@pytest.mark.parametrize(
    "detail",
    [
        {},
        {BASE.FocalLength: 4.0},
        {BASE.FocalLengthIn35mmFilm: 0},
        {BASE.FocalLengthIn35mmFilm: "wide"},
        {BASE.FocalLengthIn35mmFilm: 60000},
        {BASE.FocalLength: (4, 0), BASE.FocalPlaneXResolution: 100.0},
        {BASE.FocalLength: 4.0, BASE.FocalPlaneXResolution: 100.0, BASE.FocalPlaneResolutionUnit: 9},
    ],
)
def test_silent_or_absurd_exif_gives_no_focal(detail):
    assert focal_px_from_exif(detail, 4000, 3000) is None


def private_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Model] = "Maker", "Body\x00\x00"
    exif[BASE.Artist], exif[BASE.Copyright] = "Ada Owner", "(c) Ada Owner"
    detail = exif.get_ifd(ExifTags.IFD.Exif)
    detail[BASE.CameraOwnerName], detail[BASE.BodySerialNumber] = "Ada Owner", "SN-4711"
    detail[BASE.ExposureTime], detail[BASE.FocalLength], detail[BASE.FocalLengthIn35mmFilm] = 0.02, 4.25, 26
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[1], gps[2] = "N", (48.0, 12.0, 30.25)
    return exif


def test_position_and_owner_are_left_out(tmp_path):
    facts = facts_of_saved(tmp_path, private_exif())
    text = json.dumps(plain(facts.plain))
    assert facts.plain["model"] == "Body"
    assert facts.plain["exposure_s"] == pytest.approx(0.02)
    for secret in ("Ada", "4711", "gps", "30.25"):
        assert secret not in text
    (view,) = open_photos(tmp_path, long_side=64).views
    assert "Ada" not in json.dumps(plain(view.exif))


def test_position_and_owner_are_kept_when_asked_for(tmp_path):
    facts_of_saved(tmp_path, private_exif())
    (view,) = open_photos(tmp_path, long_side=64, keep_gps=True).views
    text = json.dumps(plain(view.exif))
    assert view.exif["gps"]["GPSLatitude"] == [48.0, 12.0, 30.25]
    assert "Ada Owner" in text
    assert "SN-4711" in text


def test_focal_survives_the_file(tmp_path):
    facts_of_saved(tmp_path, private_exif())
    (view,) = open_photos(tmp_path, long_side=64).views
    assert view.focal_px == pytest.approx(26 * 500 / math.hypot(36, 24))


def test_broken_exif_counts_as_none(tmp_path):
    facts_of_saved(tmp_path, private_exif())
    whole = (tmp_path / "a.jpg").read_bytes()
    at = whole.index(b"Exif\x00\x00") + 6
    (tmp_path / "a.jpg").write_bytes(whole[:at] + b"\xff" * 40 + whole[at + 40 :])
    (view,) = open_photos(tmp_path, long_side=64).views
    assert view.focal_px is None
    assert (view.original_width, view.original_height) == (400, 300)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_unknown_orientations_leave_the_pixels_alone(tmp_path, orientation):
    exif = Image.Exif()
    exif[BASE.Orientation] = orientation
    assert facts_of_saved(tmp_path, exif).orientation == 1
