"""Everything a person may bring as photos: formats, folders, patterns, lists, archives, videos, names."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from recon.capture.archive import safe_name
from recon.capture.choices import CaptureConfig
from recon.capture.decoder import Decoder
from recon.capture.files import find_files
from recon.capture.intake import take_in
from recon.capture.names import clean_name
from recon.capture.video import TELL_EVERY, choose_frames, extract_frames
from recon.errors import CannotReconstruct, UserError
from recon.photos import open_photos

import helpers

FIXTURES = Path(__file__).parent / "fixtures"
LOSSY = 14
"""Grey levels by which a lossy file may differ from the smooth picture it holds."""


def gradient(width: int, height: int, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 / width + 20, y * 200 / height + 20, (x + 2 * y) * 80 / (width + height) + 9 * seed], -1).astype(
        np.uint8
    )


def test_every_kind_of_picture_decodes_to_the_same_pixels(tmp_path):
    picture = Image.fromarray(gradient(160, 96))
    grey = gradient(160, 96)[..., 0]
    shutil.copy(FIXTURES / "turned.heic", tmp_path / "heif.heic")
    exact, lossy = ["png.png", "tiff.tif", "webp.webp", "bmp.bmp", "lzw.tiff", "turned.tif"], ["jpeg.jpg", "heif.heic", "avif.avif"]
    for name in ("png.png", "tiff.tif", "bmp.bmp"):
        picture.save(tmp_path / name)
    picture.save(tmp_path / "webp.webp", lossless=True)
    picture.save(tmp_path / "lzw.tiff", compression="tiff_lzw")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.tif", tiffinfo={274: 6})
    picture.save(tmp_path / "jpeg.jpg", quality=95)
    picture.save(tmp_path / "avif.avif", quality=90)
    picture.convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    Image.fromarray((grey / 255.0).astype(np.float32)).save(tmp_path / "float.tif")
    cv2.imwrite(str(tmp_path / "deep_rgb.png"), gradient(160, 96)[..., ::-1].astype(np.uint16) * 257)
    moving = [Image.fromarray(gradient(160, 96, seed)) for seed in range(3)]
    moving[0].save(tmp_path / "moving.webp", save_all=True, append_images=moving[1:], lossless=True)
    found = open_photos(tmp_path, long_side=160)
    assert found.skipped == ()
    pixels = {view.name: view.decode(160, 96).astype(int) for view in found.views}
    for name in [*exact, "moving.webp", "deep_rgb.png"]:
        assert np.array_equal(pixels[name], gradient(160, 96)), name
    for name in [*lossy, "cmyk.tif"]:
        assert np.abs(pixels[name] - gradient(160, 96)).max() <= LOSSY, name
    for name in ("grey.png", "deep.tif", "float.tif"):
        assert np.abs(pixels[name] - grey[..., None]).max() <= 1, name
    heic = found.views[found.views.names.index("heif.heic")]
    assert heic.focal_px == pytest.approx(26 * np.hypot(160, 96) / np.hypot(36, 24))
    assert heic.exif["model"] == "Phone 1"


def test_folders_patterns_and_lists(tmp_path):
    for place in ("a", "a/b", "a/masks", "a/images", "a/images_4", "a/.thumbs", "a/b/old_result"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        helpers.write_noise_photos(tmp_path / place, 1)
    for name in ("report.json", "scene.ply"):
        (tmp_path / "a/b/old_result" / name).write_text("{}")
    assert list(find_files(tmp_path / "a").photos) == ["b/photo_000.jpg", "images/photo_000.jpg", "photo_000.jpg"]
    assert len(find_files(str(tmp_path / "a" / "*.jpg")).photos) == 1
    assert len(find_files(str(tmp_path / "**" / "*.jpg")).photos) == 6
    (tmp_path / "mine.txt").write_text("# my photos\n\na/photo_000.jpg\na/b\n", encoding="utf-8")
    found = find_files(tmp_path / "mine.txt").photos
    assert [os.path.relpath(path, tmp_path) for path in found.values()] == ["a/b/photo_000.jpg", "a/photo_000.jpg"]
    with pytest.raises(UserError, match="no file or folder"):
        find_files(str(tmp_path / "*.nef"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_no_terminal_can_show(tmp_path):
    (photo,) = helpers.write_noise_photos(tmp_path / "made", 1)
    folder = tmp_path / "in"
    folder.mkdir()
    names = [b"caf\xe9.jpg", b"two\nlines.jpg", b"\x1b[31mred.jpg", b"100%41.jpg", b"<b>bold.jpg", b"a" * 250 + b".jpg"]
    for index, name in enumerate(names):
        helpers.write_noise_photos(tmp_path / "made", 1, seed=index)
        shutil.copy(photo, os.path.join(os.fsencode(folder), name))
    found = open_photos(folder, long_side=64)
    assert len(found.views) == len(names)
    assert {"caf%E9.jpg", "two%0Alines.jpg", "%1B[31mred.jpg", "100%2541.jpg"} <= set(found.views.names)
    assert all(name.isprintable() and name.encode() for name in found.views.names)
    assert clean_name("100%41") != clean_name("100A")


def test_zip_archives(tmp_path):
    photos = helpers.write_noise_photos(tmp_path / "made", 2)
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.write(photos[0], "trip/1.jpg")
        opened.write(photos[1], "../../escaped.jpg")
        opened.writestr("/absolute.jpg", photos[1].read_bytes())
        opened.writestr("trip/bomb.png", bytes(300 << 20))
        link = zipfile.ZipInfo("trip/link.jpg")
        link.external_attr = 0o120777 << 16
        opened.writestr(link, "/etc/passwd")
        opened.writestr("trip/notes.txt", "hello")
        opened.writestr("__MACOSX/._1.jpg", "x")
    intake = take_in(archive, CaptureConfig())
    assert list(intake.photos) == ["trip/1.jpg"]
    reasons = dict(intake.skipped)
    assert "more than a photo" in reasons["trip/bomb.png"]
    assert reasons["trip/link.jpg"] == "is a link"
    assert not list(tmp_path.rglob("escaped*"))
    assert sum(path.stat().st_size for path in intake.photos["trip/1.jpg"].parent.iterdir()) < 100_000
    assert take_in(archive, CaptureConfig()).photos == intake.photos
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(UserError, match="is not a zip archive"):
        take_in(archive, CaptureConfig())
    assert [safe_name(n) for n in ("a/../b.jpg", "C:/b.jpg", "a\\b.jpg", "notes.txt")] == [None, None, "a/b.jpg", None]


def write_video(path: Path, *, frames: int = 40, blurred: set[int] = frozenset(), still: int = 0) -> None:
    """A camera that slides over noise, after standing still for some frames; some frames are blurred."""
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (80, 400, 3), dtype=np.uint8), (1600, 320), interpolation=cv2.INTER_LINEAR)
    images = []
    for index in range(frames):
        x = 8 * max(0, index - still)
        image = wide[:240, x : x + 320]
        images.append(cv2.GaussianBlur(image, (0, 0), 5) if index in blurred else image)
    if path.suffix == ".gif":
        first, *rest = [Image.fromarray(image).quantize(64, Image.Quantize.FASTOCTREE) for image in images]
        first.save(path, save_all=True, append_images=rest, duration=100)
        return
    code = {".mp4": "mp4v", ".webm": "VP80", ".mov": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10.0, (320, 240))
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()


def test_a_long_way_between_kept_frames_is_not_silent(tmp_path):
    video, told = tmp_path / "walk.mp4", []
    write_video(video, blurred=set(), still=0)
    found = extract_frames(video, tmp_path, fps=5.0, max_frames=2, tell=told.append)
    second = [share for share in told if share > 0.6]
    numbers = [int(name[6:11]) for name in found["written"]]
    assert len(numbers) == 2
    assert numbers[1] - numbers[0] > 2 * TELL_EVERY
    assert len(second) >= 2 + (numbers[1] - numbers[0]) // TELL_EVERY - 1
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize("kind", [".mp4", ".mov", ".webm", ".gif"])
def test_videos_give_sharp_frames_a_step_apart(tmp_path, kind):
    video = tmp_path / f"walk{kind}"
    blurred = {i for i in range(40) if i % 3}
    write_video(video, blurred=blurred, still=10)
    found = open_photos(video, long_side=320, capture=CaptureConfig(fps=5.0, max_frames=8))
    numbers = [int(name[6:11]) for name in found.views.names]
    assert 6 <= len(numbers) <= 8
    assert not blurred & set(numbers), "a sharp neighbour was there"
    assert sum(number < 10 for number in numbers) <= 2, "standing still gives no new frames"
    assert 37 <= found.videos[0]["frames"] <= 40, "a GIF joins frames that are equal"
    assert len({view.camera_id for view in found.views}) == 1


def test_frames_are_spread_over_the_way():
    moved = [0.0] * 50 + [0.02] * 50
    chosen = choose_frames([0.3] * 100, moved, rate=30.0, fps=30.0, max_frames=10)
    assert len(chosen) <= 10
    assert sum(i >= 50 for i in chosen) >= len(chosen) - 1
    slow = choose_frames([0.3] * 100, [0.02] * 100, rate=10.0, fps=1.0, max_frames=60)
    assert len(slow) <= 10
    assert min(np.diff(slow)) >= 5


def test_a_broken_video_is_said_in_words(tmp_path):
    video = tmp_path / "walk.mp4"
    video.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20)
    with pytest.raises(CannotReconstruct, match="No frames could be taken from a video"):
        open_photos(video, long_side=64)
    helpers.write_noise_photos(tmp_path, 2)
    found = open_photos(tmp_path, long_side=64)
    assert len(found.views) == 2
    assert "video among photos" in dict(found.skipped)["walk.mp4"]


def test_a_decoder_that_dies_or_hangs_is_ended_and_replaced(tmp_path):
    """A named pipe that nobody writes to hangs any reader; memory beyond the limit kills or refuses."""
    (photo,) = helpers.write_noise_photos(tmp_path, 1)
    request = {"task": "probe", "keep_private": False, "side": 64}
    big = tmp_path / "big.png"
    Image.new("L", (12000, 12000)).save(big)
    with Decoder(memory_bytes=96 << 20) as decoder:
        assert "reason" in decoder.ask({**request, "path": str(big)})
        assert decoder.ask({**request, "path": str(photo)})["width"] == 64
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "pipe.jpg")
            assert "too long" in decoder.ask({**request, "path": str(tmp_path / "pipe.jpg")}, seconds=0.5)["reason"]
            assert decoder.ask({**request, "path": str(photo)})["width"] == 64


def test_stopping_ends_the_decoder(tmp_path):
    helpers.write_noise_photos(tmp_path, 2)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_photos(tmp_path, long_side=64, check=stop)


def test_long_names_in_an_archive_cost_nothing_else(tmp_path):
    """100 letters of three bytes are more than a file system takes; a very deep path is left out by name."""
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    photo = (tmp_path / "a.jpg").read_bytes()
    archive, deep = tmp_path / "long.zip", "d" * 100 + "/"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("\u5199" * 100 + ".jpg", photo)
        made.writestr(20 * deep + "1.jpg", photo)
        made.writestr("plain.jpg", photo)
    intake = take_in(archive, CaptureConfig())
    assert len(intake.photos) == 2
    assert all(len(Path(name).name.encode()) <= 120 for name in intake.photos)
    assert [reason for _, reason in intake.skipped] == ["has a name that is not taken from an archive"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["x.jpg", "x.zip", "x.mp4"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        take_in(tmp_path / name, CaptureConfig())
