"""The scores by name, and all that were asked for of one scene."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from rtsep.errors import ConfigError
from rtsep.evaluation import bss_eval, perceptual, ratios, spatial, weighted
from rtsep.evaluation.checks import ScoreError

MAX_DELAY_S = 0.1
NOT_SPEECH = "is for speech"
SPEECH = ("speech", "voice", "vocal", "talker")  # beginnings of names of sources that scores of speech are for


class Scene(NamedTuple):
    """What was in a mixture, and what was made of it.

    Parameters
    ----------
    sr : int
        Sample rate in Hz.
    sources : tuple of str
        Names.
    references, estimates : ndarray, real, (n_src, n_channels, n_samples)
        True sources and their estimates.
    mixture : ndarray, real, (n_channels, n_samples), or None
        What they were separated from.
    """

    sr: int
    sources: tuple[str, ...]
    references: np.ndarray
    estimates: np.ndarray
    mixture: np.ndarray | None


# Of a scene with one channel: (sr, references, estimates, index of the source) -> a value for each column.
Measure = Callable[[int, np.ndarray, np.ndarray, int], Sequence[float]]


@dataclass(frozen=True)
class Score:
    """A score that can be asked for by name.

    Parameters
    ----------
    columns : tuple of str
        Of the tables.
    unit : str
        Empty for shares and opinions.
    summary : str
        One line.
    measure : callable
        Of one channel.
    modules : tuple of str
        Optional packages it needs.
    extra : str
        Optional extra of this package that installs them.
    gain : bool
        Whether the mixture is scored, too, and the difference.
    stereo : bool
        Whether `measure` takes both channels, signals being (n_src, 2, n_samples).
    speech : bool
        Whether it is for speech alone.
    labels : tuple of str
        What people call each column.
    digits : int
        Behind the point, that mean something.
    better : int
        1 if more is better, -1 if less is, 0 if neither.
    """

    columns: tuple[str, ...]
    unit: str
    summary: str
    measure: Measure
    modules: tuple[str, ...] = ()
    extra: str = ""
    gain: bool = True
    stereo: bool = False
    speech: bool = False
    labels: tuple[str, ...] = ()
    digits: int = 1
    better: int = 1


SCORES = {
    "si-sdr": Score(
        ("si_sdr",),
        "dB",
        "scale-invariant signal to distortion",
        lambda sr, s, e, j: (ratios.si_sdr(s[j], e[j]),),
        labels=("SI-SDR",),
    ),
    "si-parts": Score(
        ("si_sir", "si_sar"),
        "dB",
        "scale-invariant signal to interference and to artifacts",
        lambda sr, s, e, j: ratios.si_sdr_parts(s, e[j], j)[1:],
        gain=False,
        labels=("SI-SIR", "SI-SAR"),
    ),
    "sdr": Score(
        ("sdr",),
        "dB",
        "plain signal to distortion",
        lambda sr, s, e, j: (ratios.sdr(s[j], e[j]),),
        labels=("SDR",),
    ),
    "fw-sdr": Score(
        ("fw_sdr",),
        "dB",
        "SI-SDR weighted by the importance of bands for speech",
        lambda sr, s, e, j: (weighted.weighted_sdr(s[j], e[j], sr),),
        labels=("SDR weighted by bands",),
    ),
    "fw-sdr-level": Score(
        ("fw_sdr_level",),
        "dB",
        "SI-SDR weighted by the level of bands, adaptive",
        lambda sr, s, e, j: (weighted.weighted_sdr(s[j], e[j], sr, "level"),),
        labels=("SDR weighted by levels",),
    ),
    "bss3": Score(
        ("bss3_sdr", "bss3_sir", "bss3_sar"),
        "dB",
        "BSS Eval v3",
        lambda sr, s, e, j: bss_eval.bss_eval_v3(s, e[j], j),
        ("fast_bss_eval",),
        "eval",
        gain=False,
        labels=("SDR (BSS v3)", "SIR (BSS v3)", "SAR (BSS v3)"),
    ),
    "bss4": Score(
        ("bss4_sdr", "bss4_isr", "bss4_sir", "bss4_sar"),
        "dB",
        "BSS Eval v4, medians over seconds",
        lambda sr, s, e, j: bss_eval.bss_eval_v4(s, e, sr)[j],
        ("museval",),
        "eval",
        gain=False,
        labels=("SDR (BSS v4)", "ISR (BSS v4)", "SIR (BSS v4)", "SAR (BSS v4)"),
    ),
    "pesq": Score(
        ("pesq",),
        "",
        "predicted opinion of speech quality, 1 to 4.6",
        lambda sr, s, e, j: (perceptual.pesq(s[j], e[j], sr),),
        ("pesq",),
        "eval",
        speech=True,
        labels=("PESQ",),
        digits=2,
    ),
    "stoi": Score(
        ("stoi",),
        "",
        "predicted intelligibility of speech, 0 to 1",
        lambda sr, s, e, j: (perceptual.stoi(s[j], e[j], sr),),
        ("pystoi",),
        "eval",
        speech=True,
        labels=("STOI",),
        digits=3,
    ),
    "estoi": Score(
        ("estoi",),
        "",
        "predicted intelligibility in noise that fluctuates, 0 to 1",
        lambda sr, s, e, j: (perceptual.estoi(s[j], e[j], sr),),
        ("pystoi",),
        "eval",
        speech=True,
        labels=("ESTOI",),
        digits=3,
    ),
    "dnsmos": Score(
        ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"),
        "",
        "predicted opinion without a reference, 1 to 5",
        lambda sr, s, e, j: perceptual.dnsmos(e[j], sr),
        ("speechmos", "onnxruntime", "librosa", "requests"),
        "eval",
        speech=True,
        labels=("DNSMOS speech", "DNSMOS background", "DNSMOS overall", "DNSMOS P.808"),
        digits=2,
    ),
    "haspi": Score(
        ("haspi",),
        "",
        "predicted intelligibility, normal hearing, 0 to 1",
        lambda sr, s, e, j: (perceptual.haspi(s[j], e[j], sr),),
        ("clarity",),
        "hearing",
        speech=True,
        labels=("HASPI",),
        digits=3,
    ),
    "hasqi": Score(
        ("hasqi",),
        "",
        "predicted quality, normal hearing, 0 to 1",
        lambda sr, s, e, j: (perceptual.hasqi(s[j], e[j], sr),),
        ("clarity",),
        "hearing",
        speech=True,
        labels=("HASQI",),
        digits=3,
    ),
    "delay": Score(
        ("delay",),
        "samples",
        "delay by cross-correlation, at most 100 ms; positive is late",
        lambda sr, s, e, j: (spatial.delay(s[j], e[j], round(MAX_DELAY_S * sr)),),
        gain=False,
        labels=("delay",),
        better=0,
    ),
    "ild": Score(
        ("ild_error",),
        "dB",
        "error of the level difference between two ears",
        lambda sr, s, e, j: (spatial.interaural_level_error(s[j], e[j]),),
        gain=False,
        stereo=True,
        labels=("level between ears",),
        better=-1,
    ),
    "itd": Score(
        ("itd_error",),
        "us",
        "error of the time difference between two ears",
        lambda sr, s, e, j: (spatial.interaural_time_error(s[j], e[j], sr),),
        gain=False,
        stereo=True,
        labels=("time between ears",),
        digits=0,
        better=-1,
    ),
}


class SourceScores(NamedTuple):
    """Scores of one source: values by column, NaN where there is none, and the reason for each NaN."""

    source: str
    values: dict[str, float]
    reasons: dict[str, str]


def is_speech(source: str) -> bool:
    """Whether scores for speech are taken of a source of an evaluation, by its name."""
    return source.startswith(SPEECH)


def check_scores(names: Sequence[str]) -> None:
    """Raise `ConfigError` for names that are not in `SCORES`, and for scores whose package is missing."""
    for name in names:
        if name not in SCORES:
            raise ConfigError(f"score={name!r} is not one of {', '.join(SCORES)}")
        missing = [module for module in SCORES[name].modules if find_spec(module) is None]
        if missing:
            extra = SCORES[name].extra
            raise ConfigError(f'score {name!r} needs {", ".join(missing)}: pip install "rtsep[{extra}]"')


def columns_of(names: Sequence[str], with_mixture: bool) -> list[str]:
    """Columns that `measure` fills, in order."""
    columns: list[str] = []
    for name in names:
        score = SCORES[name]
        columns += score.columns
        if score.gain and with_mixture:
            columns += [f"{column}{suffix}" for suffix in ("_input", "_gain") for column in score.columns]
    return columns


def measure(scene: Scene, names: Sequence[str], speech: Collection[str] | None = None) -> list[SourceScores]:
    """All scores of all sources of a scene.

    Parameters
    ----------
    scene : Scene
        One channel or several; scores are means over channels, but the interaural ones.
    names : sequence of str
        Of `SCORES`.
    speech : collection of str, optional
        Sources that scores for speech are taken of; of others they are NaN. Default: all.

    Returns
    -------
    list of SourceScores
        One a source. With a mixture, scores that tell how good a signal is come with `COLUMN_input`, that of the
        mixture, and `COLUMN_gain`, the difference.
    """
    speech = scene.sources if speech is None else speech
    return [_measure_source(scene, names, j, scene.sources[j] in speech) for j in range(len(scene.sources))]


def _measure_source(scene: Scene, names: Sequence[str], j: int, is_speech: bool) -> SourceScores:
    found = SourceScores(scene.sources[j], {}, {})
    for name in names:
        score = SCORES[name]
        if score.speech and not is_speech:
            columns = columns_of([name], scene.mixture is not None)
            found.values.update(dict.fromkeys(columns, np.nan))
            found.reasons.update(dict.fromkeys(columns, NOT_SPEECH))
            continue
        _fill(found, score, scene, scene.estimates, j, "")
        if score.gain and scene.mixture is not None:
            _fill(found, score, scene, np.broadcast_to(scene.mixture, scene.references.shape), j, "_input")
            for column in score.columns:
                found.values[f"{column}_gain"] = found.values[column] - found.values[f"{column}_input"]
                if np.isnan(found.values[f"{column}_gain"]):
                    found.reasons[f"{column}_gain"] = found.reasons.get(column) or found.reasons[f"{column}_input"]
    return found


def _fill(found: SourceScores, score: Score, scene: Scene, estimates: np.ndarray, j: int, suffix: str) -> None:
    columns = [column + suffix for column in score.columns]
    try:
        values = _over_channels(score, scene, estimates, j)
    except ScoreError as problem:
        found.values.update(dict.fromkeys(columns, np.nan))
        found.reasons.update(dict.fromkeys(columns, str(problem)))
    else:
        found.values.update(zip(columns, values, strict=True))


def _over_channels(score: Score, scene: Scene, estimates: np.ndarray, j: int) -> list[float]:
    n_channels = scene.references.shape[1]
    if score.stereo:
        if n_channels != 2:
            raise ScoreError(f"needs two channels, here {n_channels}")
        return [float(value) for value in score.measure(scene.sr, scene.references, estimates, j)]
    if estimates.shape != scene.references.shape:
        raise ScoreError(f"references have shape {scene.references.shape}, estimates have {estimates.shape}")
    channels = [score.measure(scene.sr, scene.references[:, c], estimates[:, c], j) for c in range(n_channels)]
    return [float(value) for value in np.mean(channels, 0)]
