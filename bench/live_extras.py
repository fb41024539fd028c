"""What gains, gate, recording and spectrograms add to a hop of the audio thread: python bench/live_extras.py

The live callback on one hop of 4 ms, called from Python, each with and without in turn, so that a busy machine is
busy for both. Prints JSON: the microseconds that each adds at the lower decile, where nothing else disturbs, with the
middle 95 % of resampled rounds, beside the time of the hop itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from study import one_core

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import signals
from test_live_callback import Device

from rtsep import Gate, Separator, StreamConfig

PAIRS, HOPS = 4000, 8
EXTRAS = ("gains", "gate", "recording", "spectrograms")


def measure(sr: int) -> dict[str, object]:
    """Figures for one rate."""
    config = StreamConfig(sr)
    separator = Separator(config, "denoise", gate=Gate(0, 0))
    device = Device(separator)
    live, call = device.live, device._call
    block, out = signals.voices(config.hop, sr).sum(0), np.zeros(config.hop, np.float32)
    into = (block.ctypes.data, out.ctypes.data, config.hop, None, 0, device.handle.address)

    def switch(extra: str, on: bool) -> None:
        if extra == "gains":
            live.trim_goals[:] = live.trims[:] = 1.5 if on else 1.0
        elif extra == "gate":
            separator.set(min_presence=float(on))
        else:
            (live.taps if extra == "recording" else live.scopes)[0] = on

    def hop_us() -> float:
        call(*into)  # what has been switched is in the cache
        start = time.perf_counter()
        for _ in range(HOPS):
            call(*into)
        took = 1e6 * (time.perf_counter() - start) / HOPS
        for ring in (live.tap, live.scope, live.times):
            ring.read[0] = ring.written[0]
        return took

    result: dict[str, object] = {}
    rng = np.random.default_rng(0)
    for extra in EXTRAS:
        pairs = np.empty((PAIRS, 2))
        for pair in pairs:
            for on in (False, True):
                switch(extra, on)
                pair[int(on)] = hop_us()
        switch(extra, False)
        low = np.percentile(pairs[rng.integers(0, PAIRS, (300, PAIRS))], 10, 1)
        plain, other = np.percentile(pairs, 10, 0)
        result[extra] = {
            "added_us": round(float(other - plain), 2),
            "interval_us": [round(float(q), 2) for q in np.percentile(low[:, 1] - low[:, 0], (2.5, 97.5))],
            "hop_us": round(float(plain), 1),
        }
    device.close()
    return result


def main() -> None:
    with one_core():
        print(json.dumps({f"{sr} Hz": measure(sr) for sr in (16_000, 48_000)}, indent=1))


if __name__ == "__main__":
    main()
