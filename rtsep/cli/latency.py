"""`rtsep latency`: the real round trip next to the promised one."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from rtsep.cli.engine import add_engine_options, engine_settings, times_given, times_ms
from rtsep.cli.progress import progress_bar

if TYPE_CHECKING:
    from rtsep.live import LiveStream
    from rtsep.live.roundtrip import Delay, RoundTrip

DESCRIPTION = """\
Measure how long sound takes from input to output, and compare with what is promised. Connect the output to
the input first: a cable from the first output to the first input, or the headphone held to the microphone.
Plays sweeps, half of them through the engine and half past it, and finds them in what comes in.
"""
EPILOG = """\
Many devices settle at another delay every time they are opened: run it more than once. What takes more
than half a second, such as some wireless headphones, is not found.

Exit status: 0 if it was measured, whatever the result; 2 for wrong settings; 3 if the devices cannot be used
or nothing comes back; 129, 130 or 143 if interrupted.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "latency",
        help="measure the delay from input to output, with a cable",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    devices = parser.add_argument_group("devices", "`rtsep devices` lists them; number or part of the name.")
    devices.add_argument("--input", metavar="DEVICE", help="input device (default: the system's)")
    devices.add_argument("--output", metavar="DEVICE", help="output device (default: the system's)")
    devices.add_argument("--rate", type=int, metavar="HZ", help="sample rate (default: that of the input device)")
    devices.add_argument(
        "--block", type=int, default=0, metavar="N", help="samples per callback (default: as the device likes)"
    )
    devices.add_argument(
        "--input-channel", type=int, default=1, metavar="N", help="channel to listen to, from 1 (default: the first)"
    )
    devices.add_argument(
        "--output-channel", type=int, metavar="N", help="channel to play on, from 1 (default: the first two)"
    )
    parser.add_argument(
        "--level", type=float, default=-20.0, metavar="DBFS", help="peak level of the sweeps (default: %(default)g)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="sweeps past and through the engine (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print a machine-readable report, delays in samples")
    add_engine_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.live.roundtrip",))


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from rtsep.config import StreamConfig
    from rtsep.live import find_device
    from rtsep.live.budget import fitting_separator
    from rtsep.live.roundtrip import measure_round_trip
    from rtsep.separator import Separator

    estimator, phase, _ = engine_settings(args)
    rate = find_device(args.input, "input").sr if args.rate is None else args.rate

    def make(**times: Any) -> Separator:
        return Separator(StreamConfig.from_ms(rate, **times), estimator, phase)

    if times_given(args):
        separator = make(**times_ms(args))
    else:
        separator, why, _ = fitting_separator(
            lambda latency_ms: make(latency_ms=latency_ms),
            args.input,
            args.output,
            args.block,
            input_channels=[args.input_channel],
            output_channels=None if args.output_channel is None else [args.output_channel],
        )
        print(f"rtsep: {why}", file=sys.stderr, flush=True)
    names: dict[str, str] = {}

    def warn(stream: LiveStream) -> None:
        names.update(input=stream.input.name, output=stream.output.name)
        print(
            f"rtsep: playing {2 * args.repeats} sweeps with peaks of {args.level:g} dBFS on {stream.output.name!r}; "
            "take headphones off your ears",
            file=sys.stderr,
            flush=True,
        )

    with progress_bar("measuring") as progress:
        trip = measure_round_trip(
            separator,
            args.input,
            args.output,
            args.block,
            input_channel=args.input_channel,
            output_channel=args.output_channel,
            repeats=args.repeats,
            level_db=args.level,
            ready=warn,
            progress=progress,
        )
    settings = {
        **names,
        "sr": rate,
        "block_size": args.block,
        "estimator": estimator.name,
        "phase": phase.name,
        "level_db": args.level,
    }
    print(json.dumps(_report(settings, trip), indent=2, allow_nan=False) if args.json else _text(settings, trip))
    return 0


def _report(settings: dict[str, Any], trip: RoundTrip) -> dict[str, Any]:
    measured = {"engine": trip.engine, "devices": trip.devices, "total": trip.total}
    return {
        "settings": settings,
        "loop": {
            "gain_db": trip.gain_db,
            "inverted": trip.inverted,
            "clipped": trip.clipped,
            "noise_db": trip.noise_db,
            "snr_db": trip.snr_db,
            "peak_to_noise_db": trip.peak_to_noise_db,
        },
        "promised": trip.promised | _sums(trip),
        "measured": {
            name: {"median": delay.median, "spread": delay.spread, "repeats": list(delay.repeats)}
            for name, delay in measured.items()
        },
        "discarded": trip.discarded,
        "remarks": trip.remarks,
    }


def _sums(trip: RoundTrip) -> dict[str, int]:
    return {
        "engine": trip.promised_engine,
        "devices": trip.promised_devices,
        "total": trip.promised_engine + trip.promised_devices,
    }


def _text(settings: dict[str, Any], trip: RoundTrip) -> str:
    from rtsep.live.roundtrip import ENGINE_PARTS

    block = f"blocks of {settings['block_size']}" if settings["block_size"] else "blocks as the device likes"
    engine = f"{settings['estimator']} + {settings['phase']}"
    sums, width = _sums(trip), max(map(len, trip.promised)) + 4

    def line(name: str, samples: int, delay: Delay | None = None) -> str:
        text = f"{name:{width}}{samples:9}{1000 * samples / trip.sr:9.2f}"
        if delay:
            text += f"{delay.median:12.2f}{1000 * delay.median / trip.sr:9.2f}{delay.spread:9.2f}"
        return text

    parts = {name: line(f"  {name}", samples) for name, samples in trip.promised.items()}
    lines = [
        f"{settings['output']} -> {settings['input']}, {trip.sr} Hz, {block}, {engine}",
        f"loop: gain {round(trip.gain_db, 1) + 0.0:.1f} dB, noise {trip.noise_db:.0f} dBFS, signal to noise "
        f"{trip.snr_db:.0f} dB, correlation peak to noise {trip.peak_to_noise_db:.0f} dB",
        f"{'':{width}}{'promised':>9}{'ms':>9}{'measured':>12}{'ms':>9}{'spread':>9}",
        *(parts.pop(name) for name in ENGINE_PARTS),
        line("engine", sums["engine"], trip.engine),
        *parts.values(),
        line("devices", sums["devices"], trip.devices),
        line("total", sums["total"], trip.total),
        f"samples; medians and spreads (largest - smallest) of {len(trip.total.repeats)} repeats",
    ]
    remarks = trip.remarks or ["what was measured agrees with what is promised"]
    return "\n".join(lines + [f"note: {remark}" for remark in remarks])
