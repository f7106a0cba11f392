"""Ask Khronos' own validator about a glTF file.

Input: a .glb or .gltf. Output: its list of issues. Needs node with npm; the package is fetched once into build/witness.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "gltf-validator@2.0.0-dev.3.10"
SCRIPT = """
const validator = require(process.argv[1]);
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[2]));
validator.validateBytes(bytes).then((report) => console.log(JSON.stringify(report)));
"""


class CannotValidate(Exception):
    """The validator is not there."""


def find_validator() -> Path:
    """Folder of the npm package, fetched on first use."""
    folder = ROOT / "build" / "witness"
    package = folder / "node_modules" / "gltf-validator"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise CannotValidate("no node and npm: install Node.js 20 or newer")
    if not package.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "install", "--prefix", str(folder), PACKAGE, "--no-audit", "--no-fund"], check=True)
    return package


def validate(path: Path) -> dict[str, Any]:
    """Validate a file; ``issues`` of the report holds numErrors, numWarnings and messages."""
    command = [shutil.which("node") or "node", "-e", SCRIPT, str(find_validator()), str(path.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotValidate(f"gltf-validator failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)
