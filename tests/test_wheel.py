"""The wheel: it carries everything the product needs, and reconstructs from where it was unpacked, far from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import helpers

ROOMS = ("recon", "models", "render", "app", "weights", "data")
SMALL = ["--long-side", "256", "--max-gaussians", "3000", "--no-video", "--device", "cpu", "--json", "--quiet"]
PHOTOS = 6


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a clean copy of the checkout, so that no earlier build folder leaks into it."""
    folder = tmp_path_factory.mktemp("wheel")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=helpers.REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if not name.startswith("tests/") and (helpers.REPOSITORY / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(helpers.REPOSITORY / name, folder / "source" / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_of_the_product_is_in_it(names: set[str]) -> None:
    modules = {
        path.relative_to(helpers.REPOSITORY).as_posix() for room in ROOMS for path in (helpers.REPOSITORY / room).rglob("*.py")
    }
    assert modules - names == set(), "list the package in pyproject.toml"
    assert not [name for name in names if name.startswith("tests/")]


def test_weights_and_sample_are_in_it(names: set[str]) -> None:
    manifest = tomllib.loads((helpers.REPOSITORY / "weights" / "manifest.toml").read_text(encoding="utf-8"))
    files = [entry["file"] for entry in manifest.get("weights", [])]
    assert files
    beside = {path.name for path in (helpers.REPOSITORY / "weights").iterdir() if path.suffix in (".safetensors", ".toml", ".md")}
    assert set(files) <= beside
    assert {f"weights/{name}" for name in beside} <= names
    sample = {path.name for path in (helpers.REPOSITORY / "data" / "sample").iterdir() if path.suffix.lower() in (".jpg", ".png")}
    assert len(sample) >= 12
    assert {f"data/sample/{name}" for name in sample} <= names


def test_licence_and_command_are_in_it(wheel: Path, names: set[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "recon = app.cli:main" in archive.read(entry_points).decode()


def few_photos(package_root: Path, folder: Path) -> Path:
    """Copy some neighbouring photos of the packaged sample."""
    folder.mkdir()
    for photo in sorted((package_root / "data" / "sample").glob("*.jpg"))[:PHOTOS]:
        shutil.copyfile(photo, folder / photo.name)
    return folder


def check_result(done: subprocess.CompletedProcess, out: Path) -> None:
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"]["gaussians"] > 100
    assert (out / "scene.ply").stat().st_size > 1000
    assert {"cameras.json", "transforms.json", "colmap", "preview.png", "report.json"} <= {path.name for path in out.iterdir()}


def run_unpacked(wheel: Path, tmp_path: Path, code: str, *words: str) -> subprocess.CompletedProcess:
    """Run code with the product from the unpacked wheel alone: isolated mode, no checkout on the path."""
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    start = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r}); import recon; "
        f"assert recon.__file__.startswith({str(unpacked)!r}), recon.__file__; {code}"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", start, *words]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)


def test_an_unpacked_wheel_finds_its_commands_and_weights_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    code = (
        "from app.cli import main; from models.registry import load_predictor, load_splat_head; "
        "print(load_predictor('mini').name, type(load_splat_head()).__name__); sys.exit(main(sys.argv[1:]))"
    )
    done = run_unpacked(wheel, tmp_path, code, "run", "no-such-folder", "-o", "out")
    assert done.stdout.split() == ["mini", "LearnedSplatHead"], done.stderr
    assert done.returncode == 2
    assert "no-such-folder" in done.stderr


@pytest.mark.slow
def test_an_unpacked_wheel_reconstructs_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    photos, out = few_photos(helpers.REPOSITORY, tmp_path / "photos"), tmp_path / "out"
    code = "import app.cli; sys.exit(app.cli.main(sys.argv[1:]))"
    check_result(run_unpacked(wheel, tmp_path, code, "run", str(photos), "-o", str(out), *SMALL), out)


@pytest.mark.slow
def test_an_empty_environment_installs_and_reconstructs(wheel: Path, tmp_path: Path) -> None:
    """A person's first minutes: an empty venv, pip install, recon run."""
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert installed.returncode == 0, installed.stderr
    where = [str(scripts / "python"), "-P", "-c", "import recon, pathlib; print(pathlib.Path(recon.__file__).parent.parent)"]
    packages = Path(subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip())
    photos, out = few_photos(packages, tmp_path / "photos"), tmp_path / "out"
    command = [str(scripts / "recon"), "run", str(photos), "-o", str(out), *SMALL]
    check_result(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900), out)
