"""Sounds of an evaluation for its page: the true source, the mixture and every estimate, with their spectrograms."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import soundfile as sf

from rtsep.audio_files import FileError
from rtsep.errors import ConfigError
from rtsep.evaluation.evaluate import Evaluation, separate_item
from rtsep.evaluation.overview import Measure

MAX_BYTES = 6_000_000  # of all sounds, as text in the page
LONGEST_S, SHORTEST_S = 10.0, 3.0  # of a sound
MAX_RATE = 48_000
PLACES = {"median": 0.5, "best": 1.0, "worst": 0.0}  # which mixtures are heard, the most usual one first
WIDTH, HEIGHT = 480, 160  # of a spectrogram, in pixels
FRAME_S = 0.032
LOWEST_HZ = 50.0
RANGE_DB = 70.0
RAW = 0.75  # bytes of FLAC for a byte of samples, at most, for sounds that are not noise alone


def examples(evaluation: Evaluation, rows: Sequence[dict[str, Any]], measure: Measure, source: str) -> list[Any]:
    """The median, the best and the worst mixture of the first setup, to listen to.

    Parameters
    ----------
    evaluation : Evaluation
    rows : sequence of dict
        Its table.
    measure : Measure
        What mixtures are ranked by.
    source : str
        Whose estimates are heard.

    Returns
    -------
    list of dict
        For each mixture `place`, `id`, `seconds` and `sounds`: each has `name`, `what`, `sound` and `picture`, the
        last two as data URLs. As long as all of them fit into six million characters, up to ten seconds each.
    """
    labels = [setup.label for setup in evaluation.setups]
    values = {(row["setup"], row["id"]): row for row in rows if row["source"] == source}
    ranked = sorted(
        (row for row in values.values() if row["setup"] == labels[0] and np.isfinite(row.get(measure.column, np.nan))),
        key=lambda row: measure.better * row[measure.column],
    )
    chosen = {place: ranked[round(share * (len(ranked) - 1))]["id"] for place, share in PLACES.items() if ranked}
    # Of a single mixture the three are one.
    places = {name: place for place, name in reversed(chosen.items())}
    by_id = {item.id: item for item in evaluation.items}
    budget, found = MAX_BYTES, []
    for left, (name, place) in zip(range(len(places), 0, -1), reversed(places.items()), strict=True):
        heard: list[tuple[str, str, np.ndarray]] = []
        sr = 0
        for setup in evaluation.setups:
            try:
                scene, _ = separate_item(by_id[name], setup)
            except (FileError, ConfigError):
                continue
            j, sr = scene.sources.index(source), scene.sr
            assert scene.mixture is not None
            row = values.get((setup.label, name), {})
            if not heard:
                heard.append((f"true {source}", "the reference", scene.references[j]))
                heard.append(("mixture", _in_words(row, measure, "_input"), scene.mixture))
            heard.append((setup.label, _in_words(row, measure, ""), scene.estimates[j]))
        sounds, seconds = _fit(heard, sr, budget // left)
        if sounds:
            budget -= sum(len(sound["sound"]) + len(sound["picture"]) for sound in sounds)
            place = f"The {place} mixture for {labels[0]}, by {measure.title}"
            found.append({"place": place, "id": name, "seconds": seconds, "sounds": sounds})
    return found


def _in_words(row: dict[str, Any], measure: Measure, suffix: str) -> str:
    value = row.get(f"{measure.absolute}{suffix}", np.nan)
    if not np.isfinite(value):
        return ""
    text = f"{measure.label} {measure.number(value)} {measure.unit}".rstrip()
    gain = row.get(f"{measure.absolute}_gain", np.nan)
    return f"{text}, gain {measure.number(gain, True)}" if not suffix and np.isfinite(gain) else text


def _fit(heard: list[tuple[str, str, np.ndarray]], sr: int, budget: int) -> tuple[list[dict[str, str]], float]:
    """As many seconds, channels and sounds as the budget of characters allows; the first sounds count most."""
    if not heard:
        return [], 0.0
    rate = min(sr, MAX_RATE)
    n_channels = min(2, len(heard[0][2]))
    n_sounds = len(heard)

    def affordable(channels: int, sounds: int) -> float:
        return budget / sounds / (2 * rate * channels * RAW * 4 / 3 + 2_500)  # and a spectrogram

    if affordable(n_channels, n_sounds) < SHORTEST_S:
        n_channels = 1
    while affordable(n_channels, n_sounds) < SHORTEST_S and n_sounds > 3:
        n_sounds -= 1
    seconds = min(LONGEST_S, affordable(n_channels, n_sounds), heard[0][2].shape[1] / sr)
    n_samples = round(seconds * sr)
    parts = [_channels(x[:, :n_samples], n_channels) for _, _, x in heard[:n_sounds]]
    # One level for all, so that they can be compared.
    gain = min(1.0, 0.99 / max(1e-9, *(float(np.abs(part).max()) for part in parts)))
    top = max(float(_level(part[0], sr).max()) for part in parts)
    sounds = [
        {"name": name, "what": what, "sound": _sound(gain * part, sr, rate), "picture": _picture(part[0], sr, top)}
        for (name, what, _), part in zip(heard, parts, strict=False)
    ]
    return sounds, seconds


def _channels(x: np.ndarray, n_channels: int) -> np.ndarray:
    x = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    return x[:2] if n_channels == 2 else x.mean(0, keepdims=True)


def _sound(x: np.ndarray, sr: int, rate: int) -> str:
    if rate != sr:
        from scipy.signal import resample_poly

        divisor = int(np.gcd(sr, rate))
        x = resample_poly(x, rate // divisor, sr // divisor, axis=1)
    data = io.BytesIO()
    sf.write(data, np.clip(x.T, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(data.getvalue()).decode()


def _level(x: np.ndarray, sr: int) -> np.ndarray:
    """Level in dB at 160 frequencies, equally far apart in mel, and 480 times; float64 (160, 480)."""
    n = 2 * round(FRAME_S * sr / 2)
    padded = np.pad(x, (n // 2, n))
    starts = np.linspace(0, x.size, WIDTH, endpoint=False).astype(int)
    frames = padded[starts[:, None] + np.arange(n)] * np.hanning(n + 1)[:-1]
    power = np.abs(np.fft.rfft(frames, axis=1) * 4 / n) ** 2
    mel = np.linspace(_mel(LOWEST_HZ), _mel(sr / 2), HEIGHT)
    hz = 700 * (np.exp(mel / 1127) - 1)
    bins = np.arange(power.shape[1]) * sr / n
    level: np.ndarray = 10 * np.log10(np.stack([np.interp(hz, bins, row) for row in power], 1) + 1e-12)
    return level


def _mel(hz: float) -> float:
    return float(1127 * np.log1p(hz / 700))


def _picture(x: np.ndarray, sr: int, top: float) -> str:
    from PIL import Image

    share = np.clip((_level(x, sr) - top + RANGE_DB) / RANGE_DB, 0, 1)[::-1]
    data = io.BytesIO()
    Image.fromarray((255 * mpl.colormaps["magma"](share)[..., :3]).astype(np.uint8)).save(data, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
