"""The rooms and their doors (CONTRIBUTING.md, "Rooms"): who may import whom, read from the source with `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import helpers

MAY_IMPORT = {
    "recon": set(),
    "models": {"recon"},
    "render": {"recon"},
    "app": {"recon", "models", "render", "weights", "data"},
    "weights": set(),
    "data": {"recon", "render"},
}
"""Room -> other rooms it may import. `data` holds the script that makes the sample."""

WALLS = {
    "gsplat": lambda p: p == "render/cuda.py",
    "pycolmap": lambda p: p.startswith("recon/cameras/child/"),
    "gradio": lambda p: p.startswith("app/"),
    "gradio_client": lambda p: False,
    "viser": lambda p: p.startswith("app/"),
    "huggingface_hub": lambda p: p == "models/checkpoints.py",
    "bpy": lambda p: p == "data/sample_cycles.py",
    "mathutils": lambda p: p == "data/sample_cycles.py",
    "open3d": lambda p: p.startswith(("recon/mesh", "recon/formats")),
    "trimesh": lambda p: p.startswith(("recon/mesh", "recon/formats")),
}
"""Third-party package -> the files that may import it."""

BANNED_FILE_NAMES = {"utils", "common", "misc", "helpers", "util", "helper"}
BANNED_SUFFIXES = ("_v2", "_new", "_old", "_raw")
BANNED_NAMES = {"extrinsics", "c2w", "w2c", "pose", "poses"}
TRAINING_PACKAGES = {"torch", "numpy", "numba", "safetensors", "jaxtyping"}
LONGEST_FILE = 400


def product_files() -> list[str]:
    """Every Python file of the product, as a path relative to the repository."""
    return sorted(
        path.relative_to(helpers.REPOSITORY).as_posix() for room in MAY_IMPORT for path in (helpers.REPOSITORY / room).rglob("*.py")
    )


@cache
def parse(path: str) -> ast.Module:
    return ast.parse((helpers.REPOSITORY / path).read_text(encoding="utf-8"), filename=path)


def module_name(path: str) -> str:
    parts = path.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: str, tree: ast.Module, *, top_level_only: bool = False) -> Iterator[str]:
    """Every module a file imports, absolute; `from .a import b` yields `room.a` and `room.a.b`."""
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_names(path: str, tree: ast.Module) -> Iterator[str]:
    """Strings given to import_module or __import__ count as imports too."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.args[0].value


def breaches(path: str, tree: ast.Module) -> list[str]:
    """What a file imports though it may not."""
    room = path.split("/")[0]
    facade = path == "recon/__init__.py"
    found = []
    for module in {*imported_modules(path, tree), *imported_names(path, tree)}:
        top = module.split(".")[0]
        if top in MAY_IMPORT and top != room and top not in MAY_IMPORT[room] and not facade:
            found.append(f"{path} imports {module}: {room} may import {sorted(MAY_IMPORT[room]) or 'no other room'}")
        if top in WALLS and not WALLS[top](path):
            found.append(f"{path} imports {module} outside its wall")
    return found


def test_files_import_only_what_their_rooms_may() -> None:
    assert [breach for path in product_files() for breach in breaches(path, parse(path))] == []


@pytest.mark.parametrize(
    ("path", "source", "wanted"),
    [
        ("recon/a.py", "import models.layers", 1),
        ("recon/a.py", "def f():\n    from render.rasterizer import load_rasterizer", 1),
        ("models/a.py", "from render import rasterizer", 1),
        ("models/a.py", "from recon.records import Views", 0),
        ("render/a.py", "import gsplat", 1),
        ("render/cuda.py", "import gsplat", 0),
        ("recon/photos.py", "import pycolmap", 1),
        ("recon/a.py", "import importlib\nimportlib.import_module('gradio')", 1),
        ("recon/__init__.py", "from app.run import reconstruct", 0),
    ],
)
def test_a_breach_is_seen(path: str, source: str, wanted: int) -> None:
    assert len(breaches(path, ast.parse(source))) >= wanted
    assert bool(breaches(path, ast.parse(source))) == bool(wanted)


