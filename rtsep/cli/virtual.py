"""The virtual devices of `rtsep live`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rtsep.cli.engine import engine_settings
from rtsep.errors import ConfigError, LiveError

if TYPE_CHECKING:
    from rtsep.live.virtual import VirtualDevice

# What kind of device an option makes, which side of the stream it is, and which side the desktop's is then.
SIDES = {"mic": ("microphone", "output", "input"), "speaker": ("speaker", "input", "output")}


def add_virtual_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that `virtual_devices` reads."""
    group.add_argument(
        "--virtual-mic",
        nargs="?",
        const="",
        metavar="NAME",
        help="play into a microphone that other programs can choose, there as long as this runs (default NAME: rtsep "
        "and the source); on PipeWire",
    )
    group.add_argument(
        "--virtual-speaker",
        nargs="?",
        const="",
        metavar="NAME",
        help="listen to a loudspeaker that other programs can choose (default NAME: rtsep speaker); on PipeWire",
    )


def asked_devices(args: argparse.Namespace) -> dict[str, VirtualDevice]:
    """The devices that are asked for, by their options; nothing is made yet. Raises `ConfigError`."""
    from rtsep.live.virtual import VirtualDevice

    devices = {}
    for option, (kind, side, _) in SIDES.items():
        name = getattr(args, f"virtual_{option}")
        if name is None:
            continue
        if getattr(args, side) is not None:
            raise ConfigError(f"--virtual-{option} is the {side} itself; leave --{side} out")
        if not name:
            name = (
                "rtsep speaker" if option == "speaker" else f"rtsep {args.solo or engine_settings(args)[0].sources[0]}"
            )
        devices[option] = VirtualDevice(kind, name, 2 if args.stereo else 1)
    return devices


@contextmanager
def virtual_devices(args: argparse.Namespace) -> Iterator[None]:
    """Make the devices that are asked for, name them in `args.input` and `args.output`, and take them down at the end.

    Raises
    ------
    ConfigError, LiveError
        As `VirtualDevice`.
    """
    from rtsep.live import find_device

    devices = asked_devices(args)
    with ExitStack() as stack:
        for option, device in devices.items():
            stack.enter_context(device)
            setattr(args, SIDES[option][1], device.name)
            for left in device.removed:
                print(f"removed {left}, which an rtsep that was killed had left", flush=True)
        for option, device in devices.items():
            _, side, other = SIDES[option]
            if getattr(args, other) is None:
                setattr(args, other, device.partner())
            try:
                find_device(device.name, side)
            except LiveError as problem:
                raise LiveError(
                    f"PortAudio does not see the virtual {device.kind}; install PipeWire's library for clients of "
                    "JACK: apt install pipewire-jack"
                ) from problem
            print(f"virtual {device.kind} {device.name!r}: choose it in your programs", flush=True)
        yield
