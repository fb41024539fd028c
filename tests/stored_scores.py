"""Scores of a fixed small set, so that a change that costs quality is seen.

    python tests/stored_scores.py        # renew tests/data/scores.json on purpose; prints what changes

Speech, talkers, denoise, hpss and true magnitudes with their default and with every phase recovery of this package,
all with default settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import signals
import soundfile

import rtsep
import rtsep.phase
from rtsep import StreamConfig
from rtsep.engine.protocols import CompiledEstimator, PhaseRecovery, PythonEstimator
from rtsep.engine.registry import PHASES
from rtsep.estimators import HPSS, Denoise, Oracle, Speech, Talkers
from rtsep.evaluation import estoi, pesq, si_sdr

STORED = Path(__file__).parent / "data" / "scores.json"
RECORDING = Path(rtsep.__file__).parent / "data" / "noisy_speech.flac"
SR = 16_000
N = 24_000
TOLERANCE = {"si_sdr": 0.01, "estoi": 0.001, "pesq": 0.01}
PACKAGE = {"estoi": "pystoi", "pesq": "pesq"}

Scores = dict[str, float]  # by "scene, estimator[+phase], score of source"


class Scene(NamedTuple):
    """Sources that are mixed, and who separates them."""

    sources: np.ndarray  # float32 (n_src, n_samples)
    estimator: Any
    speech: bool  # whether the first source is a real voice, which the scores for speech suit


class CalledFromPython(PythonEstimator):
    """A compiled estimator without its compiled hop: nothing is compiled for each pair with a phase recovery."""

    sources, phase, step = (), "", None  # those of the settings

    def __init__(self, settings: CompiledEstimator) -> None:
        self._settings = settings
        self.sources, self.phase, self.step = settings.sources, settings.phase, type(settings).step

    def prepare(self, config: StreamConfig) -> Any:
        return self._settings.prepare(config)

    def for_phase(self, phase: PhaseRecovery) -> CalledFromPython:
        return CalledFromPython(self._settings.for_phase(phase))


def scenes() -> dict[str, Scene]:
    recording = soundfile.read(RECORDING, start=SR // 2, frames=N, dtype="float32")[0]
    voices = signals.voices(N)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=N))
    noise = np.fft.irfft(spectrum / (1 + 8j * np.linspace(0, 1, spectrum.size)), N)  # falls with frequency
    t = np.arange(N) / SR
    chord = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277.2, 329.6, 1318.5)) * np.clip(4 * t, 0, 1)
    clicks = np.where(np.arange(N) % 4000 < 40, np.random.default_rng(1).normal(size=N), 0)

    def levelled(*sources: np.ndarray) -> np.ndarray:
        return np.stack([0.05 * s / np.sqrt(np.mean(s**2)) for s in sources]).astype(np.float32)

    with_voice, in_noise = levelled(recording, voices[0]), levelled(recording, noise)
    return {
        "two voices": Scene(voices, Oracle(voices), False),
        "recording and voice": Scene(with_voice, Oracle(with_voice), True),
        "voice in noise": Scene(levelled(voices[0], noise), Denoise(), False),
        "recording in noise": Scene(in_noise, Denoise(), True),
        "recording in the same noise": Scene(in_noise, Speech(), True),
        "two talkers": Scene(voices, Talkers(), False),
        "chord and clicks": Scene(levelled(chord, clicks), HPSS(), False),
    }


def score(scene: Scene, heard: np.ndarray) -> Iterator[tuple[str, float]]:
    n = len(scene.sources)  # of two talkers alone nothing is left for a third output
    for name, reference, estimate in zip(scene.estimator.sources[:n], scene.sources, heard[:n], strict=True):
        yield f"si_sdr of {name}", si_sdr(reference, estimate)
    if scene.speech:
        for name, measure_speech in {"estoi": estoi, "pesq": pesq}.items():
            if find_spec(PACKAGE[name]):
                speech = scene.estimator.sources[0]
                yield f"{name} of {speech}", measure_speech(scene.sources[0], heard[0], SR)


def measure() -> Scores:
    """Scores of today; those whose package is not installed are left out."""
    ours = [name for name, settings in PHASES.items() if settings.__module__.startswith("rtsep.")]
    found = {}
    for title, scene in scenes().items():
        mixture, estimator = scene.sources.sum(0), CalledFromPython(scene.estimator)
        for phase in [None, *sorted(ours)]:
            heard = rtsep.separate(mixture, SR, estimator, phase)
            setup = scene.estimator.name + (f"+{phase}" if phase else "")
            for what, value in score(scene, heard):
                found[f"{title}, {setup}, {what}"] = value
    return found


def compare(stored: Scores, measured: Scores) -> list[str]:
    """A line for every score that is not the stored one, with both."""
    lines = []
    for key in sorted(stored.keys() | measured.keys()):
        kind = key.split(", ")[-1].split()[0]
        old, new = stored.get(key), measured.get(key)
        if new is None and kind in PACKAGE and not find_spec(PACKAGE[kind]):
            continue
        if old is None or new is None:
            lines.append(f"{key}: stored {old}, now {new}")
        elif not abs(new - old) <= TOLERANCE[kind]:
            lines.append(f"{key}: stored {old:.3f}, now {new:.3f} ({new - old:+.3f})")
    return lines


def load() -> Scores:
    return json.loads(STORED.read_text())


if __name__ == "__main__":
    missing = [package for package in PACKAGE.values() if not find_spec(package)]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not installed: pip install '.[eval]'")
    today = measure()
    print("\n".join(compare(load() if STORED.exists() else {}, today)) or "nothing changes")
    STORED.write_text(json.dumps({key: round(value, 4) for key, value in today.items()}, indent=1) + "\n")