def test_names_follow_the_house() -> None:
    found = []
    for path in product_files():
        stem = Path(path).stem
        if stem in BANNED_FILE_NAMES or stem.endswith(BANNED_SUFFIXES):
            found.append(path)
        given = dict(names_given(parse(path)))
        found += [
            f"{path}:{line}: {name}" for name, line in given.items() if name in BANNED_NAMES or is_second_version(name, given)
        ]
    assert found == []


def is_second_version(name: str, given: dict[str, int]) -> bool:
    """Tell whether ``name`` is another name of the file with a suffix such as `_old`."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in given for suffix in BANNED_SUFFIXES)


def names_given(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name a file defines, with its line: functions, classes, arguments, variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def test_files_are_one_idea_long() -> None:
    lengths = {path: len((helpers.REPOSITORY / path).read_text(encoding="utf-8").splitlines()) for path in product_files()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_files_say_what_they_are_for() -> None:
    assert [path for path in product_files() if parse(path).body and not ast.get_docstring(parse(path))] == []


def test_no_exception_is_swallowed() -> None:
    swallowed = [
        f"{path}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ExceptHandler)
        and all(isinstance(line, ast.Pass) for line in node.body)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    ]
    assert swallowed == []


def test_only_the_app_prints() -> None:
    printing = [
        f"{path}:{node.lineno}"
        for path in product_files()
        if path.split("/")[0] in ("recon", "models", "render") and "/training/" not in path and "__main__" not in path
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_no_import_cycles() -> None:
    names = {module_name(path): path for path in product_files()}
    graph = {
        name: {module for module in imported_modules(path, parse(path), top_level_only=True) if module in names and module != name}
        for name, path in names.items()
    }
    for package in ("recon", "models", "render", "app", "weights", "data"):
        graph.pop(package, None)  # a facade is loaded before its files; it imports nothing of its own at load time
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name in done or name not in graph:
            return
        for other in sorted(graph[name]):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def training_modules() -> list[str]:
    return [module_name(path) for path in product_files() if path.startswith("models/training/")]


def run_blocked(modules: list[str], *, rooms: tuple[str, ...] = ("recon", "models", "weights")) -> subprocess.CompletedProcess:
    """Import ``modules`` in a fresh interpreter where every third-party package but the allowed ones is missing.

    What the allowed packages import among themselves stays possible: the blocker looks at who is asking.

    Args:
        rooms: those of ours that may be imported.
    """
    script = textwrap.dedent(
        f"""
        import builtins, importlib, sys
        allowed, rooms = {sorted(TRAINING_PACKAGES | set(rooms))!r}, ("recon", "models", "render", "app", "weights", "data")
        original = builtins.__import__
        def guarded(name, globals=None, locals=None, fromlist=(), level=0):
            asker = (globals or {{}}).get("__name__", "")
            top = name.split(".")[0]
            ours = asker.split(".")[0] in rooms
            if level == 0 and ours and top not in sys.stdlib_module_names and top not in allowed:
                raise ImportError(f"{{asker}} imports {{name}}, which a bare training machine lacks")
            return original(name, globals, locals, fromlist, level)
        builtins.__import__ = guarded
        for module in {modules!r}:
            importlib.import_module(module)
        print("imported", len({modules!r}))
        """
    )
    return subprocess.run([sys.executable, "-c", script], cwd=helpers.REPOSITORY, capture_output=True, text=True, timeout=120)


def test_training_needs_only_five_packages() -> None:
    modules = training_modules()
    assert modules
    done = run_blocked(modules)
    assert done.returncode == 0, done.stderr
    assert f"imported {len(modules)}" in done.stdout


def test_training_that_draws_needs_no_more() -> None:
    """`llvmlite` comes with numba."""
    done = run_blocked(["app.bare_training"], rooms=("recon", "models", "weights", "render", "llvmlite"))
    assert done.returncode == 0, done.stderr


def test_the_training_blocker_blocks() -> None:
    done = run_blocked(["app.console"])
    assert done.returncode != 0
    assert "bare training machine" in done.stderr
