"""Features that survive large changes of viewpoint: affine shapes and descriptors pooled over domain sizes.

Input: grey images. Output: keypoints and descriptors. Does not: match.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from .speech import say


def describe_affine(folder: Path) -> dict[str, np.ndarray]:
    """Find affine features in the grey images of the job.

    Source: Mikolajczyk and Schmid, "Scale and affine invariant interest point detectors", IJCV 2004; Dong and Soatto,
    "Domain-size pooling in local descriptors: DSP-SIFT", CVPR 2015; both as COLMAP has them.

    Args:
        folder: job.npz with count, most (features per photo), peak (least contrast) and image_i ``H W`` uint8.

    Returns:
        keypoints_i ``N 6`` (x, y with centres at +0.5, and the affine shape) and descriptors_i ``N 128`` uint8.
    """
    result: dict[str, np.ndarray] = {}
    with np.load(folder / "job.npz") as job:
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.sift.max_num_features = int(job["most"])
        options.sift.peak_threshold = float(job["peak"])
        options.sift.estimate_affine_shape = options.sift.domain_size_pooling = True
        extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
        count = int(job["count"])
        for i in range(count):
            keypoints, descriptors = extractor.extract_from_uint8_array(job[f"image_{i}"])
            result[f"keypoints_{i}"] = np.array([[k.x, k.y, k.a11, k.a12, k.a21, k.a22] for k in keypoints], np.float32).reshape(
                -1, 6
            )
            result[f"descriptors_{i}"] = np.asarray(descriptors.data, np.uint8).reshape(-1, 128)
            say(step="features", fraction=(i + 1) / count)
    return result
