"""How soon howling is heard and ended, and how often something else is taken for it.

    python bench/howling.py [-s SECONDS] [-d FOLDER ...]

The loop is simulated: microphone = source + path * output, the output 16 ms of engine and 5 to 40 ms of device
later, with the limiter at -1 dBFS; the microphone clips at full scale. Paths: headphones that leak (4 ms) and a
loudspeaker in a room (0.25 s), scaled so that the loop gain at the worst frequency is as given. What feeds back
is the difference to the same without a loop.

False alarms are counted on synthetic sounds and on the recordings below each FOLDER (any format that libsndfile
reads), each scaled to a peak of -3 dBFS.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import butter, lfilter, sosfilt

from rtsep import Output, StreamConfig
from rtsep.audio_files import find_audio
from rtsep.engine.output import finish
from rtsep.kernels.jit import kernel
from rtsep.live.howling import gain_db, howls, prepare_howling, turn_down, watch

SR = 16_000
BLOCK = 64
ONSET_DB = -40.0  # from here on feedback counts as audible
LOUD_DB = -20.0
DEMO = Path(__file__).parents[1] / "rtsep" / "data" / "noisy_speech.flac"


def path_of(kind: str, seed: int, gain_db: float) -> np.ndarray:
    """Impulse response from output to microphone; its largest magnitude is the loop gain."""
    rng = np.random.default_rng(seed)
    if kind == "room":
        h = rng.normal(size=SR // 4) * 10 ** (-3 * np.arange(SR // 4) / (0.35 * SR))
        h[:20] *= 0.2
        h[20] += 4
        band = 200, 7000
    else:
        h = np.pad(rng.normal(size=64) * np.exp(-np.arange(64) / 10), (0, 200))
        band = 1000, 5000
    h = sosfilt(butter(2, band, "bandpass", fs=SR, output="sos"), h)
    return h / np.abs(np.fft.rfft(h, 1 << 16)).max() * 10 ** (gain_db / 20)


def run_loop(h: np.ndarray, delay: int, source: np.ndarray, protect: bool) -> dict[str, np.ndarray]:
    """What the microphone picks up and what is played, float64 (n,), and the gain and the howls of each block."""
    n = len(source) // BLOCK * BLOCK
    state, limiter = prepare_howling(SR), Output().prepare(StreamConfig(SR), consistent=False)
    played, mic = np.zeros(n + delay), np.zeros(n)
    memory, gains, counts = np.zeros(len(h) - 1), [], []
    for at in range(0, n, BLOCK):
        fed_back, memory = lfilter(h, [1.0], played[at : at + BLOCK], zi=memory)
        mic[at : at + BLOCK] = np.clip(source[at : at + BLOCK] + fed_back, -1, 1)
        heard = mic[at : at + BLOCK].astype(np.float32)
        if protect:
            watch(state, heard, 1, BLOCK)
        finish(limiter, heard[None], heard[None, None])
        if protect:
            turn_down(state, heard, 1, BLOCK)
        m = min(BLOCK, n - at)
        played[at + delay : at + delay + m] = heard[:m]
        gains.append(gain_db(state))
        counts.append(howls(state))
    return {"mic": mic, "played": played[delay:], "gain": np.array(gains), "howls": np.array(counts)}


def level(x: np.ndarray) -> np.ndarray:
    """Level of every block in dBFS (a sine of full scale has 0), over 32 ms."""
    power = np.convolve((2 * x**2).reshape(-1, BLOCK).mean(1), np.ones(8) / 8)[: len(x) // BLOCK]
    return 10 * np.log10(power + 1e-12)


def source_of(kind: str, seconds: float, seed: int) -> np.ndarray:
    """Quiet (-65 dBFS of noise), speech, or chords over it."""
    n = int(seconds * SR)
    x = 10 ** (-65 / 20) * np.random.default_rng(seed).normal(size=n)
    if kind == "speech":
        speech = sf.read(DEMO)[0]
        x += np.roll(np.resize(speech, n), -seed * 9000)
    elif kind == "music":
        x += 0.3 * chords("piano", seconds)
    return x


def chords(instrument: str, seconds: float) -> np.ndarray:
    """Chords of two seconds: decaying (piano), or sustained with few (flute) or many (organ) partials."""
    t = np.arange(int(2 * SR)) / SR
    partials = {"piano": 0.5 ** np.arange(10), "flute": 0.2 ** np.arange(4), "organ": np.ones(8) / np.arange(1, 9)}
    swell = {"piano": np.minimum(t / 0.01, 1) * np.exp(-t / 0.7), "organ": np.minimum(t / 0.05, 1)}
    envelope = swell.get(instrument, np.minimum(t / 0.15, 1) * (1 + 0.15 * np.sin(2 * np.pi * 5 * t)))
    notes = [(261.6, 329.6, 392.0), (293.7, 440.0, 523.3), (392.0, 493.9, 587.3), (880.0,), (1046.5, 1318.5)]
    parts = []
    for k in range(int(np.ceil(seconds / 2))):
        chord = sum(
            a * np.sin(2 * np.pi * f * (j + 1) * t)
            for f in notes[k % len(notes)]
            for j, a in enumerate(partials[instrument])
        )
        parts.append(envelope * chord * np.minimum(1, (2 - t) / 0.05))
    x = np.concatenate(parts)[: int(seconds * SR)]
    return x / np.abs(x).max()


def sounds(seconds: float = 30.0) -> dict[str, np.ndarray]:
    """What might be taken for howling, peaks at 1."""
    rng = np.random.default_rng(0)
    n = int(seconds * SR)
    t = np.arange(n) / SR
    pink = np.fft.irfft(np.fft.rfft(rng.normal(size=n)) / np.sqrt(np.arange(n // 2 + 1) + 1), n)
    bursts = (t % 1 < 0.5).astype(float)

    def tone(f, depth: float = 0.0, rate: float = 5.5):  # type: ignore[no-untyped-def]
        return np.sin(2 * np.pi * np.cumsum(f * (1 + depth * np.sin(2 * np.pi * rate * t))) / SR)

    def vowel(f0: float, formants: tuple[tuple[float, float], ...]) -> np.ndarray:
        harmonics = f0 * np.arange(1, int(7000 / f0))
        gains = sum(a / (1 + ((harmonics - f) / 80) ** 2) for f, a in formants) + 0.02
        x = sum(g * tone(f, 0.008) for f, g in zip(harmonics, gains, strict=True))
        return np.asarray(x * np.minimum(1, (t % 4) / 0.3) * (t % 4 < 3.5))

    wobble = np.cumsum(rng.normal(size=n)) / np.sqrt(n)
    made = {
        "white noise": rng.normal(size=n),
        "pink noise": pink,
        "tone 1 kHz": tone(1000.0),
        "tone, beeping": tone(1000.0) * bursts,
        "DTMF": (tone(770.0) + tone(1336.0)) * bursts,
        "alarm, two tones": tone(np.where(bursts, 800.0, 1000.0)),
        "siren": tone(600 + 300 * np.sin(2 * np.pi * 0.3 * t)),
        "sweep": tone(100 * 60 ** (t / seconds)),
        "vowel u, 120 Hz": vowel(120, ((300, 1.0), (870, 0.2))),
        "vowel a, 210 Hz": vowel(210, ((730, 1.0), (1090, 0.5))),
        "vowel u, 350 Hz": vowel(350, ((350, 1.0), (900, 0.05))),
        "piano": chords("piano", seconds),
        "organ": chords("organ", seconds),
        "flute": chords("flute", seconds),
        "whistle": tone(1500 * (1 + 0.02 * wobble)) * np.minimum(1, (t % 3) / 0.15) * (t % 3 < 2),
        "whistle, swelling 1 s": tone(1500 * (1 + 0.02 * wobble)) * 10 ** (np.minimum(0, t % 3 - 1) * 2) * (t % 3 < 2),
    }
    return {name: x / np.abs(x).max() for name, x in made.items()}


@kernel
def run_open(state, x, block, out):
    """Without a loop; `out` gets the number of blocks in which the gain was below one, and the lowest gain."""
    for at in range(0, x.size - block + 1, block):
        watch(state, x[at : at + block], 1, block)
        turn_down(state, x[at : at + block], 1, block)
        out[0] += state.gain[0] < np.float32(1)
        out[1] = min(out[1], state.gain[0])


def alarms(x: np.ndarray, sr: int, peak_db: float = -3.0) -> tuple[int, int, float, float]:
    """Alarms, how many of them were pardoned, seconds turned down, and the lowest gain in dB."""
    x = x if x.ndim == 1 else x.mean(1)
    x = x / max(np.abs(x).max(), 1e-9) * 10 ** (peak_db / 20)
    state, out, block = prepare_howling(sr), np.array([0.0, 1.0]), sr // 250
    run_open(state, x.astype(np.float32), block, out)
    return int(state.alarms[0]), int(state.alarms[1]), out[0] * block / sr, 20 * np.log10(out[1])


def measure_loops(seconds: float) -> list[dict]:
    """One row for each path, loop gain, source and seed."""
    rows = []
    rng = np.random.default_rng(0)
    for kind in ("headphones", "room"):
        for gain in (0.5, 1.0, 2.0, 4.0, 8.0, 12.0):
            for seed in range(3):
                for source in ("quiet", "speech", "music"):
                    delay = int((0.016 + rng.uniform(0.005, 0.04)) * SR)
                    h, x = path_of(kind, seed, gain), source_of(source, seconds, seed)
                    protected, bare = run_loop(h, delay, x, True), run_loop(h, delay, x, False)
                    clean = np.clip(x[: len(bare["mic"])], -1, 1)
                    fed_back, unprotected = level(protected["mic"] - clean), level(bare["mic"] - clean)
                    row = {"path": kind, "gain": gain, "source": source, "howls": int(protected["howls"][-1])}
                    row |= {"loud_s": (fed_back > LOUD_DB).sum() * BLOCK / SR, "lowest": protected["gain"].min()}
                    row |= {"bare_s": (unprotected > LOUD_DB).sum() * BLOCK / SR}
                    found = np.flatnonzero(protected["howls"])
                    if len(found):
                        below = np.flatnonzero(fed_back[: found[0]] < ONSET_DB)
                        row["after_s"] = (found[0] - (below[-1] if len(below) else 0)) * BLOCK / SR
                        row["at"] = fed_back[found[0]]
                        row["ended_s"] = np.argmax(fed_back[found[0] :] < fed_back[found[0]] - 20) * BLOCK / SR
                    rows.append(row)
    return rows


def print_loops(rows: list[dict]) -> None:
    print(
        "\nn of m that got loud unprotected had an alarm; seconds after feedback became audible (-40 dBFS); its level"
    )
    print("then; seconds until it was 20 dB lower (medians and maxima); seconds of feedback above -20 dBFS in all runs")
    print("without and with protection; lowest gain in dB")
    for kind in ("headphones", "room"):
        for gain in sorted({row["gain"] for row in rows}):
            for source in ("quiet", "speech", "music"):
                mine = [r for r in rows if (r["path"], r["gain"], r["source"]) == (kind, gain, source)]
                found = [r for r in mine if "at" in r]
                after, at, ended = ([r[key] for r in found] or [np.nan] for key in ("after_s", "at", "ended_s"))
                print(
                    f"{kind:10} {gain:4g} dB  {source:6}  {len(found)} of {sum(r['bare_s'] > 0.1 for r in mine)}  "
                    f"{np.median(after):4.2f} {max(after):4.2f} s  {np.median(at):3.0f} dBFS  "
                    f"{np.median(ended):4.2f} {max(ended):4.2f} s  {sum(r['bare_s'] for r in mine):4.1f} s "
                    f"{sum(r['loud_s'] for r in mine):4.1f} s  {min(r['lowest'] for r in mine):3.0f} dB"
                )


def print_alarms(folders: list[Path]) -> None:
    print("\nopen loop, 30 s each: alarms, of them pardoned, seconds turned down, lowest gain in dB; for peaks at")
    print(f"{'':24}{'-3 dBFS':>18}{'-8 dBFS':>24}{'-20 dBFS':>25}")
    for name, x in sounds().items():
        cells = [alarms(x, SR, peak) for peak in (-3.0, -8.0, -20.0)]
        print(f"{name:24}" + " | ".join(f"{a:4} {p:4} {s:6.1f} {g:5.0f}" for a, p, s, g in cells))
    for folder in folders:
        total = np.zeros(4)
        files = [folder / name for name in find_audio(folder)]
        for path in files:
            x, sr = sf.read(path)
            a, p, s, _ = alarms(x, sr)
            total += len(x) / sr, a, p, s
            if a:
                print(f"    {path.name}: {a} alarms, {p} pardoned, {s:.1f} s turned down")
        hours = total[0] / 3600
        print(
            f"{folder}: {hours:.2f} h in {len(files)} files, {total[1]:.0f} alarms ({total[1] / hours:.1f} per hour), "
            f"{total[2]:.0f} pardoned, {total[3] / hours:.0f} s turned down per hour"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-s", "--seconds", type=float, default=5.0, help="of every loop")
    parser.add_argument("-d", "--data", type=Path, nargs="*", default=[], metavar="FOLDER")
    args = parser.parse_args()
    print_alarms(args.data)
    print_loops(measure_loops(args.seconds))


if __name__ == "__main__":
    main()
