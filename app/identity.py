"""What makes two runs of the program the same program: its code, its libraries and the networks' weights.

Input: choices. Output: a digest. Does not: load networks.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from recon.config import PipelineConfig
from recon.resume.digests import key_of

ROOMS = ("recon", "models", "render")
PACKAGES = ("torch", "numpy", "numba", "pycolmap", "opencv-python-headless", "pillow", "pi-heif", "safetensors")
"""Libraries whose version may change a result."""


def identify(config: PipelineConfig, device: str) -> str:
    """Digest of code, libraries and weights that a run with this config uses."""
    return key_of(code_digest(), weights_digests(config, device))


@lru_cache
def code_digest() -> str:
    """Digest of the program's source and of the versions of the libraries that shape results."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.blake2b(digest_size=16)
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    for name in PACKAGES:
        try:
            digest.update(f"{name}={metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()


def weights_digests(config: PipelineConfig, device: str) -> list[str]:
    """Names and checksums of the networks a run uses, without reading large files twice a day: receipts hold them."""
    from models.checkpoints import all_checkpoints
    from models.registry import best_installed, camera_models, shipped_weights

    shipped = shipped_weights()
    used = [f"{name} {shipped[name].sha256}" if name in shipped else f"no {name}" for name in ("head", "refiner")]
    model = resolve_model(config, device)
    if config.weights is not None and config.weights.is_file():
        used.append(f"{model} {digest_of(config.weights)}")
    elif model in shipped_weights():
        used.append(f"{model} {shipped_weights()[model].sha256}")
    else:
        used.append(f"{model} {receipt(model) if model in all_checkpoints() else ''}")
    if config.matcher is not None and config.matcher.is_file():
        used.append(f"matcher {digest_of(config.matcher)}")
    elif "matcher" in shipped_weights():
        used.append(f"matcher {shipped_weights()['matcher'].sha256}")
    if config.camera_network is not None and config.camera_network.is_file():
        used.append(f"camera network {digest_of(config.camera_network)}")
    elif config.cameras in ("auto", *camera_models()):
        network = best_installed(device) if config.cameras in ("auto", "network") else config.cameras
        used.append(f"cameras {network} {receipt(network) if network else ''}")
        used += [f"camera network {shipped_weights()[name].sha256}" for name in ("cameras",) if name in shipped_weights()]
    return used


def digest_of(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def receipt(name: str) -> str:
    """Checksum of an installed checkpoint, as noted when it was installed; empty when it is not installed."""
    from models.checkpoints import RECEIPT, is_installed, weights_folder
    from recon.files import read_json

    return str(read_json(weights_folder() / name / RECEIPT)["sha256"]) if is_installed(name) else ""


def resolve_model(config: PipelineConfig, device: str) -> str:
    """Name of the depth network that a run uses."""
    from models.registry import choose_automatically

    return choose_automatically(device, config.weights) if config.model == "auto" else config.model
