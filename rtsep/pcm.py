"""Integers of sound cards and files to floats of full scale 1, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Full scale of an integer type: the most negative value is -1.
_SCALES = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}


def from_pcm(x: np.ndarray | bytes, dtype: Any = None, n_channels: int | None = None) -> NDArray[np.float32]:
    """Samples as floats of full scale 1.

    Parameters
    ----------
    x : ndarray or bytes
        Integers, of any shape: int8, int16 or int32, of which the most negative is full scale; uint8, whose middle is
        128. Or bytes as sound cards and WAV files have them, the channels of each sample together.
    dtype : dtype or "int24", optional
        What bytes are, little-endian unless it says otherwise; "int24" is three bytes each. For bytes only.
    n_channels : int, optional
        Of bytes; the result is then (n_channels, n_samples), as `rtsep.separate` takes it.

    Returns
    -------
    samples : ndarray, float32
        From -1 to just below 1. Shaped like `x`, or for bytes (n_samples,) or (n_channels, n_samples).

    Raises
    ------
    TypeError, ValueError
        For floats, which need no scale, other integers, and bytes that are no whole number of samples.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> rtsep.from_pcm(np.array([-32768, 16384], np.int16))
    array([-1. ,  0.5], dtype=float32)
    >>> rtsep.from_pcm(bytes([0, 0, 64, 0, 0, 192]), "int24")
    array([ 0.5, -0.5], dtype=float32)
    """
    if isinstance(x, (bytes, bytearray, memoryview)):
        if dtype is None:
            raise TypeError("bytes need a dtype, such as 'int16'")
        return _from_bytes(bytes(x), dtype, n_channels)
    if dtype is not None or n_channels is not None:
        raise TypeError("dtype and n_channels are for bytes; an array has its own")
    if not isinstance(x, np.ndarray):
        raise TypeError(f"samples are {type(x).__name__}, neither an array nor bytes")
    if x.dtype == np.uint8:
        return ((x.astype(np.float32) - 128) / 128).astype(np.float32)
    name = x.dtype.newbyteorder("=").name
    if name not in _SCALES:
        raise TypeError(f"samples are {x.dtype}, not one of uint8, {', '.join(_SCALES)}")
    # float64 in between: integers of 32 bits are rounded once.
    return (x.astype(np.float64) / _SCALES[name]).astype(np.float32)


def _from_bytes(data: bytes, dtype: Any, n_channels: int | None) -> NDArray[np.float32]:
    width = 3 if isinstance(dtype, str) and dtype == "int24" else np.dtype(dtype).itemsize
    if len(data) % (width * (n_channels or 1)):
        unit = f"{width} bytes" if n_channels is None else f"{n_channels} x {width} bytes"
        raise ValueError(f"{len(data)} bytes are no whole number of samples of {unit}")
    if isinstance(dtype, str) and dtype == "int24":
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = from_pcm(wide.reshape(-1).view("<i4"))
    else:
        values = np.frombuffer(
            data,
            np.dtype(dtype).newbyteorder("<") if isinstance(dtype, str) and dtype[0] not in "<>=" else np.dtype(dtype),
        )
        samples = values.astype(np.float32) if values.dtype.kind == "f" else from_pcm(values)
    return samples if n_channels is None else np.ascontiguousarray(samples.reshape(-1, n_channels).T)


def to_pcm(x: np.ndarray, dtype: Any = "int16") -> np.ndarray:
    """Floats of full scale 1 as integers, rounded to the nearest; what is beyond full scale is clipped.

    Parameters
    ----------
    x : ndarray, real
        Any shape, full scale is 1. NaN becomes zero.
    dtype : dtype
        int8, int16, int32, or uint8, whose middle is 128.

    Returns
    -------
    samples : ndarray
        Shaped like `x`. `from_pcm` of integers of at most 24 bits comes back as it was.

    Raises
    ------
    TypeError
        For samples that are not floats, and other types of integers.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> rtsep.to_pcm(np.array([-1.5, 0.5, 1.0]))
    array([-32768,  16384,  32767], dtype=int16)
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        raise TypeError(f"samples are {getattr(x, 'dtype', type(x).__name__)}, not an array of floats")
    dtype = np.dtype(dtype)
    unsigned = dtype == np.uint8
    scale = 128.0 if unsigned else _SCALES.get(dtype.newbyteorder("=").name)
    if scale is None:
        raise TypeError(f"dtype={dtype} is not one of uint8, {', '.join(_SCALES)}")
    values = np.rint(np.nan_to_num(x.astype(np.float64), nan=0, posinf=2, neginf=-2) * scale)
    return (np.clip(values, -scale, scale - 1) + (128 if unsigned else 0)).astype(dtype)
