"""What the user knows: masks, lenses, one camera, a distance; and the look at the photos before a run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from recon.cameras.auto import Workbench, fits
from recon.cameras.recipes import LADDER
from recon.cameras.refined import shared_lenses
from recon.cameras.result import SfmResult, blank_cameras
from recon.capture.choices import CaptureConfig
from recon.capture.known import KnownDistance, apply_distance, read_intrinsics
from recon.errors import UserError
from recon.lens import posed_views
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Cameras

import helpers


def solved_without_points(cameras: Cameras) -> SfmResult:
    return SfmResult(
        cameras=cameras,
        points_world=torch.zeros(0, 3, dtype=torch.float64),
        points_rgb=torch.zeros(0, 3, dtype=torch.uint8),
        visibility=torch.zeros(len(cameras), 0, dtype=torch.bool),
        reprojection_error_px=0.0,
        per_view_points=torch.zeros(len(cameras), dtype=torch.long),
    )


def test_masks_and_alpha_say_which_pixels_count(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    helpers.write_noise_photos(photos, 3)
    masks.mkdir()
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    Image.fromarray(left).save(masks / "photo_000.png")
    Image.fromarray(left[:, ::-1].copy()).resize((32, 24)).save(masks / "photo_001.jpg.png")
    clear = np.dstack([np.full((48, 64, 3), 90, np.uint8), left])
    clear[::2, ::2, :3] = 200
    Image.fromarray(clear).save(photos / "cut_out.png")
    views = open_photos(photos, long_side=64, capture=CaptureConfig(masks=str(masks))).views
    counted = {view.name: view.counted(64, 48) for view in views}
    assert counted["photo_002.jpg"] is None
    for name, columns in (("cut_out.png", slice(0, 32)), ("photo_000.jpg", slice(0, 32)), ("photo_001.jpg", slice(32, 64))):
        wanted = torch.zeros(48, 64, dtype=torch.bool)
        wanted[:, columns] = True
        assert torch.equal(counted[name], wanted), name
    solved = solved_without_points(blank_cameras(views))
    image, valid = posed_views(views, solved, [1], long_side=64).pixels(0)
    assert torch.equal(valid, counted["photo_000.jpg"])
    assert bool((image[:, 32:] == 0).all()), "what is masked is not shown to any stage"


def test_masks_that_do_not_fit_are_refused(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    helpers.write_noise_photos(photos, 2)
    masks.mkdir()
    with pytest.raises(UserError, match="named like a photo"):
        open_photos(photos, long_side=64, capture=CaptureConfig(masks=str(masks)))
    Image.new("L", (48, 64), 255).save(masks / "photo_000.png")
    with pytest.raises(UserError, match="48x64 pixels, its photo 64x48"):
        open_photos(photos, long_side=64, capture=CaptureConfig(masks=str(masks)))
    Image.new("L", (64, 48), 0).save(masks / "photo_000.png")
    with pytest.raises(UserError, match="leaves nothing"):
        open_photos(photos, long_side=64, capture=CaptureConfig(masks=str(masks)))
    with pytest.raises(UserError, match="not a folder"):
        open_photos(photos, long_side=64, capture=CaptureConfig(masks=str(tmp_path / "absent")))


def test_known_lenses(tmp_path):
    names, sizes = ["a.jpg", "b.jpg"], [(640, 480), (480, 640)]
    assert read_intrinsics("500,510,320,240", names, [(640, 480)] * 2)[1] == (500, 510, 320, 240, 0, 0, 0, 0)
    (tmp_path / "lens.json").write_text(json.dumps({"a.jpg": [500, 500, 320, 240, 0.1, 0, 0, 0]}))
    assert read_intrinsics(str(tmp_path / "lens.json"), names, sizes) == [(500, 500, 320, 240, 0.1, 0, 0, 0), None]
    for text, words in (
        ("500,510,320", "wanted 4 or 8"),
        ("5,5,320,240", "impossible"),
        ("500,500,320,600", "lies outside"),
        (str(tmp_path / "absent.json"), "no file"),
    ):
        with pytest.raises(UserError, match=words):
            read_intrinsics(text, names, [(640, 480)] * 2)


def test_one_camera_on_request(tmp_path):
    for index in range(2):
        exif = Image.Exif()
        exif[272] = f"Body {index}"
        (photo,) = helpers.write_noise_photos(tmp_path / str(index), 1, seed=index)
        Image.open(photo).save(photo, exif=exif)
    ids = {view.camera_id for view in open_photos(tmp_path, long_side=64).views}
    assert len(ids) == 2
    ids = {view.camera_id for view in open_photos(tmp_path, long_side=64, capture=CaptureConfig(shared_camera=True)).views}
    assert len(ids) == 1


def test_a_known_distance_sets_the_scale(tmp_path):
    views = open_photos(helpers.write_noise_photos(tmp_path, 3), long_side=64).views
    cameras = blank_cameras(views)
    cameras.T_world_cam[:, 0, 3] = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)
    cameras.registered[:] = True
    known = KnownDistance.parse("photo_000.jpg, photo_001=30 cm")
    solved, factor = apply_distance(solved_without_points(cameras), known, views.names)
    assert factor == pytest.approx(0.15)
    assert solved.cameras.centers_world[:, 0].tolist() == pytest.approx([0.0, 0.3, 0.75])
    cameras.registered[1] = False
    with pytest.raises(UserError, match="no camera was found"):
        apply_distance(solved_without_points(cameras), known, views.names)
    for text in ("a,b", "a=1m", "a,b=-1m", "a,b=1 parsec", "a,a=1m", "a,b=0m"):
        with pytest.raises(UserError, match="cannot be read"):
            KnownDistance.parse(text)


def test_the_look_before_a_run(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(6):
        fine = Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).resize((480, 360), Image.Resampling.BICUBIC)
        if index == 2:
            fine = fine.resize((24, 18), Image.Resampling.BOX).resize((480, 360), Image.Resampling.BICUBIC)
        if index == 3:
            fine = fine.point(lambda level: level // 20)
        fine.save(tmp_path / f"{index}.png")
        if index == 4:
            fine.save(tmp_path / "4_again.jpg", quality=80)
    found = open_photos(tmp_path, long_side=64)
    words = {photo.name: photo.words for photo in found.check.photos}
    doubted = {"2.png": "blurred", "3.png": "too dark", "4_again.jpg": "a copy"}
    assert {name for name, given in words.items() if given} == set(doubted)
    assert all(word in words[name] for name, word in doubted.items())
    said = " ".join(found.check.advice)
    for part in ("7 photos are few", "2.png", "more light", "copies add nothing", "focal length"):
        assert part in said
    assert "3 of them doubtful" in found.check.summary


def test_one_lens_in_pixels_is_not_given_to_photos_of_several_sizes(tmp_path):
    names, sizes = ["a.jpg", "b.jpg"], [(4000, 3000), (3000, 4000)]
    with pytest.raises(UserError, match="3000x4000 and 4000x3000"):
        read_intrinsics("3000,3000,1500,1500", names, sizes)
    each = tmp_path / "lenses.json"
    each.write_text('{"all": [3000, 3000, 2000, 1500], "b.jpg": [3000, 3000, 1500, 2000]}')
    assert [lens[2:4] for lens in read_intrinsics(str(each), names, sizes)] == [(2000, 1500), (1500, 2000)]


def test_a_lens_that_the_user_says_is_shared_is_not_split(tmp_path):
    helpers.write_noise_photos(tmp_path, 3, seed=1)
    own = next(recipe for recipe in LADDER if recipe.only == "lenses shared")
    for said in (False, True):
        views = open_photos(tmp_path, long_side=64, capture=CaptureConfig(shared_camera=said)).views
        bench = Workbench(views=views, folder=tmp_path, progress=Progress(), seed=0)
        assert fits(replace(own, at_least=2), views, bench) != said
        cameras = Cameras(
            T_world_cam=torch.eye(4, dtype=torch.float64).repeat(3, 1, 1),
            K=torch.tensor([[[f, 0, 32], [0, f, 24], [0, 0, 1]] for f in (50.0, 80.0, 120.0)], dtype=torch.float64),
            width=(64,) * 3,
            height=(48,) * 3,
        )
        numbers = shared_lenses(views, cameras, bench.camera_numbers(own_lenses=False))
        assert len(set(numbers.tolist())) == (1 if said else 3)
