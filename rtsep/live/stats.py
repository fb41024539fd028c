"""What a live stream reports about itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.live import callback as cb
from rtsep.live.howling import gain_db, howls
from rtsep.live.link import Link
from rtsep.live.processor import Processor
from rtsep.live.record import Recorder


@dataclass(frozen=True)
class Stats:
    """A live stream at one moment; counts are since its start.

    Parameters
    ----------
    state : str
        "running", "reconnecting" or "stopped".
    elapsed_s : float
        Seconds of audio.
    callbacks, hops : int
    xruns : int
        Callbacks that PortAudio flagged with an under- or overflow of input or output, and gaps between two clocks.
    late_hops : int
        Hops that took longer than they last, or that the worker delivered too late.
    skipped_hops : int
        Hops that were left out so that the machine could catch up.
    replaced_s : float
        Seconds for which the replacement was heard instead of the sources.
    shed_iterations : int
        Iterations of the phase recovery that were left out in time.
    hop_share : dict of str to float
        "median", "p999" and "max" of the time a hop took, as a share of its duration.
    late_callbacks : int
        Callbacks that came more than half a block late.
    interval_ms : dict of str to float
        The same of the time between the starts of two callbacks, in ms.
    levels_db : dict of str to float
        RMS level in dBFS of "mixture" and of each source, over about 0.3 s.
    heard_db : float
        The same of what is heard.
    clipped : int
        Samples that came in at full scale or beyond: the gain before this program is too high.
    limited, muted : int
        Samples at which a limiter worked, of the sources or of what is heard, and that were not finite.
    presence : dict of str to float
        How much of each source there is now, 0 to 1, as the gate judges it.
    reconnects : int
    howls : int
        How often howling was turned down.
    howl_gain_db : float
        The gain that this has left, 0 dB when nothing howls.
    drift_ppm : float
        By how many millionths the input's clock is faster than the output's, where they are bridged.
    recording : bool
    recorded_s, recording_lost_s : float
        Seconds of the last recording that were written, and of all that were not since the disk was too slow.
    """

    state: str
    elapsed_s: float
    callbacks: int
    hops: int
    xruns: int
    late_hops: int
    skipped_hops: int
    replaced_s: float
    shed_iterations: int
    hop_share: dict[str, float]
    late_callbacks: int
    interval_ms: dict[str, float]
    levels_db: dict[str, float]
    heard_db: float
    clipped: int
    limited: int
    muted: int
    presence: dict[str, float]
    reconnects: int
    howls: int
    howl_gain_db: float
    drift_ppm: float
    recording: bool
    recorded_s: float
    recording_lost_s: float


def summarise(processor: Processor, link: Link, recorder: Recorder | None) -> Stats:
    """The statistics of a stream, with the lock of `link`."""
    processor.times.collect()
    live, times, put_right, config = processor.live, processor.times, processor.put_right, processor.separator.config
    counts = live.counts
    *levels, heard = (float(level) for level in 10 * np.log10(np.maximum(live.energies, 1e-20)))
    return Stats(
        state=link.state,
        elapsed_s=int(counts[cb.SAMPLES]) / config.sr,
        callbacks=processor.callbacks,
        hops=int(counts[cb.HOPS]),
        xruns=int(counts[cb.XRUNS]) + link.breaks,
        late_hops=int(counts[cb.LATE]),
        skipped_hops=int(counts[cb.SKIPPED]),
        replaced_s=int(counts[cb.REPLACED]) / config.sr,
        shed_iterations=int(processor.driver.shed[0]),
        hop_share=times.hops.summary(1e9 * config.hop_s),
        late_callbacks=times.late,
        interval_ms=times.intervals.summary(1e6),
        levels_db=dict(zip(("mixture", *processor.separator.sources), levels, strict=True)),
        heard_db=heard,
        clipped=int(counts[cb.CLIPPED]),
        limited=int(live.monitor.limited[0]) + put_right["limited"],
        muted=int(live.monitor.muted[0]) + put_right["muted"],
        presence=processor.separator.presence,
        reconnects=link.reconnects,
        howls=howls(live.howling),
        howl_gain_db=gain_db(live.howling),
        drift_ppm=1e6 * link.drift,
        recording=bool(live.taps[0]),
        recorded_s=(recorder.n_samples if recorder else 0) / config.sr,
        recording_lost_s=int(counts[cb.TAP_LOST]) / config.sr,
    )
