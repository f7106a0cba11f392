"""Sixteen float32 lanes as one value inside Numba kernels: a row of a tile is one vector.

Input: nothing. Output: intrinsics (``load``, ``store``, ``splat``, ``fma``, ``select_ge`` ...) and ``+ - *`` on ``Lanes``.
LLVM's loop vectoriser stays at 256 bits on most AVX-512 machines and gives up on loops with exp and selects. Explicit vectors
are lowered to what the machine has: one zmm register, two ymm or four NEON registers.
Does not: check bounds. The caller owns every index.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.typing import templates
from numba.core.typing.templates import AbstractTemplate, signature
from numba.extending import models, register_model

LANES = 16

# Numba's decorators change the call signature in ways a type checker cannot follow.
intrinsic: Any = extending.intrinsic
lower_builtin: Any = extending.lower_builtin
infer_global: Any = templates.infer_global

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)

# 2**f on [-0.5, 0.5], minimax in relative error (1e-7), constant term exactly 1.
_EXP2 = (1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149)
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the low mantissa bits


class LanesType(types.Type):
    """Numba type of sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes16f")


lanes_type = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [float(value)] * LANES)


def _broadcast(builder, value):
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


def _call(builder, name: str, *values):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * len(values)), name)
    return builder.call(function, values)


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _arithmetic(python_operator, method: str) -> None:
    @infer_global(python_operator)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and args[0] == lanes_type and args[1] == lanes_type:
                return signature(lanes_type, lanes_type, lanes_type)
            return None

    @lower_builtin(python_operator, lanes_type, lanes_type)
    def _lower(context, builder, sig, args):
        return getattr(builder, method)(*args)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


@intrinsic
def splat(typing_context, value):
    """Copy a float32 to every lane."""

    def lower(context, builder, sig, args):
        return _broadcast(builder, args[0])

    return lanes_type(types.float32), lower


@intrinsic
def lane_centers(typing_context):
    """Pixel centres of a tile row: 0.5, 1.5, ..., 15.5."""

    def lower(context, builder, sig, args):
        return ir.Constant(_VECTOR, [i + 0.5 for i in range(LANES)])

    return lanes_type(), lower


@intrinsic
def load(typing_context, array, index):
    """Read lanes at flat element ``index`` of a contiguous float32 array."""

    def lower(context, builder, sig, args):
        return builder.load(_pointer(context, builder, sig.args[0], args[0], args[1]), align=4)

    return lanes_type(array, types.intp), lower


@intrinsic
def store(typing_context, array, index, value):
    """Write lanes at flat element ``index`` of a contiguous float32 array."""

    def lower(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig.args[0], args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), lower


@intrinsic
def fma(typing_context, a, b, c):
    """a * b + c with one rounding."""

    def lower(context, builder, sig, args):
        return _call(builder, "llvm.fma.v16f32", *args)

    return lanes_type(a, b, c), lower


@intrinsic
def fnma(typing_context, a, b, c):
    """c - a * b with one rounding."""

    def lower(context, builder, sig, args):
        return _call(builder, "llvm.fma.v16f32", builder.fneg(args[0]), args[1], args[2])

    return lanes_type(a, b, c), lower


@intrinsic
def minimum(typing_context, a, b):
    """The smaller of two lanes; NaN in ``a`` gives ``b``."""

    def lower(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[0], args[1])

    return lanes_type(a, b), lower


@intrinsic
def maximum(typing_context, a, b):
    """The larger of two lanes; NaN in ``a`` gives ``b``."""

    def lower(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return lanes_type(a, b), lower


@intrinsic
def select_ge(typing_context, a, b, yes, no):
    """``yes`` where a >= b, else ``no``."""

    def lower(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">=", args[0], args[1]), args[2], args[3])

    return lanes_type(a, b, yes, no), lower


@intrinsic
def select_gt(typing_context, a, b, yes, no):
    """``yes`` where a > b, else ``no``."""

    def lower(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return lanes_type(a, b, yes, no), lower


@intrinsic
def any_positive(typing_context, a):
    """True when a lane is above zero."""

    def lower(context, builder, sig, args):
        mask = builder.fcmp_ordered(">", args[0], _constant(0.0))
        bits = builder.bitcast(mask, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(a), lower


@intrinsic
def negative_magnitude(typing_context, a):
    """-abs(a)."""

    def lower(context, builder, sig, args):
        bits = builder.bitcast(args[0], _INTS)
        sign = ir.Constant(_INTS, [0x80000000] * LANES)
        return builder.bitcast(builder.or_(bits, sign), _VECTOR)

    return lanes_type(a), lower


@intrinsic
def magnitude(typing_context, a):
    """abs(a)."""

    def lower(context, builder, sig, args):
        return _call(builder, "llvm.fabs.v16f32", args[0])

    return lanes_type(a), lower


@intrinsic
def divide(typing_context, a, b):
    """a / b; the machine may multiply by the reciprocal."""

    def lower(context, builder, sig, args):
        return builder.fdiv(args[0], args[1], flags=("arcp",))

    return lanes_type(a, b), lower


@intrinsic
def exp2(typing_context, a):
    """2**a for a in [-126, 127]; other lanes hold garbage, which the caller masks."""

    def lower(context, builder, sig, args):
        shifted = builder.fadd(args[0], _constant(_ROUND))
        fraction = builder.fsub(args[0], builder.fsub(shifted, _constant(_ROUND)))
        value = _constant(_EXP2[-1])
        for coefficient in reversed(_EXP2[:-1]):
            value = _call(builder, "llvm.fma.v16f32", value, fraction, _constant(coefficient))
        exponent = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(value, _INTS), exponent), _VECTOR)

    return lanes_type(a), lower


@intrinsic
def store_sums(typing_context, array, index, vectors):
    """Write sum(vectors[i]) to array[index + i] for a tuple of up to sixteen lanes; the rest of the sixteen become 0.

    Halves are folded pairwise, so sixteen sums cost fifteen additions instead of sixty-four.
    """

    def lower(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[2], len(sig.args[2]))
        values = [*values, *[_constant(0.0)] * (LANES - len(values))]
        half = LANES // 2
        while half:
            low = [(i // half % 2) * LANES + i // (2 * half) * 2 * half + i % half for i in range(LANES)]
            first = ir.Constant(_INTS, low)
            second = ir.Constant(_INTS, [i + half for i in low])
            values = [
                builder.fadd(
                    builder.shuffle_vector(values[i], values[i + half], first),
                    builder.shuffle_vector(values[i], values[i + half], second),
                )
                for i in range(half)
            ]
            half //= 2
        builder.store(values[0], _pointer(context, builder, sig.args[0], args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), lower


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line of flat element ``index``."""

    def lower(context, builder, sig, args):
        pointer = builder.bitcast(_pointer(context, builder, sig.args[0], args[0], args[1]), ir.IntType(8).as_pointer())
        kinds = [ir.IntType(8).as_pointer(), _INT, _INT, _INT]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0")
        builder.call(function, [pointer, ir.Constant(_INT, 0), ir.Constant(_INT, 3), ir.Constant(_INT, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), lower
