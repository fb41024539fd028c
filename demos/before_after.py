"""Five examples before and after, to hear and to see: python before_after.py [SPEECH NOISE] [-o FOLDER]

SPEECH and NOISE are folders of recordings, mixed as `rtsep mix` does. Without them, synthetic noises are added to the
noisy recording that comes with rtsep; its clean speech is not known, so that nothing is scored. If there is a model
for `talkers`, and more than one recording of speech, two of the examples are two talkers.

Open index.html in FOLDER (default: before_after).
"""

from __future__ import annotations

import argparse
import sys
from html import escape
from pathlib import Path

import numpy as np
import soundfile as sf

import rtsep
from rtsep.cli.demo import RECORDING
from rtsep.estimators import Speech, Talkers
from rtsep.evaluation import match, si_sdr
from rtsep.evaluation.mix import Mixer, Mixtures
from rtsep.plots import plot_files
from rtsep.recordings import Recording, find_recordings

SR, DURATION_S, LEVEL_DBFS = 16_000, 6.0, -23.0
SNRS_DB = (0, 5, 10, -5, 15)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>rtsep: before and after</title><style>
body {{ font: 16px/1.4 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h2 {{ margin: 2.5rem 0 0.7rem; font-size: 1.2rem }}
.sounds {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.8rem 1.2rem }}
.talkers {{ grid-template-columns: repeat(2, 1fr) }}
.talkers > :first-child {{ grid-column: 1 / -1 }}
audio, img {{ width: 100%; display: block; margin-top: 0.3rem }}
</style></head><body>
<h1>Before and after</h1>
<p>{about}</p>
{examples}
</body></html>
"""
EXAMPLE = """<h2>{number}. {title}</h2>
<div class="sounds {kind}">
{sounds}
</div>
<img src="{number}.png" alt="spectrograms">"""
SOUND = '<div>{title}<audio controls preload="none" src="{file}"></audio></div>'


def synthetic_noises(folder: Path) -> None:
    """Five files."""
    draws, n = np.random.default_rng(0), round(10 * SR)
    white, t = draws.normal(size=n), np.arange(n) / SR
    spectrum, bins = np.fft.rfft(white), np.arange(n // 2 + 1)
    clicks = np.where(draws.random(n) < 6 / SR, draws.normal(size=n), 0)
    noises = {
        "hiss": white,
        "rumble": np.fft.irfft(spectrum / np.maximum(bins, 300) ** 1.5, n),
        "hum": sum(np.sin(2 * np.pi * 100 * k * t) / k for k in range(1, 12)),
        "crackle": np.convolve(clicks, np.exp(-np.arange(400) / 60) * white[:400])[:n],
        "siren": np.sin(2 * np.pi * 900 * t + 500 * np.sin(np.pi * t)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, x in noises.items():
        sf.write(folder / f"{name}.flac", 0.5 * x / np.abs(x).max(), SR)


def mix(number: int, talkers: int, speech: list[Recording], noise: list[Recording]) -> tuple[dict, np.ndarray]:
    """What was mixed, and the true sources, float (n_src, n_samples)."""
    snr_db = SNRS_DB[number - 1]
    mixtures = Mixtures(1, DURATION_S, SR, talkers, (snr_db, snr_db), (LEVEL_DBFS, LEVEL_DBFS), seed=number)
    entry, sources = Mixer(mixtures, speech, noise).make(0)
    return entry, np.concatenate(list(sources.values())) / (1 << 23)


def separate_speech(entry: dict, true: np.ndarray, known: bool, model: Path | None) -> tuple[str, dict]:
    """A title, and the signals with theirs by name."""
    mixture, noise = true.sum(0), entry["class"].replace("_", " ")
    heard = rtsep.separate(mixture, SR, Speech(model))[0]
    signals = {
        "mixture": (f"mixture: {entry['snr_db']:g} dB SNR" + score(", ", true[0], mixture, known), mixture),
        "speech": ("speech" + score(": ", true[0], heard, known), heard),
        "true": ("true speech" if known else "the recording before noise was added", true[0]),
    }
    return f"{'Speech' if known else 'The recording'} and {noise}, {entry['snr_db']:g} dB SNR", signals


def separate_talkers(true: np.ndarray, model: Path | None) -> tuple[str, dict]:
    """The same for two talkers, in the order in which they fit the true ones best."""
    mixture = true.sum(0)
    heard = rtsep.separate(mixture, SR, Talkers(model))[:2]
    heard = heard[match([[si_sdr(s, e) for e in heard] for s in true])]
    signals = {"mixture": ("mixture", mixture)}
    for j, (s, e) in enumerate(zip(true, heard, strict=True), 1):
        signals[f"talker{j}"] = (
            f"talker {j}: SI-SDR {si_sdr(s, e):.1f} dB, in the mixture {si_sdr(s, mixture):.1f} dB",
            e,
        )
        signals[f"true{j}"] = (f"true talker {j}", s)
    level = 20 * np.log10(np.linalg.norm(true[0]) / np.linalg.norm(true[1]))
    return f"Two talkers, {level:.0f} dB apart", signals


def score(before: str, true: np.ndarray, x: np.ndarray, known: bool) -> str:
    return f"{before}SI-SDR {si_sdr(true, x):.1f} dB" if known else ""


def has_model(talkers: Talkers) -> bool:
    try:
        talkers.load()
    except rtsep.ConfigError:
        return talkers.model is not None
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Five examples before and after")
    parser.add_argument("folders", nargs="*", type=Path, metavar="SPEECH NOISE", help="folders of recordings")
    parser.add_argument("-o", "--output", type=Path, default=Path("before_after"), help="folder (default: %(default)s)")
    parser.add_argument("--speech-model", type=Path, help="model file in place of the shipped one")
    parser.add_argument("--talkers-model", type=Path, help="model file in place of the shipped one")
    args = parser.parse_args()
    if len(args.folders) not in (0, 2):
        parser.error("give two folders, SPEECH and NOISE, or none")
    known = bool(args.folders)
    if not known:
        synthetic_noises(args.output / "noises")
    folders = args.folders or [RECORDING.parent, args.output / "noises"]
    speech, noise = (find_recordings(folder, lambda path, why: print(path, why, file=sys.stderr)) for folder in folders)
    labels = sorted({recording.label for recording in noise})
    n_talkers = 2 if len(speech) > 1 and has_model(Talkers(args.talkers_model)) else 0
    args.output.mkdir(parents=True, exist_ok=True)
    examples = []
    for number in range(1, 6):
        if number > 5 - n_talkers:
            title, signals = separate_talkers(mix(number, 2, speech, [])[1], args.talkers_model)
        else:
            label = labels[(number - 1) * len(labels) // 5]
            entry, true = mix(number, 1, speech, [recording for recording in noise if recording.label == label])
            title, signals = separate_speech(entry, true, known, args.speech_model)
        files = {f"{number}_{name}.flac": words for name, (words, _) in signals.items()}
        for file, (_, x) in zip(files, signals.values(), strict=True):
            sf.write(args.output / file, x, SR)
        plots = {words: args.output / file for file, words in files.items()}
        plot_files(args.output / f"{number}.png", plots, round(DURATION_S * SR))
        kind = "talkers" if "talker1" in signals else ""
        sounds = "\n".join(SOUND.format(title=escape(words), file=file) for file, words in files.items())
        examples.append(EXAMPLE.format(number=number, title=escape(title), kind=kind, sounds=sounds))
        print(f"{number}. {title}: {'; '.join(files.values())}")
    about = f"rtsep {rtsep.__version__}, hop by hop with a latency of 16 ms."
    about += "" if known else " The clean speech of the recording is not known: it has noise of its own."
    (args.output / "index.html").write_text(PAGE.format(about=about, examples="\n".join(examples)), encoding="utf-8")
    print(args.output / "index.html")


if __name__ == "__main__":
    main()
