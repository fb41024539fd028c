"""The link of a live stream to its devices: found and opened, and again after they were gone."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from rtsep.errors import LiveError
from rtsep.live import callback as cb
from rtsep.live.connection import Connection, let_go_abandoned
from rtsep.live.devices import DEVICES, Device, find_device
from rtsep.live.processor import Processor
from rtsep.live.rings import write
from rtsep.live.routing import Routing

SILENT_S = 2.0  # without a callback for so long, a device counts as gone
PATIENCE_S = 0.2  # for the last fade-out


@dataclass(frozen=True)
class Asked:
    """The devices as they were asked for, and what they have to have.

    Parameters
    ----------
    input, output : int, str or None
        As for `LiveStream`.
    channels_in : list of int
        From 0.
    channels_out : list of int or None
    n_channels : int
        Of the separator.
    """

    input: int | str | None
    output: int | str | None
    channels_in: list[int]
    channels_out: list[int] | None
    n_channels: int

    def find(self) -> tuple[Device, Device]:
        """Input and output.

        Raises
        ------
        LiveError
            Where there are no such devices.
        """
        with DEVICES:
            input, output = find_device(self.input, "input"), find_device(self.output, "output")
        last_in, last_out = max(self.channels_in) + 1, max(self.channels_out or [0]) + 1
        if input.n_inputs < last_in:
            raise LiveError(f"input device {input.name!r} has {input.n_inputs} channels, no channel {last_in}")
        if output.n_outputs < last_out:
            raise LiveError(f"output device {output.name!r} has {output.n_outputs} channels, no channel {last_out}")
        if self.channels_out is None and output.n_outputs < self.n_channels:
            raise LiveError(
                f"output device {output.name!r} has {output.n_outputs} channels, not {self.n_channels}; use mono"
            )
        return input, output

    def played(self, output: Device) -> list[int]:
        """Channels of the output device, from 0."""
        return self.channels_out or list(range(min(output.n_outputs, max(2, self.n_channels))))


class Link:
    """The devices that call a processor back.

    Parameters
    ----------
    processor : Processor
    asked : Asked
    devices : (Device, Device)
        Input and output that were found.
    block_size : int

    Attributes
    ----------
    lock : RLock
        Whoever opens or closes, or needs everything to stay as it is, has it.
    input, output : Device
    state : str
        "running", "reconnecting" or "stopped".
    reconnects : int
    connection : Connection or None
    routing : Routing
        What the user has connected to the stream.
    """

    def __init__(self, processor: Processor, asked: Asked, devices: tuple[Device, Device], block_size: int) -> None:
        self._processor, self._asked, self._block_size = processor, asked, block_size
        self.input, self.output = devices
        self.lock = threading.RLock()
        self.state, self.reconnects = "stopped", 0
        self.connection: Connection | None = None
        self.routing = Routing()
        self._ledger = dict.fromkeys(("resampling", "bridge", "device in", "device out"), 0)
        self._breaks = 0  # of connections that are closed

    def open(self) -> None:
        """Let the devices call back.

        Raises
        ------
        LiveError
            If they cannot be opened.
        """
        driver = self._processor.driver
        driver.start()
        try:
            devices, live = (self.input, self.output), self._processor.live
            with DEVICES:
                self.routing.expect(devices)
                self.connection = Connection(
                    live,
                    self._processor.access,
                    devices,
                    self._asked.channels_in,
                    self._processor.separator.config.sr,
                    self._block_size,
                )
                self.routing.begin(devices, (max(self._asked.channels_in) + 1, live.route_out.size))
        except BaseException:
            self.routing.close()
            driver.stop()
            raise
        self.state = "running"

    def reopen(self) -> None:
        """Look for the devices again and begin anew on them; raises as `open`."""
        with DEVICES:
            self.input, self.output = self._asked.find()
            self._processor.reset()
            self.open()
            let_go_abandoned()
        self.reconnects += 1

    def close(self, lost: bool = False) -> None:
        """Close the devices; `lost`: they are gone."""
        if self.connection:  # else somebody may be searching for devices, without end
            self._ledger, self._breaks = self.ledger, self.breaks
            with DEVICES:
                self.connection.close(lost, self._processor.live)
                if not lost:
                    self.routing.close()
        self.connection = None
        self._processor.driver.stop()
        self.state = "stopped"

    def fade_out(self) -> bool:
        """Let what is heard go down, and be played, before the devices stop; whether they still call back."""
        if not self.active:
            return False
        live, start, before = self._processor.live, time.monotonic(), self._processor.callbacks
        write(live.commands, np.zeros_like(live.gains), 1)
        while live.gains.any() and time.monotonic() - start < PATIENCE_S:
            time.sleep(0.002)
        time.sleep(min(self.ledger["device out"] / self._processor.separator.config.sr, PATIENCE_S))
        # PortAudio would wait minutes for a JACK server that stands still.
        while live.counts[cb.CALLBACKS] == before and time.monotonic() - start < SILENT_S:
            time.sleep(0.002)
        return bool(live.counts[cb.CALLBACKS] != before)

    @property
    def active(self) -> bool:
        """Whether PortAudio takes the devices for running."""
        return self.connection is not None and self.connection.active

    @property
    def learning(self) -> bool:
        """Whether the ledger is not yet complete: a bridge learns, or no callback has shown the size of a block."""
        return self.connection is not None and (self.connection.learning or not self._processor.times.block)

    @property
    def ledger(self) -> dict[str, int]:
        """What the devices, and what is between them, add to the delay; the last that was known, in samples."""
        times = self._processor.times
        return self.connection.ledger(times.block, times.delay) if self.connection else self._ledger

    @property
    def breaks(self) -> int:
        """How often what passes a bridge was interrupted."""
        return self._breaks + (self.connection.breaks if self.connection else 0)

    @property
    def drift(self) -> float:
        """As `Connection.drift`."""
        return self.connection.drift if self.connection else 0.0
