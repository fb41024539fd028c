"""Counters that one thread writes and another reads: what the other thread sees is never half done.

On x86-64 every load and store already is of this kind and only the compiler has to be told; on ARM64 these
become the instructions with acquire and release order.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic


def _counter(context, builder, sig, args):
    return context.make_array(sig.args[0])(context, builder, args[0]).data


@intrinsic
def load_acquire(typingctx, counter):
    """The int64 `counter[0]`; what the other thread wrote before it stored this is visible from here on."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_counter(context, builder, sig, args), "acquire", 8)

    return types.int64(counter), codegen


@intrinsic
def store_release(typingctx, counter, value):
    """`counter[0] = value`, an int64; what was written before is visible to whoever loads it."""

    def codegen(context, builder, sig, args):
        value = context.cast(builder, args[1], sig.args[1], types.int64)
        builder.store_atomic(value, _counter(context, builder, sig, args), "release", 8)
        return context.get_dummy_value()

    return types.void(counter, value), codegen
