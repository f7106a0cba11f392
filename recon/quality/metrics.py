"""Picture quality beyond PSNR and SSIM: MS-SSIM, gradient similarity, LPIPS from a user's weight file.

Input: two pictures ``H W 3`` in [0, 1] and the pixels that count. Output: one number each.
Does not: download weights. LPIPS needs a file that the user names; without it the number is absent.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError
from .score import SSIM_SIDE, SSIM_SIGMA

MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales of MS-SSIM, fine to coarse."""
GRADIENT_C = 0.0026
"""Stabiliser of gradient similarity for a data range of 1 (170 / 255^2)."""
LUMA = (0.299, 0.587, 0.114)
_ALEXNET = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
"""Layer number, stride and padding of AlexNet's convolutions."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LPIPS_WANTED = "Give the state dictionary of LPIPS(net='alex') as .safetensors or .pth."


def _window(dtype: torch.dtype) -> Tensor:
    x = torch.arange(SSIM_SIDE, dtype=dtype) - SSIM_SIDE // 2
    w = torch.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    return w / w.sum()


def _similarity(a: Float[Tensor, "1 3 H W"], b: Float[Tensor, "1 3 H W"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean SSIM and mean contrast-structure term over fully covered windows."""
    w = _window(a.dtype)
    kernel_y, kernel_x = w.view(1, 1, -1, 1).expand(3, 1, -1, 1), w.view(1, 1, 1, -1).expand(3, 1, 1, -1)

    def blur(x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, kernel_y, groups=3), kernel_x, groups=3)

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * cov + c2) / (va + vb + c2)
    return (((2 * ma * mb + c1) / (ma * ma + mb * mb + c1)) * contrast).mean(), contrast.mean()


def ms_ssim(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> float:
    """Multi-scale structural similarity; both pictures are black where ``valid`` is False.

    Pictures whose shorter side is below 176 px take fewer scales, with their exponents rescaled to sum to 1.
    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity", Asilomar 2003, equation 7.
    """
    inside = valid[..., None].double()
    x, y = ((p.double() * inside).permute(2, 0, 1)[None] for p in (a, b))
    scales = max(1, min(len(MS_WEIGHTS), sum(min(a.shape[:2]) // 2**k >= SSIM_SIDE for k in range(len(MS_WEIGHTS)))))
    weights = [w / sum(MS_WEIGHTS[:scales]) for w in MS_WEIGHTS[:scales]]
    value = 1.0
    for k, weight in enumerate(weights):
        whole, contrast = _similarity(x, y)
        value *= max(float(whole if k == scales - 1 else contrast), 0.0) ** weight
        if k < scales - 1:
            x, y = torch.nn.functional.avg_pool2d(x, 2), torch.nn.functional.avg_pool2d(y, 2)
    return value


def gradient_similarity(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> float:
    """How alike edges are: mean similarity of Prewitt gradient magnitudes of the brightness, in (0, 1].

    Pixels whose 3 x 3 neighbourhood is not valid do not count.
    Source: Xue et al., "Gradient magnitude similarity deviation", IEEE TIP 2014, equation 4 (the mean, not the deviation).
    """
    luma = torch.tensor(LUMA, dtype=torch.float64)
    kernel = torch.tensor([[1.0, 0, -1], [1, 0, -1], [1, 0, -1]], dtype=torch.float64) / 3
    stack = torch.stack([kernel, kernel.T])[:, None]

    def magnitude(image: Tensor) -> Tensor:
        return torch.nn.functional.conv2d((image.double() @ luma)[None, None], stack)[0].square().sum(0).sqrt()

    ga, gb = magnitude(a), magnitude(b)
    counted = -torch.nn.functional.max_pool2d(-valid.double()[None, None], 3, stride=1)[0, 0] > 0.5
    value = (2 * ga * gb + GRADIENT_C) / (ga * ga + gb * gb + GRADIENT_C)
    return float(value[counted].mean()) if bool(counted.any()) else 1.0


class Lpips:
    """Learned perceptual distance, AlexNet version, with weights from a file of the user's.

    Deep features of both pictures are compared channel by channel with learned weights.
    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018, equation 1.

    Args:
        path: state dictionary of the authors' ``LPIPS(net="alex")`` (.safetensors, or .pth of tensors alone).
    Raises:
        UserError: it cannot be read, or is of another network.
    """

    def __init__(self, path: Path) -> None:
        try:
            state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, ValueError, SafetensorError, UnpicklingError, EOFError) as error:
            raise UserError(f"LPIPS file {path} does not load ({type(error).__name__}).", _LPIPS_WANTED) from error
        try:
            self._convolutions = [
                (state[f"net.slice{i + 1}.{layer}.weight"], state[f"net.slice{i + 1}.{layer}.bias"], stride, pad)
                for i, (layer, stride, pad) in enumerate(_ALEXNET)
            ]
            self._linear = [state[f"lin{i}.model.1.weight"] for i in range(len(_ALEXNET))]
        except (KeyError, TypeError) as error:
            raise UserError(f"LPIPS file {path} is of another network: {error} is missing.", _LPIPS_WANTED) from error

    def _features(self, image: Float[Tensor, "H W 3"]) -> list[Float[Tensor, "1 C h w"]]:
        x = ((image * 2 - 1 - image.new_tensor(_SHIFT)) / image.new_tensor(_SCALE)).permute(2, 0, 1)[None]
        found = []
        for i, (weight, bias, stride, pad) in enumerate(self._convolutions):
            if i in (1, 2):
                x = torch.nn.functional.max_pool2d(x, 3, 2)
            x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, stride=stride, padding=pad))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def __call__(self, a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> float:
        """Distance of two pictures of at least 64 x 64 px; both are black where ``valid`` is False."""
        inside = valid[..., None].to(a.dtype)
        with torch.no_grad():
            pairs = zip(self._features(a * inside), self._features(b * inside), self._linear, strict=True)
            return float(sum(torch.nn.functional.conv2d((x - y) ** 2, w).mean() for x, y, w in pairs))
