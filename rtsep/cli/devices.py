"""`rtsep devices`: what `rtsep live` can listen to and play on."""

from __future__ import annotations

import argparse
from typing import Any

from rtsep.errors import LiveError


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "devices",
        help="list the sound devices",
        description="List the sound devices: number, channels in and out, default rate, lowest latencies that they "
        "report, name and host API. A star marks the default input and output.",
    )
    parser.set_defaults(run=run, modules=("rtsep.live.devices",))


def run(args: argparse.Namespace) -> int:
    """Print one line per device."""
    from rtsep.live.devices import list_devices

    devices = list_devices()
    if not devices:
        raise LiveError("there are no sound devices; connect one, or start the sound server (see `rtsep doctor`)")
    print(f"{'':>3}  {'in':>4} {'out':>4} {'rate':>7}  {'latency in, out':>17}  device")
    for device in devices:
        inputs = f"{device.n_inputs}{'*' if device.default_input else ''}"
        outputs = f"{device.n_outputs}{'*' if device.default_output else ''}"
        latency = f"{1000 * device.input_latency_s:.1f}, {1000 * device.output_latency_s:.1f} ms"
        name = f"{device.name} ({device.host_api})"
        print(f"{device.index:3}  {inputs:>4} {outputs:>4} {device.sr:7}  {latency:>17}  {name}")
    return 0
