"""The rasteriser against an independent renderer: @playcanvas/splat-transform on SwiftShader, 45 dB or better.

    python tests/benchmarks/witness.py                      100k random Gaussians of SH degree 3, and the sample's scene
    python tests/benchmarks/witness.py --scene out/mine     the same with another result folder (scene.ply and cameras.json)

Needs node with npm (the package is fetched once into build/witness), a Vulkan loader and SwiftShader, both of which Debian's
`chromium` package brings. RECON_SWIFTSHADER names libvk_swiftshader.so where it is not found by itself.
Exit code 1 below 45 dB; 2 where the other renderer cannot be run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bench_rasteriser import ball
from PIL import Image

from app.scene_files import load_scene
from recon.ply import write_ply
from recon.records import Cameras, Gaussians
from render.rasterizer import load_rasterizer

ROOT = Path(__file__).resolve().parents[2]
FLOOR_DB = 45.0
PACKAGE = "@playcanvas/splat-transform@3.7.0"
SWIFTSHADER_PLACES = ("/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome", "/usr/lib64/chromium-browser")
DEMO = ROOT / "out" / "demo"
NEAR, LONG_SIDE = 0.01, 640


class CannotWitness(Exception):
    """The other renderer is not there."""


def find_swiftshader() -> Path:
    """SwiftShader's Vulkan driver."""
    given = os.environ.get("RECON_SWIFTSHADER")
    places = [Path(given)] if given else [Path(folder) / "libvk_swiftshader.so" for folder in SWIFTSHADER_PLACES]
    for place in places:
        if place.is_file():
            return place
    raise CannotWitness("no libvk_swiftshader.so: install Debian's chromium, or set RECON_SWIFTSHADER")


def find_transform() -> list[str]:
    """The command of splat-transform, fetched on first use."""
    folder = ROOT / "build" / "witness"
    script = folder / "node_modules" / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CannotWitness("no node and npm: install Node.js 20 or newer")
    if not script.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "install", "--prefix", str(folder), PACKAGE, "--no-audit", "--no-fund"], check=True)
    return [node, str(script)]


@dataclass(frozen=True)
class Viewpoint:
    """A level camera, as the other renderer's command line can name it."""

    position: torch.Tensor
    target: torch.Tensor
    fov_deg: float
    """Vertical field of view."""
    width: int
    height: int

    def camera(self) -> Cameras:
        """The same as a pinhole in a y-down world."""
        forward = torch.nn.functional.normalize(self.target - self.position, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
        T_world_cam = torch.eye(4)
        T_world_cam[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
        T_world_cam[:3, 3] = self.position
        focal = self.height / 2 / math.tan(math.radians(self.fov_deg) / 2)
        K = torch.tensor([[focal, 0.0, self.width / 2], [0.0, focal, self.height / 2], [0.0, 0.0, 1.0]])
        return Cameras(T_world_cam=T_world_cam[None], K=K[None], width=self.width, height=self.height)


def draw_elsewhere(ply: Path, view: Viewpoint, folder: Path) -> np.ndarray:
    """Draw a PLY with splat-transform; ``H W 3`` float in [0, 1] over black."""
    driver = find_swiftshader()
    manifest = folder / "swiftshader_icd.json"
    manifest.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": str(driver), "api_version": "1.0.5"}}))
    libraries = os.pathsep.join([str(driver.parent), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = {**os.environ, "VK_ICD_FILENAMES": str(manifest), "LD_LIBRARY_PATH": libraries}
    picture = folder / "elsewhere.webp"
    # Its world is the file's turned by half a turn about z: y up, as in PlayCanvas.
    turned = [(-point[0].item(), -point[1].item(), point[2].item()) for point in (view.position, view.target)]
    place = [f"--camera-{name}={x:.9g},{y:.9g},{z:.9g}" for name, (x, y, z) in zip(("pos", "target"), turned, strict=True)]
    lens = [f"--camera-fov={view.fov_deg:.9g}", f"--camera-near={NEAR}", f"--resolution={view.width}x{view.height}"]
    command = [*find_transform(), "-q", "-w", str(ply), *place, *lens, str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not picture.is_file():
        raise CannotWitness(f"splat-transform failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return np.asarray(Image.open(picture).convert("RGB"), dtype=np.float32) / 255


def compare(name: str, gaussians: Gaussians, view: Viewpoint, out: Path | None) -> float:
    """Draw twice, print and return the PSNR."""
    ours = load_rasterizer("cpu")(gaussians, view.camera()).color[0].clamp(0, 1).numpy()
    ours = np.round(ours * 255) / 255
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_ply(folder / "scene.ply", gaussians)
        theirs = draw_elsewhere(folder / "scene.ply", view, folder)
    psnr = -10 * math.log10(max(float(np.mean((ours - theirs) ** 2)), 1e-12))
    size = f"{view.width}x{view.height}"
    print(f"{name}: {psnr:.1f} dB over {size}, {len(gaussians)} Gaussians of SH degree {gaussians.sh_degree}", flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        strip = np.concatenate([ours, theirs, np.clip(np.abs(ours - theirs) * 10, 0, 1)], axis=1)
        Image.fromarray((strip * 255).astype(np.uint8)).save(out / f"{name.replace(' ', '_')}.png")
    return psnr


def scene_view(folder: Path) -> tuple[Gaussians, Viewpoint]:
    """A result folder's Gaussians, and its first camera brought level."""
    scene = load_scene(folder)
    if scene.cameras is None:
        raise CannotWitness(f"{folder} holds no cameras.json")
    first = int(scene.cameras.registered_mask.nonzero()[0])
    T_world_cam, size = scene.cameras.T_world_cam[first], (scene.cameras.width[first], scene.cameras.height[first])
    fov_deg = math.degrees(2 * math.atan(size[1] / 2 / scene.cameras.K[first, 1, 1].item()))
    scale = LONG_SIDE / max(size)
    width, height = round(size[0] * scale), round(size[1] * scale)
    position = T_world_cam[:3, 3]
    return scene.gaussians, Viewpoint(position, position + T_world_cam[:3, 2], fov_deg, width, height)


def demo_scene() -> Path:
    """The result of the shipped sample, made if it is not there."""
    if not (DEMO / "scene.ply").is_file():
        command = [sys.executable, "-m", "app.cli", "run", str(ROOT / "data" / "sample"), "-o", str(DEMO)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise CannotWitness("the sample could not be reconstructed; name a scene with --scene")
    return DEMO


def main() -> int:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, help="a result folder with scene.ply and cameras.json; out/demo when not given")
    parser.add_argument("--count", type=int, default=100_000, help="random Gaussians")
    parser.add_argument("--out", type=Path, help="write ours, theirs and ten times the difference here")
    options = parser.parse_args()
    from_the_front = Viewpoint(torch.tensor([0.0, 0.0, -3.0]), torch.zeros(3), 60.0, 640, 360)
    try:
        results = [compare("random ball", ball(options.count, 3), from_the_front, options.out)]
        scene = options.scene or demo_scene()
        results.append(compare(f"scene {scene.name}", *scene_view(scene), options.out))
    except CannotWitness as error:
        print(f"not run: {error}", file=sys.stderr)
        return 2
    return int(min(results) < FLOOR_DB)


if __name__ == "__main__":
    sys.exit(main())
