"""How fast this machine is right now, measured in well under a second.

Input: nothing. Output: ``Machine``. Does not: know names of processors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

SIFT_SIZE = (320, 240)
CONV_SIZE = (96, 128)
CONV_CHANNELS = 32
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured."""

    cores: int
    """That this process may use."""
    sift_s: float
    """Seconds of one thread per 10^6 pixels of features: branchy scalar and vector work."""
    conv_s: float
    """Seconds of all threads per 10^9 operations of a small convolution: networks."""


def usable_cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2]  # the median: what else runs on the machine is part of its speed now


def measure() -> Machine:
    """Measure the machine."""
    width, height = SIFT_SIZE
    noise = np.random.default_rng(0).integers(0, 255, (height // 4, width // 4), dtype=np.uint8)
    picture = cv2.resize(noise, SIFT_SIZE, interpolation=cv2.INTER_CUBIC)
    detector = cv2.SIFT.create(nfeatures=500)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        sift_s = fastest(lambda: detector.detectAndCompute(picture, None)) / (width * height / 1e6)
    finally:
        cv2.setNumThreads(threads)
    maps = torch.zeros(1, CONV_CHANNELS, *CONV_SIZE)
    kernel = torch.zeros(CONV_CHANNELS, CONV_CHANNELS, 3, 3)
    operations = 2 * 9 * CONV_CHANNELS**2 * CONV_SIZE[0] * CONV_SIZE[1]
    with torch.inference_mode():
        conv_s = fastest(lambda: torch.nn.functional.conv2d(maps, kernel, padding=1)) / (operations / 1e9)
    return Machine(cores=usable_cores(), sift_s=sift_s, conv_s=conv_s)
