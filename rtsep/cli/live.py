"""`rtsep live`: microphone to headphones."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rtsep.cli import EXIT_ERROR
from rtsep.cli.engine import (
    add_engine_options,
    add_gate_options,
    engine_settings,
    gate_settings,
    times_given,
    times_ms,
)
from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.presets import add_preset_options, with_preset
from rtsep.cli.signals import gently
from rtsep.cli.virtual import add_virtual_options, virtual_devices

if TYPE_CHECKING:
    from rtsep.cli.panel import Panel
    from rtsep.live import LiveStream, Stats

LINE_S = 1.0  # between two lines
INTERVAL_S = 0.05  # between two looks whether to stop


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "live",
        help="separate what comes from a microphone and play it",
        description="Separate what comes from an input device and play one source on an output device, until q or "
        "Ctrl-C. A terminal shows levels, load and delay, and its keys choose what is heard and the latency; a summary "
        "comes at the end. Mind feedback: use headphones.",
    )
    devices = parser.add_argument_group("devices", "`rtsep devices` lists them; number or part of the name.")
    devices.add_argument("--input", metavar="DEVICE", help="input device (default: the system's)")
    devices.add_argument("--output", metavar="DEVICE", help="output device (default: the system's)")
    add_virtual_options(devices)
    devices.add_argument("--rate", type=int, metavar="HZ", help="sample rate (default: that of the input device)")
    devices.add_argument(
        "--block", type=int, default=0, metavar="N", help="samples per callback (default: as the device likes)"
    )
    devices.add_argument(
        "--input-channels",
        type=_channels,
        metavar="N[,N...]",
        help="channels to listen to, from 1 (default: the first)",
    )
    devices.add_argument(
        "--output-channels", type=_channels, metavar="N[,N...]", help="channels to play on (default: the first two)"
    )
    devices.add_argument("--stereo", action="store_true", help="two channels, with one mask for both")
    parser.add_argument("--solo", metavar="SOURCE", help="source to hear, by name (default: the first)")
    parser.add_argument("--bypass", action="store_true", help="hear the mixture, with the same delay")
    parser.add_argument(
        "--input-gain", type=float, default=0.0, metavar="DB", help="of what comes in (default: %(default)g dB)"
    )
    parser.add_argument(
        "--output-gain", type=float, default=0.0, metavar="DB", help="of what is heard (default: %(default)g dB)"
    )
    parser.add_argument(
        "--no-howling",
        dest="howling",
        action="store_false",
        help="do not turn down what feeds back into the microphone",
    )
    parser.add_argument(
        "--record", type=given_path, metavar="DIR", help="folder for mixture.wav and a WAV of each source"
    )
    parser.add_argument(
        "--web",
        nargs="?",
        type=int,
        const=0,
        metavar="PORT",
        help="a panel in the browser, too, at an address of this computer that is printed (default port: a free one)",
    )
    parser.add_argument("--plain", action="store_true", help="print a line a second instead of the panel")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after so many seconds")
    add_engine_options(parser)
    add_gate_options(parser)
    add_preset_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.live", "rtsep.cli.panel"))


def run(args: argparse.Namespace) -> int:
    """Stream until interrupted, with the settings of a preset and between the virtual devices that are asked for."""
    chosen = with_preset(args)
    with virtual_devices(chosen):
        status = _stream(chosen)
    args.report = getattr(chosen, "report", {})
    return status


def _stream(args: argparse.Namespace) -> int:
    from rtsep.cli.panel import Panel, panel_fits
    from rtsep.config import StreamConfig, check_int, check_real
    from rtsep.live import LiveStream, find_device
    from rtsep.live.budget import fitting_separator
    from rtsep.live.record import recording_paths
    from rtsep.separator import Separator

    estimator, phase, output = engine_settings(args)
    gate = gate_settings(args)
    in_panel = not args.plain and not args.json and panel_fits()
    if in_panel:
        print("Getting ready; the first start compiles, which takes some seconds.", flush=True)
    if args.record is not None:
        recording_paths(args.record, estimator.sources)
    if args.web is not None:
        check_int("web", args.web, 0, 65535)
        import_module("rtsep.web")  # before anything starts
    if args.seconds is not None:
        check_real("seconds", args.seconds, 0, math.inf, " s")
    rate = find_device(args.input, "input").sr if args.rate is None else args.rate
    devices = {
        "input": args.input,
        "output": args.output,
        "block_size": args.block,
        "input_channels": args.input_channels,
        "output_channels": args.output_channels,
    }

    def make(**times: float | None) -> Separator:
        config = StreamConfig.from_ms(rate, n_channels=2 if args.stereo else 1, **times)
        return Separator(config, estimator, phase, gate=gate)

    if times_given(args):
        separator, why = make(**times_ms(args)), ""
    else:
        separator, why, _ = fitting_separator(lambda latency_ms: make(latency_ms=latency_ms), **devices)
    stream = LiveStream(
        separator,
        **devices,
        howling=args.howling,
        solo=args.solo,
        strength=1 - 10 ** (-output.strength_db / 20),
        bypass=args.bypass,
        input_gain_db=args.input_gain,
        output_gain_db=args.output_gain,
        record=args.record,
    )
    if why:
        stream.say(why)
    try:
        stream.start()
        # From here on the first signal ends the stream, and no other one disturbs the ending. Ctrl-C is how a stream
        # ends; SIGTERM and SIGHUP are passed on as such.
        with suppress(KeyboardInterrupt), gently(insist=False) as stopped, _unless_hung_up(stopped):
            with _served(stream, args.web):
                if in_panel:
                    _run_panel(Panel(stream), stream, stopped, args.seconds)
                else:
                    _print_start(stream)
                    _print_lines(stream, stopped, args.seconds)
            stats = stream.stats
            stream.close()
            _print_summary(stats)
            ledger = stream.ledger | {"latency": stream.latency}
            args.report = asdict(stats) | {"sr": separator.config.sr, "ledger": ledger, "sources": separator.sources}
    finally:
        stream.close()
    if stream.recording_problem:
        print(f"rtsep: the recording ended: {stream.recording_problem}", file=sys.stderr)
        return EXIT_ERROR
    return 0


@contextmanager
def _served(stream: LiveStream, port: int | None) -> Iterator[None]:
    """With the panel in the browser, if there is a port for it."""
    if port is None:
        yield
        return
    from rtsep.web import Server

    with Server(stream, port) as server:
        stream.messages.append(f"panel: {server.url}")  # not in the history, which the page shows
        yield


@contextmanager
def _unless_hung_up(stopped: Callable[[], bool]) -> Iterator[None]:
    """Where the terminal is closed, the signal counts and not that nothing can be written any more."""
    try:
        yield
    except OSError:
        time.sleep(INTERVAL_S)  # for the signal to come
        if not stopped():
            raise


def _run_panel(panel: Panel, stream: LiveStream, stopped: Callable[[], bool], seconds: float | None) -> None:
    panel.run(stopped, seconds)
    _print_start(stream)
    for message in panel.messages:
        print(message)


def _channels(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of channels such as 1,2") from None


def _print_start(stream: LiveStream) -> None:
    sr = stream.separator.config.sr
    print(f"{stream.input.name} -> {stream.output.name}, {sr} Hz, {', '.join(stream.separator.sources)}")
    for name, samples in (stream.ledger | {"latency": stream.latency}).items():
        print(f"  {name:12} {samples:5} samples {1000 * samples / sr:6.1f} ms")
    sys.stdout.flush()


def _print_lines(stream: LiveStream, stopped: Callable[[], bool], seconds: float | None) -> None:
    now = time.monotonic()
    end = math.inf if seconds is None else now + seconds
    while now < end and not stopped():
        line_at = min(now + LINE_S, end)
        while (now := time.monotonic()) < line_at and not stopped():
            time.sleep(min(INTERVAL_S, line_at - now))
        while stream.messages:
            print(stream.messages.popleft())
        print(_line(stream.stats), flush=True)


def _line(stats: Stats) -> str:
    levels = "  ".join(f"{name} {max(level, -99):4.0f} dB" for name, level in stats.levels_db.items())
    load = ", ".join(f"{name} {100 * share:.1f} %" for name, share in stats.hop_share.items())
    faults = f"late {stats.late_hops}, xruns {stats.xruns}, shed {stats.shed_iterations}"
    if stats.howls:
        faults += f", howls {stats.howls} (gain {stats.howl_gain_db:.0f} dB)"
    if stats.drift_ppm:
        faults += f", drift {stats.drift_ppm:+.0f} ppm"
    return f"{stats.elapsed_s:7.1f} s  {levels}  load {load}  {faults}"


def _print_summary(stats: Stats) -> None:
    print(
        f"{stats.elapsed_s:.1f} s in {stats.callbacks} callbacks: {stats.late_hops} of {stats.hops} hops late, "
        f"{stats.replaced_s:.2f} s replaced by the mixture, {stats.xruns} xruns, {stats.reconnects} reconnects"
    )
    if stats.recorded_s:
        print(f"recorded {stats.recorded_s:.1f} s, lost {stats.recording_lost_s:.1f} s")
