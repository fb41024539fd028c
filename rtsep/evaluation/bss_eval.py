"""BSS Eval, versions 3 and 4, by the packages that are used for it."""

from __future__ import annotations

import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtsep.evaluation.checks import LIMIT_DB, ScoreError, as_references, as_signal, refuse_silence, require
from rtsep.evaluation.ratios import Ratios

FILTER_LENGTH = 512


class ImageRatios(NamedTuple):
    """Signal to distortion, to spatial (or filtering) distortion, to interference, and to artifacts, in dB."""

    sdr: float
    isr: float
    sir: float
    sar: float


def bss_eval_v3(references: Any, estimate: Any, index: int) -> Ratios:
    """SDR, SIR and SAR of BSS Eval v3 ("sources"): filtering of the target by 512 taps is forgiven.

    Parameters
    ----------
    references : array_like, real, (n_src, n_samples)
        All true sources.
    estimate : array_like, real, (n_samples,)
        Estimate of source `index`.
    index : int
        Which of the references it is an estimate of.

    Returns
    -------
    Ratios
        ``|P e|^2`` over the energies of ``e - P e``, of ``Q e - P e``, and ``|Q e|^2`` over that of ``e - Q e``, in
        dB, -100 to 100; P projects on 512 delays of the source, Q on those of all sources. With one source the SIR
        is 100.

    Raises
    ------
    ScoreError
        If a signal is silent, lengths differ, samples are not finite, or there are no more than 512 of them.
    ImportError
        Without fast-bss-eval (extra ``eval``).

    Notes
    -----
    Higher than SI-SDR by what a filter can mend, and not to be compared with it or with version 4. No permutation:
    see `match`. Values above about 60 dB depend on rounding. fast-bss-eval agrees with mir_eval to 0.001 dB.

    References
    ----------
    E. Vincent et al., "Performance measurement in blind audio source separation", IEEE TASLP 14(4), 2006.
    R. Scheibler, "SDR - medium rare with fast computations", ICASSP 2022.
    """
    package = require("fast_bss_eval", "eval")
    e = as_signal("estimate", estimate)
    sources = as_references(references, e)
    refuse_silence("estimate", e)
    if e.size <= FILTER_LENGTH:
        raise ScoreError(f"{e.size} samples are no more than the {FILTER_LENGTH} taps that are forgiven")
    # The package permutes the estimates, which makes no difference to equal ones; without permutation, version 0.1.4
    # fails with NumPy 2 (`np.linalg.solve` takes vectors for a matrix).
    estimates = np.tile(e, (len(sources), 1))
    sdr, sir, sar, _ = package.bss_eval_sources(
        sources, estimates, filter_length=FILTER_LENGTH, compute_permutation=True, clamp_db=LIMIT_DB
    )
    return _finite(sdr[index], LIMIT_DB if len(sources) == 1 else sir[index], sar[index])


def bss_eval_v4(references: Any, estimates: Any, sr: int) -> list[ImageRatios]:
    """SDR, ISR, SIR and SAR of BSS Eval v4, as in the SiSEC and MUSDB18 tables: medians over seconds.

    Parameters
    ----------
    references, estimates : array_like, real, (n_src, n_samples)
        All true sources, and the estimate of each.
    sr : int
        Sample rate in Hz; windows of 1 s, every second.

    Returns
    -------
    list of ImageRatios
        For each source in dB, -100 to 100: medians over the seconds in which no source and no estimate is
        silent.

    Raises
    ------
    ScoreError
        If a signal is silent, numbers or lengths differ, samples are not finite, there is less than a second, or no
        second counts.
    ImportError
        Without museval (extra ``eval``).

    Notes
    -----
    One distortion filter of 512 taps for the whole signal. The SDR forgives no filter, and so equals `sdr` of the
    second; not to be compared with version 3, nor with means over songs or whole songs ("uSDR").

    References
    ----------
    F.-R. Stoeter, A. Liutkus, N. Ito, "The 2018 signal separation evaluation campaign", LVA/ICA 2018.
    """
    package = _museval_metrics()
    found = [as_signal(f"estimate {j}", row) for j, row in enumerate(np.atleast_2d(estimates))]
    sources = as_references(references, found[0])
    if len(found) != len(sources):
        raise ScoreError(f"{len(sources)} references, {len(found)} estimates")
    for j, row in enumerate(found):
        if row.shape != found[0].shape:
            raise ScoreError(f"estimate {j} has {row.size} samples, estimate 0 has {found[0].size}")
        refuse_silence(f"estimate {j}", row)
    if sources.shape[1] < sr:
        raise ScoreError(f"{sources.shape[1]} samples are less than a second at {sr} Hz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr, isr, sir, sar, _ = package.bss_eval(
            sources[..., None],
            np.stack(found)[..., None],
            compute_permutation=False,
            window=sr,
            hop=sr,
            framewise_filters=False,
            bsseval_sources_version=False,
        )
    values = np.stack([sdr, isr, sir, sar])
    counted = np.isfinite(values[0]).all(0)
    if not counted.any():
        raise ScoreError("in every second some source or estimate is silent")
    medians = np.median(np.clip(values[:, :, counted], -LIMIT_DB, LIMIT_DB), axis=2)
    return [ImageRatios(*map(float, column)) for column in medians.T]


def _museval_metrics() -> Any:
    """museval's metrics without the rest of it, which cannot be imported where there is no ffmpeg."""
    spec = find_spec("museval")
    if spec is None or not spec.submodule_search_locations:
        return require("museval", "eval")
    path = Path(spec.submodule_search_locations[0]) / "metrics.py"
    metrics = spec_from_file_location("_museval_metrics", path)
    assert metrics is not None
    assert metrics.loader is not None
    module = module_from_spec(metrics)
    metrics.loader.exec_module(module)
    return module


def _finite(*values: float) -> Ratios:
    if not np.isfinite(values).all():
        raise ScoreError("the projections are not defined: sources that are filtered copies of each other?")
    return Ratios(*(float(np.clip(v, -LIMIT_DB, LIMIT_DB)) for v in values))
