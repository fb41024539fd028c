"""A binary heap of float32 keys with integer items, largest key first, in given arrays.

The caller holds the arrays, whose size bounds the number of entries, and counts the entries. Equal keys come
out in an order that depends on nothing but the calls before. Source: J. W. J. Williams, "Algorithm 232:
Heapsort", Communications of the ACM 7(6), 1964.
"""

from __future__ import annotations

from rtsep.kernels.jit import inlined


@inlined
def push(keys, items, n, key, item):
    """Put an entry into a heap of `n`; the new count. Real-time safe, O(log n)."""
    at = n
    while at > 0:
        parent = (at - 1) >> 1
        if keys[parent] >= key:
            break
        keys[at], items[at] = keys[parent], items[parent]
        at = parent
    keys[at], items[at] = key, item
    return n + 1


@inlined
def drop_top(keys, items, n):
    """Take the entry at position 0, that of the largest key, out of a heap of `n`; the new count. O(log n)."""
    n -= 1
    key, item = keys[n], items[n]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and keys[child + 1] > keys[child]:
            child += 1
        if key >= keys[child]:
            break
        keys[at], items[at] = keys[child], items[child]
        at = child
    keys[at], items[at] = key, item
    return n
