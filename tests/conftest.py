"""What every test shares: shape-and-type checking of the product's code, marks, and where real photos are.

The jaxtyping + beartype hook checks every annotated function of `recon`, `models` and `render` while tests run; production
code runs without it. Numba must compile the function itself and not the checking wrapper, so its decorators unwrap first.
"""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell that starts the tests in the background ignores Ctrl-C for all they start; the Ctrl-C tests need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _unwrap_first(decorate: Callable) -> Callable:
    """Make a Numba decorator compile the bare function behind a checking wrapper."""

    def decorator(*args, **kwargs):
        if args and inspect.isfunction(args[0]):
            return decorate(inspect.unwrap(args[0]), *args[1:], **kwargs)
        made = decorate(*args, **kwargs)
        return lambda function: made(inspect.unwrap(function))

    return decorator


def _install_checks() -> None:
    import numba
    from jaxtyping import install_import_hook

    numba.njit = _unwrap_first(numba.njit)
    numba.jit = _unwrap_first(numba.jit)
    install_import_hook(["recon", "models", "render"], "helpers.check_types")


_install_checks()

from small_runs import NEIGHBOURS, shrink  # noqa: E402

import helpers  # noqa: E402  (the hook must be in place before the product is imported)

LONG = ("test_app_bad_input", "test_recon_cameras_auto", "test_recon_cameras_refined", "test_app_web_browser", "test_app_whole")
"""Files that take longest; they go first, so that no process is left with one of them while the other has nothing to do."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first; skip, with the reason, what this machine cannot run."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    missing = {"requires_cuda": helpers.cuda_missing(), "browser": helpers.browser_missing()}
    for item in items:
        for mark, reason in missing.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own: nothing is found there that another test, or a person, has left."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RECON_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def dataset() -> Callable[[str], Path]:
    """``dataset("fox")`` is the folder of a real photo set; the test is skipped, with the reason, where it is absent."""

    def find(name: str) -> Path:
        folder = helpers.find_dataset(name)
        if folder is None:
            pytest.skip(f"real photo set {name!r} not found: set RECON_EVAL_DATA to the folder that holds it")
        return folder

    return find


@pytest.fixture(scope="session")
def sample_photos() -> Path:
    """The folder of the shipped sample capture."""
    folder = helpers.REPOSITORY / "data" / "sample"
    if not any(folder.rglob("*.jpg")):
        pytest.skip("data/sample holds no photos")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files go to a folder of the test, which must be empty at the end; started children must have ended."""
    from recon.cameras import child_process
    from recon.capture import decoder

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    children = []
    start = subprocess.Popen

    class Recorded(start):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            children.append(self)

    assert decoder.subprocess.Popen is start, "loaded before its type hints could meet the class below"
    monkeypatch.setattr(child_process.subprocess, "Popen", Recorded)
    yield
    assert all(child.poll() is not None for child in children)
    assert list(temporary.iterdir()) == []


@pytest.fixture
def three_photos(sample_photos: Path, tmp_path: Path) -> Path:
    """Three neighbouring photos of the sample, small, EXIF kept."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NEIGHBOURS:
        shrink(sample_photos / name, folder / name)
    return folder
