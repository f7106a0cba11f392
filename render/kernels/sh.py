"""Real spherical harmonics up to degree 3 in the order and signs of 3D Gaussian Splatting, for scalar kernels.

Input: a unit direction. Output: basis values, and the gradient of a basis combination with respect to the direction.
Source: Sloan, Efficient Spherical Harmonic Evaluation, JCGT 2(2), 2013.
Does not: normalise directions.
"""

from __future__ import annotations

from .jit import inlined

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
SH_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
SH_C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)

_A1 = SH_C1
_A2, _B2, _D2 = SH_C2
_A3, _B3, _D3, _E3, _F3 = SH_C3


@inlined
def sh_basis(count, x, y, z, basis):
    """Write the first ``count`` (1, 4, 9 or 16) basis values for the unit direction (x, y, z)."""
    basis[0] = SH_C0
    if count > 1:
        basis[1] = -_A1 * y
        basis[2] = _A1 * z
        basis[3] = -_A1 * x
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        basis[4] = _A2 * x * y
        basis[5] = -_A2 * y * z
        basis[6] = _B2 * (3.0 * zz - 1.0)
        basis[7] = -_A2 * x * z
        basis[8] = _D2 * (xx - yy)
        if count > 9:
            basis[9] = -_A3 * y * (3.0 * xx - yy)
            basis[10] = _B3 * x * y * z
            basis[11] = -_D3 * y * (5.0 * zz - 1.0)
            basis[12] = _E3 * z * (5.0 * zz - 3.0)
            basis[13] = -_D3 * x * (5.0 * zz - 1.0)
            basis[14] = _F3 * z * (xx - yy)
            basis[15] = -_A3 * x * (xx - 3.0 * yy)


@inlined
def sh_direction_gradient(count, x, y, z, weights):
    """Return the gradient of sum(weights * basis) with respect to x, y, z taken as independent."""
    gx, gy, gz = 0.0, 0.0, 0.0
    if count > 1:
        gx -= _A1 * weights[3]
        gy -= _A1 * weights[1]
        gz += _A1 * weights[2]
    if count > 4:
        gx += _A2 * (y * weights[4] - z * weights[7]) + 2.0 * _D2 * x * weights[8]
        gy += _A2 * (x * weights[4] - z * weights[5]) - 2.0 * _D2 * y * weights[8]
        gz += -_A2 * (y * weights[5] + x * weights[7]) + 6.0 * _B2 * z * weights[6]
    if count > 9:
        xx, yy, zz = x * x, y * y, z * z
        band = 5.0 * zz - 1.0
        gx += -6.0 * _A3 * x * y * weights[9] + _B3 * y * z * weights[10] - _D3 * band * weights[13]
        gx += 2.0 * _F3 * x * z * weights[14] - 3.0 * _A3 * (xx - yy) * weights[15]
        gy += -3.0 * _A3 * (xx - yy) * weights[9] + _B3 * x * z * weights[10] - _D3 * band * weights[11]
        gy += -2.0 * _F3 * y * z * weights[14] + 6.0 * _A3 * x * y * weights[15]
        gz += _B3 * x * y * weights[10] - 10.0 * _D3 * z * (y * weights[11] + x * weights[13])
        gz += _E3 * (15.0 * zz - 3.0) * weights[12] + _F3 * (xx - yy) * weights[14]
    return gx, gy, gz
