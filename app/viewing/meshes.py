"""A mesh of the scene, for looking at.

Input: a ``Document``. Output: a GLB in world units and axes.
Does not: make it here. `recon export` does, in a process of its own: the mesh library must not share one with the rasteriser.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from recon.errors import UserError
from recon.formats.conventions import Y_DOWN
from recon.formats.registry import FORMATS, write_splats
from recon.records import Scene

from ..export_command import write_cameras
from ..scene_files import CAMERAS_NAME, SPLAT_NAME
from .document import Document

logger = logging.getLogger(__name__)

LONGEST_S = 900.0
FACES = 200_000


class MeshMaker:
    """Makes a mesh of what is left of a document, once per edit."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._lock = threading.Lock()
        self._made: tuple[object, bytes] | None = None

    def get(self) -> bytes:
        """Return the mesh; waits while it is made.

        Raises:
            UserError: it cannot be made; says why.
        """
        with self._lock:
            keep = self._document.step.keep
            if self._made is None or self._made[0] is not keep:
                self._made = keep, self._make()
            return self._made[1]

    def _make(self) -> bytes:
        document = self._document
        with tempfile.TemporaryDirectory(prefix="recon-mesh-") as folder:
            write_splats(Path(folder) / SPLAT_NAME, document.gaussians, FORMATS["ply"])
            scene = Scene(gaussians=document.gaussians, cameras=document.scene.cameras)
            if scene.cameras is not None:
                write_cameras(Path(folder) / CAMERAS_NAME, scene, Y_DOWN)
            mesh = Path(folder) / "mesh.glb"
            command = [sys.executable, "-m", "app.cli", "export", folder, str(mesh), "--convention", "opencv"]
            command += ["--faces", str(FACES), "--texture", "0"]
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=LONGEST_S,
                )
            except subprocess.TimeoutExpired as error:
                raise UserError("The mesh took too long.", "Crop the scene, or use `recon export`.") from error
            if done.returncode != 0 or not mesh.is_file():
                said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
                raise UserError("No mesh could be made.", said)
            return mesh.read_bytes()
