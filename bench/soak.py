"""A live stream for minutes beside busy processes: is what is heard continuous, and does the delay stay?

python bench/soak.py [-m MINUTES] [-b BUSY]

16 kHz, JACK period 64 (4 ms), estimator passthrough, so that what is heard must be what was played, one latency
later. Needs what the live tests need: PortAudio, jackd, JACK-Client. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from jackd import JackServer, Player

from rtsep import Separator, StreamConfig
from rtsep.live import LiveStream

SR, PERIOD = 16_000, 64
SPIN = "while True: pass"


def soak(minutes: float, n_busy: int) -> dict[str, object]:
    """Play noise through a live stream by the clock and compare what comes out."""
    n = round(60 * minutes * SR)
    x = (0.1 * np.random.default_rng(0).standard_normal(n)).astype(np.float32)
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(n_busy)]
    try:
        with (
            JackServer(SR, PERIOD, realtime=True) as server,
            LiveStream(Separator(StreamConfig(SR), "passthrough"), fade_in_ms=0) as stream,
        ):
            player = Player(server, x[None], tail=SR)
            player.breath = n + 2 * SR  # never holds the server up
            start = time.monotonic()
            heard = player.run(60 * minutes + 60, freewheel=False)[0]
            elapsed = time.monotonic() - start
            stats, latency = stream.stats, stream.latency
    finally:
        for process in busy:
            process.kill()
    # The delay in every second that was heard as it was played, by correlation.
    delays = []
    for at in range(SR, n - SR, SR):
        size = 1 << 16
        match = np.fft.irfft(np.fft.rfft(heard[at : at + 2 * SR], size) * np.conj(np.fft.rfft(x[at : at + SR], size)))
        delays.append(int(np.argmax(match)))
    played = x[: len(heard) - latency]
    as_played = np.isclose(heard[latency : latency + len(played)], played, atol=1e-6)
    return {
        "minutes": minutes,
        "busy_processes": n_busy,
        "clock_s_per_audio_s": elapsed / (len(heard) / SR),
        "callbacks": stats.callbacks,
        "late_callbacks_share": stats.late_callbacks / stats.callbacks,
        "interval_ms": stats.interval_ms,
        "hop_share": stats.hop_share,
        "xruns": stats.xruns,
        "late_hops": stats.late_hops,
        "replaced_s": stats.replaced_s,
        "share_heard_as_played": float(as_played.mean()),
        "latency": latency,
        "seconds_with_that_delay": delays.count(latency),
        "seconds": len(delays),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--minutes", type=float, default=10)
    parser.add_argument("-b", "--busy", type=int, default=2, help="processes that keep a core busy each")
    args = parser.parse_args()
    print(json.dumps(soak(args.minutes, args.busy), indent=1))


if __name__ == "__main__":
    main()
