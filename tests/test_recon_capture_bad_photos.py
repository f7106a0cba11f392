"""Bad photos: words instead of tracebacks, no hang, memory bounded. A fixed share of the corpus by default, all of it when slow."""

from __future__ import annotations

import json

import pytest
from bad_photos import COUNT, write_corpus

from recon.capture.decode import decode_photo
from recon.capture.decoder import TOO_LONG, probe_all
from recon.capture.files import find_files
from recon.capture.names import shown
from recon.capture.photo_size import working_size
from recon.photos import open_photos

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow grumbles at files that it reads all the same


def look_at(folder, made) -> dict[str, int]:
    """Open every file; what is accepted decodes again, what is refused says why in printable words."""
    found = find_files(folder)
    paths = list(found.photos.values())
    answers = probe_all(paths, keep_private=True, side=256)
    count = {"accepted": 0, "refused": len(found.skipped)}
    for (name, path), answer in zip(found.photos.items(), answers, strict=True):
        assert name.isprintable()
        if "reason" in answer:
            count["refused"] += 1
            assert answer["reason"].isprintable()
            assert answer["reason"] != TOO_LONG, shown(path)
            assert "Traceback" not in answer["reason"]
            continue
        count["accepted"] += 1
        json.dumps(answer, allow_nan=False)
        decode_photo(path, answer["facts"]["orientation"], *working_size(answer["width"], answer["height"], 256))
        assert made[path] not in ("wrong_type", "absurd_size"), shown(path)
    return count


def test_a_share_of_the_corpus(tmp_path):
    made = write_corpus(tmp_path / "photos", 36, seed=1, without=("bomb",))
    count = look_at(tmp_path / "photos", made)
    assert sum(count.values()) == 36
    assert count["refused"] >= 12


@pytest.mark.slow
def test_the_whole_corpus_with_bombs(tmp_path):
    made = write_corpus(tmp_path / "photos", COUNT)
    count = look_at(tmp_path / "photos", made)
    assert sum(count.values()) == COUNT
    assert count["refused"] >= COUNT // 3


def test_good_photos_among_bad_ones(tmp_path):
    """A capture goes on with what is whole, and names every file that is not."""
    made = write_corpus(tmp_path / "photos", 14, seed=2, without=("bomb", "flip", "flip_header"))
    found = open_photos(tmp_path / "photos", long_side=128)
    assert len(found.views) + len(found.skipped) == 14
    assert len(found.views) >= sum(maker in ("renamed", "hostile_exif") for maker in made.values())
    assert all(view.load().shape[2] == 3 for view in found.views)
