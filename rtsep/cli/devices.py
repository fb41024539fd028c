"""`rtsep devices`: what `rtsep live` can listen to and play on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rtsep.errors import LiveError
from rtsep.quiet import quiet

if TYPE_CHECKING:
    from rtsep.live.devices import Device


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "devices",
        help="list the sound devices",
        description="List the sound devices by number and name: channels in and out, lowest latency that they report, "
        "sample rates that they accept just now. A star marks the default input, output and rate.",
    )
    parser.add_argument("--json", action="store_true", help="print a machine-readable list")
    parser.set_defaults(run=run, modules=("rtsep.live.devices",))


def run(args: argparse.Namespace) -> int:
    """Print the devices, one after the other: trying their rates takes time."""
    from rtsep.live.devices import list_devices, supported_rates

    with quiet():
        devices = list_devices()
    if not devices:
        raise LiveError("there are no sound devices; connect one, or start the sound server (see `rtsep doctor`)")
    found = []
    for device in devices:
        with quiet():
            rates = {
                "input_rates": supported_rates(device, "input") if device.n_inputs else [],
                "output_rates": supported_rates(device, "output") if device.n_outputs else [],
            }
        found.append(asdict(device) | rates)
        if not args.json:
            print(_text(device, **rates), flush=True)
    if args.json:
        print(json.dumps({"devices": found}, indent=2))
    return 0


def _text(device: Device, input_rates: list[int], output_rates: list[int]) -> str:
    lines = [f"{device.index:2}  {device.name} ({device.host_api})"]
    for side, n_channels, default, latency_s, rates in (
        ("in", device.n_inputs, device.default_input, device.input_latency_s, input_rates),
        ("out", device.n_outputs, device.default_output, device.output_latency_s, output_rates),
    ):
        if n_channels:
            star = "*" if default else ""
            channels = f"{n_channels} channel{'s' if n_channels > 1 else ''}"
            khz = [f"{sr / 1000:g}{'*' if sr == device.sr else ''}" for sr in rates]
            accepted = " ".join([*khz, "kHz"]) if khz else "no usual rate, perhaps it is in use"
            lines.append(f"    {side + star:4} {channels:>12} {1000 * latency_s:6.1f} ms  {accepted}")
    return "\n".join(lines)
