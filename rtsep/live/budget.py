"""The latency of a live stream where none is asked for: what the devices leave of 16 ms from microphone to ear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rtsep.config import ConfigError
from rtsep.live.stream import LiveStream
from rtsep.separator import Separator

BUDGET_MS = 16.0  # of the whole way
LATENCIES_MS = (16.0, 8.0, 4.0)
USUAL_MS = 8.0  # where the budget decides nothing
SILENT_MS = 1000.0  # fade-in that is longer than the devices are tried


class Fitted(NamedTuple):
    """A separator that fits the devices."""

    separator: Separator
    why: str  # it has its latency, in one line
    block: int  # samples that the devices deliver at a time; 0 if they were not tried


def largest_latency(devices_ms: float, lookahead_ms: dict[float, float]) -> tuple[float, str]:
    """The latency of the engine that the budget allows, in ms, and why, in one line.

    Parameters
    ----------
    devices_ms : float
        What the devices and all between them and the engine take; 0 where they do not report it.
    lookahead_ms : dict of float to float
        What the phase recovery waits for, for each of `LATENCIES_MS`.

    Returns
    -------
    latency_ms : float
        The largest of `LATENCIES_MS` that stays within `BUDGET_MS` in all; `USUAL_MS` where the devices' part is not
        known, and where no latency would do.
    why : str
    """
    usual = f"latency {USUAL_MS:g} ms:"
    if devices_ms <= 0:
        return USUAL_MS, f"{usual} the devices do not report their delay"
    for latency_ms in LATENCIES_MS:
        total_ms = latency_ms + lookahead_ms[latency_ms] + devices_ms
        if total_ms <= BUDGET_MS + 1e-9:
            return latency_ms, (
                f"latency {latency_ms:g} ms: the largest with at most {BUDGET_MS:g} ms in all, {total_ms:.1f} ms with "
                f"the {devices_ms:.1f} ms of the devices"
            )
    return USUAL_MS, f"{usual} with the {devices_ms:.1f} ms of the devices, none makes at most {BUDGET_MS:g} ms in all"


def try_devices(separator: Separator, *devices: Any, **settings: Any) -> tuple[dict[str, int], int]:
    """Ledger and block of a stream, which is opened for a moment; arguments as for `LiveStream`."""
    with LiveStream(separator, *devices, fade_in_ms=SILENT_MS, howling=False, **settings) as stream:
        return stream.ledger, stream.block


def fitting_separator(
    make: Callable[[float | None], Separator],
    input: int | str | None = None,
    output: int | str | None = None,
    block_size: int = 0,
    **settings: Any,
) -> Fitted:
    """A separator of the latency that fits the devices, which are opened for a moment.

    Parameters
    ----------
    make : callable
        `make(latency_ms)` makes a separator; of None, one with the latency of files.
    input, output, block_size, **settings
        As for `LiveStream`.

    Raises
    ------
    LiveError
        If the devices cannot be used as asked.
    ConfigError
        For settings that cannot work.
    """
    try:
        separator = make(USUAL_MS)
    except ConfigError as problem:
        separator = make(None)
        latency_ms = separator.config.times_ms["latency_ms"]
        return Fitted(separator, f"latency {latency_ms:.3g} ms: {problem}", 0)
    config, lookahead = separator.config, separator.phase.lookahead or 0
    ledger, block = try_devices(separator, input, output, block_size, **settings)
    reported = ledger["device in"] + ledger["device out"]
    between = sum(ledger.values()) - separator.latency
    lookahead_ms = {ms: 1000 * lookahead * config.at_latency(ms).hop_s for ms in LATENCIES_MS}
    latency_ms, why = largest_latency(1000 * between / config.sr if reported else 0.0, lookahead_ms)
    return Fitted(separator if latency_ms == USUAL_MS else make(latency_ms), why, block)
