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
LOOK_S, LEAST_RUNS = 0.25, 3
"""How long each of the two measurements lasts at least."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured."""

    cores: int
    """That this process may use."""
    sift_s: float
    """Seconds of one thread per 10^6 pixels of features: branchy scalar and vector work."""
    conv_s: float
    """Seconds of one thread per 10^9 operations of a small convolution: networks."""


def usable_cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)


def pace(work: Callable[[], object]) -> float:
    """Mean seconds of a run over LOOK_S, after one that does not count: what else the machine does is part of its speed now."""
    work()
    started, runs = time.perf_counter(), 0
    while runs < LEAST_RUNS or time.perf_counter() - started < LOOK_S:
        work()
        runs += 1
    return (time.perf_counter() - started) / runs


def measure() -> Machine:
    """Measure the machine."""
    width, height = SIFT_SIZE
    noise = np.random.default_rng(0).integers(0, 255, (height // 4, width // 4), dtype=np.uint8)
    picture = cv2.resize(noise, SIFT_SIZE, interpolation=cv2.INTER_CUBIC)
    detector = cv2.SIFT.create(nfeatures=500)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        sift_s = pace(lambda: detector.detectAndCompute(picture, None)) / (width * height / 1e6)
    finally:
        cv2.setNumThreads(threads)
    maps = torch.zeros(1, CONV_CHANNELS, *CONV_SIZE)
    kernel = torch.zeros(CONV_CHANNELS, CONV_CHANNELS, 3, 3)
    operations = 2 * 9 * CONV_CHANNELS**2 * CONV_SIZE[0] * CONV_SIZE[1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another on a busy machine would measure the waiting
    try:
        with torch.inference_mode():
            conv_s = pace(lambda: torch.nn.functional.conv2d(maps, kernel, padding=1)) / (operations / 1e9)
    finally:
        torch.set_num_threads(threads)
    return Machine(cores=usable_cores(), sift_s=sift_s, conv_s=conv_s)
