"""REPET-SIM: a background that comes again at any time, found by the similarity of frames.

The background of a frame has the median of the magnitudes of the frames most like it, but never more than the mixture
has. With `past`, only frames that have been are looked at, as in a stream.

Sources: Z. Rafii and B. Pardo, "Music/voice separation using the similarity matrix", ISMIR 2012; "Online REPET-SIM for
real-time speech enhancement", ICASSP 2013. Corrected: the released online code measures the distance between two frames
by their places in its ring buffer, so that frames across its write position are near or far by chance (masks differ by
up to 0.86); here by their age. It is also silent until its buffer is full; here it works with what there is.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.factorise.factors import check_spectrogram
from rtsep.factorise.repetition import repeating_mask, similar_frames, similarity


def repet_sim(
    v: np.ndarray, *, distance: int, number: int = 100, threshold: float = 0.0, past: int | None = None
) -> np.ndarray:
    """Mask of the repeating background.

    Parameters
    ----------
    v : ndarray, real, (n_bins, n_frames)
        Magnitudes.
    distance : int
        Similar frames are more than so many frames apart.
    number : int
        Of similar frames at most, the frame itself among them.
    threshold : float
        Least similarity, a cosine, 0 to 1.
    past : int, optional
        Look at so many frames up to the present one. Default: at all, before and after.

    Returns
    -------
    mask : ndarray, float64, (n_bins, n_frames)
        Between 0 and 1; one minus it is the foreground's.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    v = check_spectrogram(v)
    n_frames = v.shape[1]
    check_int("distance", distance, 0, 1_000_000)
    check_int("number", number, 1, 1_000_000)
    check_real("threshold", threshold, 0, 1)
    if past is not None:
        check_int("past", past, 1, 1_000_000)
    repeating = np.empty_like(v)
    for t in range(n_frames):
        known = v if past is None else v[:, max(0, t + 1 - past) : t + 1]
        frames = similar_frames(similarity(known, v[:, t : t + 1])[:, 0], threshold, distance, number)
        repeating[:, t] = np.median(known[:, frames], 1) if len(frames) else v[:, t]
    return repeating_mask(v, repeating)
