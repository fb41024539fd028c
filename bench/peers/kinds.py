"""The engines of `bench/peers` by kind of sound: what each is good at, and where each fails.

    python bench/peers/kinds.py -o docs --speech DIR --noise DIR --music DIR [--gtcrn FILE] [--dtln FILE FILE]
        [--model FILE ...]

Writes peers_kinds.json and peers_kinds.md. 16 kHz, pieces of 5 s, the same for all engines. Steady noises: those whose
level changes least, by the deviation of their frames of 20 ms; events those whose level changes most. Rooms: a
reverberation time of 0.5 s, simulated; the speech in the room is what is wanted. Intervals are of the mean, 95 %.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
from engines import SR, Rtsep, Unprocessed, find_engines
from study import measured, parser, publish, table

from rtsep.estimators import Speech
from rtsep.evaluation.report import provenance
from rtsep.recordings import find_recordings, read_mono
from rtsep.training.rooms import draw_response, in_room

N = 5 * SR
T60_S = 0.5
STEADY, EVENTS = 24, 24  # noises of each kind
FRAME = SR // 50
LOWEST_HZ = 80.0  # most of a steady noise is above
SCORES = ("si_sdr", "estoi", "pesq")
ALONE, NOISE_ALONE = ("clean speech", "speech in a room"), "noise alone"
LEFT_OUT = ("rtsep denoise", "WebRTC", "noisereduce")


class Scene(NamedTuple):
    label: str
    speech: np.ndarray
    noise: np.ndarray


def unsteadiness(x: np.ndarray) -> float:
    """Deviation of the level of frames in dB; infinite for what is mostly rumble."""
    power = np.abs(np.fft.rfft(x)) ** 2
    if power[: int(LOWEST_HZ * x.size / SR)].sum() > 0.5 * power.sum():
        return np.inf
    frames = x[: x.size // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.std(10 * np.log10(np.mean(frames**2, 1) + 1e-9 * np.mean(x**2))))


def read(folder: Path) -> dict[str, np.ndarray]:
    """Recordings by name, each its loudest five seconds, of power one; those that are shorter are repeated."""
    found = {}
    for recording in find_recordings(folder, print):
        x = read_mono(recording.path, SR)[0]
        x = np.resize(x, N) if x.size < N else x
        sums = np.cumsum(np.pad(x**2, (1, 0)))
        start = int(np.argmax(sums[N:] - sums[:-N]))
        piece = x[start : start + N]
        found[recording.path.stem] = piece / piece.std()
    return found


def scenes(
    speech: dict[str, np.ndarray], noise: dict[str, np.ndarray], music: dict[str, np.ndarray], count: int
) -> dict[str, list[Scene]]:
    rng = np.random.default_rng(0)
    ranked = sorted(noise, key=lambda name: unsteadiness(noise[name]))
    ranked = [name for name in ranked if np.isfinite(unsteadiness(noise[name]))]
    steady, events = ranked[:STEADY], ranked[-EVENTS:]

    def wet(x: np.ndarray) -> np.ndarray:
        heard = in_room(x.astype(np.float32), draw_response(rng, T60_S))
        return heard / heard.std()

    def mixed(names: list[str], pool: dict[str, np.ndarray], snr_db: float, room: bool = False) -> Iterator[Scene]:
        people = list(speech)
        for i in range(count):
            name, person = names[i % len(names)], people[int(rng.integers(len(people)))]
            x, y = speech[person], np.roll(pool[name], int(rng.integers(N)))
            x, y = (wet(x), wet(y)) if room else (x, y)
            yield Scene(f"{person} and {name}", x, y * 10 ** (-snr_db / 20))

    silence = np.zeros(N)
    chosen = list(speech)[:: max(1, len(speech) // count)][:count]
    every = ranked[:: max(1, len(ranked) // count)][:count]
    return {
        "steady noise at -5 dB": list(mixed(steady, noise, -5)),
        "steady noise at 0 dB": list(mixed(steady, noise, 0)),
        "events at 0 dB": list(mixed(events, noise, 0)),
        "music at 0 dB": list(mixed(list(music), music, 0)),
        "noise at 5 dB in a room": list(mixed(every, noise, 5, room=True)),
        ALONE[0]: [Scene(name, speech[name], silence) for name in chosen],
        ALONE[1]: [Scene(name, wet(speech[name]), silence) for name in chosen],
        NOISE_ALONE: [Scene(name, silence, noise[name]) for name in every],
    }


def listen(engines: dict[str, Callable[[], Any]], scene: Scene) -> dict[str, dict[str, float]]:
    """Scores of every engine, or the level of its output against the input where there is no speech."""
    mixture = (0.05 * (scene.speech + scene.noise)).astype(np.float32)
    found = {}
    for name, make in engines.items():
        if scene.speech.any():
            found[name] = measure.quality(make, 0.05 * scene.speech, mixture, SR, SCORES)
        else:
            y, _ = measure.heard(make, mixture, SR)
            found[name] = {"level_db": float(10 * np.log10((np.mean(y**2) + 1e-10) / np.mean(mixture**2)))}
    return found


def mean(values: list[float]) -> dict[str, float]:
    """Mean of what could be scored, and half of its 95 % interval."""
    known = np.array([value for value in values if np.isfinite(value)])
    return {"mean": known.mean(), "half": 1.96 * known.std(ddof=1) / np.sqrt(known.size)}


def measure_all(args: Any) -> dict[str, Any]:
    engines, missing = find_engines({"GTCRN": args.gtcrn, "DTLN": args.dtln})
    engines = {
        "unprocessed": Unprocessed,
        "rtsep speech, 16 ms": partial(Rtsep, "speech"),
        "rtsep speech, 8 ms": partial(Rtsep, "speech", 8),
        **{f"{path.name}, {ms} ms": partial(Rtsep, Speech(path), ms) for path in args.model for ms in (16, 8)},
        **{name: make for name, make in engines.items() if name != "unprocessed" and name[:5] != "rtsep"},
    }
    engines = {name: make for name, make in engines.items() if name not in LEFT_OUT}
    pools = (read(args.speech), read(args.noise), read(args.music))
    kinds: dict[str, Any] = {}
    for kind, some in scenes(*pools, args.count).items():
        rows = [listen(engines, scene) for scene in some]
        kinds[kind] = {}
        for name in engines:
            row = kinds[kind][name] = {}
            for score in rows[0][name]:
                values = [found[name][score] for found in rows]
                row[score] = mean(values)
                worst = (np.nanargmax if score == "level_db" else np.nanargmin)(values)
                row[score] |= {"worst": values[worst], "of": some[worst].label}
                if kind not in (*ALONE, NOISE_ALONE):
                    row[score]["gain"] = mean([found[name][score] - found["unprocessed"][score] for found in rows])
        print(kind, file=sys.stderr)
    folders = " ".join(
        f"--{name} {getattr(args, name).parent.name}/{getattr(args, name).name}"
        for name in ("speech", "noise", "music")
    )
    command = f"python bench/peers/kinds.py -o docs {folders} --count {args.count}"
    return {"made": provenance(), "command": command, "count": args.count, "missing": missing, "kinds": kinds}


def render(result: dict[str, Any]) -> str:
    """The page peers_kinds.md."""
    kinds = result["kinds"]
    mixed = [kind for kind in kinds if kind not in (*ALONE, NOISE_ALONE)]
    names = list(kinds[mixed[0]])

    def field(found: dict[str, float], places: int) -> str:
        return f"{found['mean']:.{places}f} ± {found['half']:.{places}f}"

    about = (
        f"{measured(result)}. {result['count']} pieces of 5 s of each kind; intervals are those of the mean, 95 %. The "
        f"rooms are simulated ({T60_S:g} s), by the generator that `speech` was trained with: that favours it there."
    )
    lines = ["# Engines by kind of sound", "", about, ""]
    for score, title, places in (("si_sdr", "Gain in SI-SDR, dB", 1), ("pesq", "PESQ", 2), ("estoi", "ESTOI", 3)):
        lines += [f"## {title}", ""]
        rows = []
        for kind in mixed:
            found = [kinds[kind][name][score] for name in names]
            rows.append([kind, *(field(one["gain"] if score == "si_sdr" else one, places) for one in found)])
        shown = names if score != "si_sdr" else names[1:]
        rows = [[row[0], *row[len(names) - len(shown) + 1 :]] for row in rows]
        lines += [*table(["", *shown], rows), ""]
    lines += [
        "## Speech alone, and no speech",
        "",
        "SI-SDR and PESQ of what should be left as it is; level of what should be silent, in dB.",
        "",
    ]
    rows = []
    for kind, score, title, places in (
        (ALONE[0], "si_sdr", "SI-SDR, dB", 1),
        (ALONE[0], "pesq", "PESQ", 2),
        (ALONE[1], "si_sdr", "SI-SDR, dB", 1),
        (ALONE[1], "pesq", "PESQ", 2),
        (NOISE_ALONE, "level_db", "level, dB", 1),
    ):
        rows.append([f"{kind}: {title}", *(field(kinds[kind][name][score], places) for name in names[1:])])
    lines += [*table(["", *names[1:]], rows), ""]
    for kind, score in ((ALONE[0], "si_sdr"), (NOISE_ALONE, "level_db")):
        worst = "; ".join(
            f"{name} {kinds[kind][name][score]['worst']:.1f} dB ({kinds[kind][name][score]['of']})"
            for name in names[1:3]
        )
        lines.append(f"The worst of {kind}: {worst}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = parser("peers_kinds", "The engines by kind of sound")
    for name in ("speech", "noise", "music"):
        options.add_argument(f"--{name}", type=Path, required=True, help=f"recordings of {name}")
    options.add_argument("--count", type=int, default=24, help="pieces of each kind (default: 24)")
    options.add_argument("--model", action="append", type=Path, default=[], help="another file for speech, to compare")
    options.add_argument("--gtcrn", nargs=1, default=[], metavar="FILE", help="ONNX of streaming GTCRN")
    options.add_argument("--dtln", nargs=2, default=[], metavar="FILE", help="ONNX of both networks of DTLN, in order")
    args = options.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    publish(args.output, "peers_kinds", measure_all(args), render)


if __name__ == "__main__":
    main()
