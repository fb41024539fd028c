"""Scores that predict listeners, by the packages that are used for them."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np

from rtsep.evaluation.apart import call_apart
from rtsep.evaluation.checks import ScoreError, as_pair, as_signal, refuse_silence, require

SPEECH_SR = 16_000
HEARING_LEVEL_DB = 65.0  # SPL of the reference, that of conversation

# Hearing thresholds in dB HL at 250, 500, 1000, 2000, 4000 and 6000 Hz: no loss; the standard audiograms N1 to N4
# of Bisgaard, Vlaming, Dahlquist, Trends in Amplification 14(2), 2010, table 1 (flat and moderately sloping).
AUDIOGRAM_HZ = (250, 500, 1000, 2000, 4000, 6000)
AUDIOGRAMS = {
    "normal": (0, 0, 0, 0, 0, 0),
    "N1": (10, 10, 10, 15, 30, 40),
    "N2": (20, 20, 25, 35, 45, 50),
    "N3": (35, 35, 40, 50, 60, 65),
    "N4": (55, 55, 55, 65, 75, 80),
}


class DNSMOS(NamedTuple):
    """Predicted opinion of signal, background, both together, and by ITU-T P.808; each 1 to 5."""

    sig: float
    bak: float
    ovrl: float
    p808: float


def pesq(reference: Any, estimate: Any, sr: int) -> float:
    """Predicted opinion of speech quality, PESQ: wide band at 16 kHz, narrow band at 8 kHz.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        Clean speech, and what was made of the mixture.
    sr : int
        Sample rate in Hz. 8000: narrow band; everything else is brought to 16 kHz: wide band.

    Returns
    -------
    float
        MOS-LQO, 1.02 to 4.56 (narrow band) or 1.04 to 4.64 (wide band).

    Raises
    ------
    ScoreError
        If a signal is silent, shorter than 0.25 s or without speech, lengths differ, or samples are not finite.
    ImportError
        Without pesq (extra ``eval``).

    Notes
    -----
    Aligns level and delay by itself, and so hides both. Narrow and wide band are not to be compared with each other,
    nor values of the raw P.862 scale (-0.5 to 4.5) with either. Made for telephone speech.

    References
    ----------
    ITU-T P.862 (2001), P.862.1, P.862.2 (2007).
    """
    require("pesq", "eval")
    s, e = as_pair(reference, estimate)
    if s.size < sr / 4:
        raise ScoreError(f"{s.size} samples at {sr} Hz are less than the 0.25 s that PESQ needs")
    rate = sr if sr == 8_000 else SPEECH_SR
    try:
        # Its C code writes beyond its arrays where there are more than fifty utterances.
        return float(call_apart(_pesq, rate, _resample(s, sr, rate), _resample(e, sr, rate)))
    except ScoreError as problem:
        raise ScoreError(f"PESQ: {problem}") from None


def stoi(reference: Any, estimate: Any, sr: int) -> float:
    """Predicted intelligibility of speech: short-time objective intelligibility.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        Clean speech, and what was made of the mixture.
    sr : int
        Sample rate in Hz; below 10 kHz the highest bands are empty.

    Returns
    -------
    float
        Mean correlation of envelopes in third octaves over 384 ms, about 0 to 1; monotone with the share of words
        understood, but not it.

    Raises
    ------
    ScoreError
        If a signal is silent, there is less than 0.4 s of speech, lengths differ, or samples are not finite.
    ImportError
        Without pystoi (extra ``eval``).

    Notes
    -----
    Frames 40 dB below the loudest are left out. Not to be compared with `estoi`, nor among languages or materials.

    References
    ----------
    C. Taal et al., "An algorithm for intelligibility prediction of time-frequency weighted noisy speech", IEEE
    TASLP 19(7), 2011.
    """
    return _stoi(reference, estimate, sr, False)


def estoi(reference: Any, estimate: Any, sr: int) -> float:
    """Predicted intelligibility of speech in noise that fluctuates: extended STOI.

    Parameters
    ----------
    reference, estimate, sr
        As `stoi`.

    Returns
    -------
    float
        Mean correlation of spectra over 384 ms, normalised in time and frequency, about 0 to 1.

    Raises
    ------
    ScoreError, ImportError
        As `stoi`.

    Notes
    -----
    Lower than `stoi` for the same signals: not to be compared with it.

    References
    ----------
    J. Jensen, C. Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise maskers",
    IEEE TASLP 24(11), 2016.
    """
    return _stoi(reference, estimate, sr, True)


def dnsmos(estimate: Any, sr: int) -> DNSMOS:
    """Predicted opinion of speech quality without a reference: DNSMOS P.835 and P.808.

    Parameters
    ----------
    estimate : array_like, real, (n_samples,)
        Speech, full scale is 1; what is beyond it is clipped, as in a file.
    sr : int
        Sample rate in Hz; brought to 16 kHz.

    Returns
    -------
    DNSMOS
        Of signal, background and both, and by P.808; 1 to 5 each.

    Raises
    ------
    ScoreError
        If the signal is silent, or samples are not finite.
    ImportError
        Without speechmos, onnxruntime and librosa (extra ``eval``).

    Notes
    -----
    A network's guess of what listeners would say, without knowing what was said: speech that is removed, or invented,
    goes unnoticed. Depends on the level. Signals below 9 s are repeated up to it. Not to be compared with PESQ, with
    opinions of listeners, or with the personalised DNSMOS.

    References
    ----------
    C. Reddy, V. Gopal, R. Cutler, "DNSMOS P.835: a non-intrusive perceptual objective speech quality metric to
    evaluate noise suppressors", ICASSP 2022.
    """
    require("speechmos", "eval")
    e = as_signal("estimate", estimate)
    refuse_silence("estimate", e)
    try:
        return DNSMOS(*call_apart(_dnsmos, np.clip(_resample(e, sr, SPEECH_SR), -1, 1)))
    except ScoreError as problem:
        raise ScoreError(f"DNSMOS: {problem}") from None


def haspi(reference: Any, estimate: Any, sr: int, audiogram: str = "normal") -> float:
    """Predicted intelligibility for a listener with or without hearing loss: HASPI version 2.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        Clean speech, and what was made of the mixture. The level of the reference counts as 65 dB SPL, and that of
        the estimate relative to it.
    sr : int
        Sample rate in Hz.
    audiogram : {"normal", "N1", "N2", "N3", "N4"}
        Hearing thresholds: none lost, or the standard audiograms of mild to moderately severe loss.

    Returns
    -------
    float
        0 to 1, predicted share of sentences understood.

    Raises
    ------
    ScoreError
        If a signal is silent, lengths differ, samples are not finite, or the model has no answer.
    ValueError
        For other audiograms.
    ImportError
        Without pyclarity (extra ``hearing``).

    Notes
    -----
    No amplification is applied to the estimate: with hearing loss this is the unaided listener. Not to be compared
    with HASPI version 1, among audiograms as if they were conditions, or with `stoi`. Some steps draw noise (internal
    noise of the ear), here from a fixed seed.

    References
    ----------
    J. Kates, K. Arehart, "The hearing-aid speech perception index (HASPI) version 2", Speech Communication 131, 2021.
    """
    return _hearing("haspi", reference, estimate, sr, audiogram)


def hasqi(reference: Any, estimate: Any, sr: int, audiogram: str = "normal") -> float:
    """Predicted quality for a listener with or without hearing loss: HASQI version 2.

    Parameters
    ----------
    reference, estimate, sr, audiogram
        As `haspi`.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ScoreError, ValueError, ImportError
        As `haspi`.

    Notes
    -----
    The reference is given the amplification NAL-R for the audiogram, the estimate is taken as it is. Not to be
    compared with `haspi` or PESQ.

    References
    ----------
    J. Kates, K. Arehart, "The hearing-aid speech quality index (HASQI) version 2", JAES 62(3), 2014.
    """
    return _hearing("hasqi", reference, estimate, sr, audiogram)


def _pesq(rate: int, reference: np.ndarray, estimate: np.ndarray) -> float:
    package = require("pesq", "eval")
    try:
        return float(package.pesq(rate, reference, estimate, "nb" if rate == 8_000 else "wb"))
    except package.PesqError as problem:
        reason = problem.args[0] if problem.args else type(problem).__name__
        raise ScoreError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None


def _dnsmos(estimate: np.ndarray) -> list[float]:
    found = require("speechmos.dnsmos", "eval").run(estimate, sr=SPEECH_SR)
    return [float(found[f"{name}_mos"]) for name in DNSMOS._fields]


def _stoi(reference: Any, estimate: Any, sr: int, extended: bool) -> float:
    package = require("pystoi", "eval")
    s, e = as_pair(reference, estimate)
    with warnings.catch_warnings():
        # It warns, and returns 1e-5.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(package.stoi(s, e, sr, extended=extended))
        except RuntimeWarning:
            raise ScoreError("there is less than the 0.4 s of speech that STOI needs") from None
        except (ValueError, IndexError) as problem:
            # pystoi cannot frame what is shorter than one of its frames.
            if s.size < 0.4 * sr:
                raise ScoreError("there is less than the 0.4 s of speech that STOI needs") from None
            raise ScoreError(f"STOI: {problem}") from None


def _hearing(name: Literal["haspi", "hasqi"], reference: Any, estimate: Any, sr: int, audiogram: str) -> float:
    if audiogram not in AUDIOGRAMS:
        raise ValueError(f"{audiogram=} is not one of {', '.join(AUDIOGRAMS)}")
    package = require(f"clarity.evaluator.{name}", "hearing")
    levels = require("clarity.utils.audiogram", "hearing").Audiogram(
        levels=np.array(AUDIOGRAMS[audiogram]), frequencies=np.array(AUDIOGRAM_HZ)
    )
    s, e = as_pair(reference, estimate)
    gain = 1 / np.sqrt(np.mean(s**2))
    state = np.random.get_state()  # noqa: NPY002 - the package draws from NumPy's global generator
    np.random.seed(0)  # noqa: NPY002
    try:
        found = getattr(package, f"{name}_v2")(gain * s, sr, gain * e, sr, levels, level1=HEARING_LEVEL_DB)
    except (ValueError, IndexError, ZeroDivisionError, FloatingPointError) as problem:
        raise ScoreError(f"{name}: {problem}") from None
    finally:
        np.random.set_state(state)  # noqa: NPY002
    if not np.isfinite(found[0]):
        raise ScoreError(f"{name} has no answer for these signals")
    return float(found[0])


def _resample(x: np.ndarray, sr: int, rate: int) -> np.ndarray:
    if sr == rate:
        return x
    from scipy.signal import resample_poly

    divisor = int(np.gcd(sr, rate))
    return np.asarray(resample_poly(x, rate // divisor, sr // divisor))
