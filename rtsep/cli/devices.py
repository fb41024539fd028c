"""`rtsep devices`: what `rtsep live` can listen to and play on."""

from __future__ import annotations

import argparse
from typing import Any

EXIT_DEVICE = 3


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "devices",
        help="list the sound devices",
        description="List the sound devices: number, channels in and out, default rate, lowest latencies that they "
        "report, name and host API. A star marks the default input and output.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line per device."""
    import sys

    from rtsep.live import LiveError, list_devices

    try:
        devices = list_devices()
    except LiveError as problem:
        print(f"rtsep: {problem}", file=sys.stderr)
        return EXIT_DEVICE
    if not devices:
        print("rtsep: no sound devices found", file=sys.stderr)
        return EXIT_DEVICE
    print(f"{'':>3}  {'in':>4} {'out':>4} {'rate':>7}  {'latency in, out':>17}  device")
    for device in devices:
        inputs = f"{device.n_inputs}{'*' if device.default_input else ''}"
        outputs = f"{device.n_outputs}{'*' if device.default_output else ''}"
        latency = f"{1000 * device.input_latency_s:.1f}, {1000 * device.output_latency_s:.1f} ms"
        name = f"{device.name} ({device.host_api})"
        print(f"{device.index:3}  {inputs:>4} {outputs:>4} {device.sr:7}  {latency:>17}  {name}")
    return 0
