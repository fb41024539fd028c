"""The connection of a live stream to its devices: one PortAudio stream, or two with a bridge between them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import WeakSet

import numpy as np

from rtsep.errors import LiveError
from rtsep.kernels.memory import memory
from rtsep.live.bridge import DRIFT, RUNNING, UNDERRUNS, compiled_callbacks, delays, prepare_bridge
from rtsep.live.callback import Access, LiveState, compiled_callback
from rtsep.live.devices import JACK, Device, abandon, explained, portaudio, supports
from rtsep.live.guard import guarded
from rtsep.live.jack import server_identity
from rtsep.live.pointers import Handle
from rtsep.live.uninterrupted import uninterrupted

HALF_RANGE = 1 << 31  # of what JACK counts samples with

# Connections whose devices may still call back, one day; with the state that they work on.
_ABANDONED: list[tuple[Connection, LiveState | None]] = []
_OPEN: WeakSet[Connection] = WeakSet()


def anything_open() -> bool:
    """Whether there is a connection whose devices a new search would close."""
    return bool(_OPEN)


def let_go_abandoned() -> None:
    """Close connections that were given up because their server stood still, if the same one goes on.

    Their ports would stay on its graph. With a server that is gone, nothing of them is left there.
    """
    for kept in list(_ABANDONED):
        if kept[0].let_go():
            _ABANDONED.remove(kept)


def one_clock(input: Device, output: Device) -> bool:
    """Whether it is certain that both run by the same clock."""
    return input.index == output.index or input.host_api == output.host_api == JACK


def _close_with(library: Any, streams: list[Any]) -> None:
    for stream in streams:
        library.Pa_AbortStream(stream)
        library.Pa_CloseStream(stream)
    library.Pa_Terminate()


class Connection:
    """Opens the devices and lets them call back until it is closed.

    One PortAudio stream if both run at the engine's rate by the same clock, which is certain for one device and
    for all of a JACK server; otherwise one each, and a bridge.

    Parameters
    ----------
    live : LiveState
        State of the engine's callback.
    access : Access
        The way to it.
    devices : (Device, Device)
        Input and output.
    channels : list of int
        Channels of the input device that are used, from 0.
    sr : int
        Rate of the engine in Hz.
    block_size : int
        Samples per callback; 0 leaves it to the devices.

    Raises
    ------
    LiveError
        If the devices cannot be opened.
    """

    def __init__(
        self,
        live: LiveState,
        access: Access,
        devices: tuple[Device, Device],
        channels: list[int],
        sr: int,
        block_size: int,
    ) -> None:
        input, output = devices
        self._devices, self._sr, self._block_size = devices, sr, block_size
        n_in, n_out = max(channels) + 1, live.route_out.size
        sr_in = sr if supports(input, "input", n_in, sr) else input.sr
        sr_out = sr if supports(output, "output", n_out, sr) else output.sr
        engine = compiled_callback()
        self._streams: list[Any] = []
        self._left: list[Any] = []  # of these, after they were given up
        self._first_block = self._round_trip = 0
        self._library = portaudio()._lib
        self._server = server_identity()
        # A device that was given up as lost may come back when the next connection works on the same state.
        self._connected = np.array([True])
        self._engine = self._handle = Handle(access._replace(connected=self._connected))
        self._bridge = None
        _OPEN.add(self)
        try:
            if one_clock(input, output) and sr_in == sr_out == sr:
                live.route_in[:] = n_in, *channels
                self._open("duplex", (input.index, output.index), sr, (n_in, n_out), engine)
                return
            # To the engine the bridge is a device with the channels that are used.
            live.route_in[:] = range(-1, len(channels))
            live.route_in[0] = len(channels)
            self._bridge = prepare_bridge((sr_in, sr, sr_out), n_in, channels, n_out, float(live.monitor.ceiling[0]))
            for array in memory(self._bridge):
                np.copyto(array, array.copy())  # touches every page
            self._bridge.engine[:] = engine.address, self._engine.address
            self._handle = Handle(self._bridge)
            capture, play = compiled_callbacks()
            self._open("input", input.index, sr_in, n_in, capture)
            self._open("output", output.index, sr_out, n_out, play)
        except BaseException:  # Ctrl-C, too: the callbacks must not outlive what they work on
            uninterrupted(self.close)
            raise

    def _open(self, kind: str, index: Any, sr: int, n_channels: Any, callback: Any) -> None:
        sounddevice = portaudio()
        names = {"input": self._devices[:1], "output": self._devices[1:]}.get(kind, self._devices)
        what = f"{'' if kind == 'duplex' else kind + ' '}device " + " and ".join(
            dict.fromkeys(repr(d.name) for d in names)
        )
        with explained(what, sr):
            self._streams.append(
                sounddevice._StreamBase(
                    kind=kind,
                    samplerate=sr,
                    blocksize=self._block_size,
                    device=index,
                    channels=n_channels,
                    dtype="float32",
                    latency="low",
                    clip_off=True,
                    dither_off=True,
                    callback=sounddevice._ffi.cast("void *", callback.address),
                    userdata=sounddevice._ffi.cast("void *", self._handle.address),
                )
            )
            self._streams[-1].start()

    @property
    def active(self) -> bool:
        """Whether PortAudio still takes the devices for running."""
        return bool(self._streams) and not self._given_up and all(stream.active for stream in self._streams)

    @property
    def _given_up(self) -> bool:
        """Whether another connection has found out that PortAudio has to be left as it is."""
        return self._library is not portaudio()._lib

    @property
    def learning(self) -> bool:
        """Whether a bridge does not yet know how much it needs in store; till then silence is heard."""
        return self._bridge is not None and self._bridge.phase[0] != RUNNING

    @property
    def breaks(self) -> int:
        """How often what passes the bridge was interrupted."""
        return 0 if self._bridge is None else int(self._bridge.counts[UNDERRUNS:].sum())

    @property
    def drift(self) -> float:
        """By how much the input's clock runs faster than the output's, relative to 1, as learned so far."""
        return 0.0 if self._bridge is None else float(self._bridge.loop[DRIFT])

    def ledger(self, block: int, delay: int) -> dict[str, int]:
        """What the connection adds to the delay, in samples of the engine; the devices' part as they report it.

        `block` is what they deliver at a time, and `delay` what callbacks are told; 0 before they are.
        """
        latency = [stream.latency for stream in self._streams]
        reported = (latency[0] if self._bridge is None else latency) or (0, 0)
        device_in, device_out = (round(seconds * self._sr) for seconds in reported)
        if self._bridge is None:
            to_now = self._of_jack if self._devices[0].host_api == JACK else self._of_others
            device_in, device_out = to_now(device_in, device_out, block, delay)
        resampling, store = (0, 0) if self._bridge is None else delays(self._bridge)
        return {"resampling": resampling, "bridge": store, "device in": device_in, "device out": device_out}

    def _of_others(self, device_in: int, device_out: int, block: int, delay: int) -> tuple[int, int]:
        """What PortAudio reports is as old as the stream; what it tells the callbacks is true now.

        Through PipeWire's devices of ALSA it changes by whole blocks. Less is jitter of the clocks.
        """
        self._round_trip = self._round_trip or device_in + device_out
        if delay and abs(delay - self._round_trip) > block // 4:
            self._round_trip = delay
        device_in = min(device_in, self._round_trip)
        return device_in, self._round_trip - device_in

    def _of_jack(self, device_in: int, device_out: int, block: int, _delay: int) -> tuple[int, int]:
        """What PortAudio takes from the latencies of JACK's ports is unsigned and as old as the stream.

        It subtracts a period, which PipeWire does not count for devices that have no delay of their own.
        """
        device_in, device_out = ((n + HALF_RANGE) % (2 * HALF_RANGE) - HALF_RANGE for n in (device_in, device_out))
        if self._block_size:
            period = -device_in
        else:
            self._first_block = self._first_block or block
            device_out += block - self._first_block
            period = block
        # What was put out in one period comes in no earlier than in the next.
        return max(0, device_in), max(device_out, period + self._block_size)

    def let_go(self) -> bool:
        """Close what was given up, if its server goes on: with the library that was left with it."""
        if not self._left or self._server != server_identity():
            return False
        streams, self._left = self._left, []
        # Nobody initialises this library again.
        if not guarded(lambda: _close_with(self._library, [stream._ptr for stream in streams])):
            return False
        self._handle.release()
        self._engine.release()
        return True

    def _close_streams(self) -> None:
        for stream in self._streams:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    def close(self, lost: bool = False, live: LiveState | None = None) -> None:
        """Let the devices go; `lost`: they are gone. `live`, in which a callback may hang, is kept then."""
        jack = any(device.host_api == JACK for device in self._devices)
        gone = self._given_up or (jack and (lost or not self.active))
        # The server may go at this very moment.
        if self._streams and (gone or (jack and not guarded(self._close_streams))):
            self._connected[0] = False
            if self._server is not None and gone:
                self._left = list(self._streams)
            _ABANDONED.append((self, live))
            if not self._given_up:
                with suppress(LiveError):  # a full disk: who searches for devices tries again, and says so
                    abandon()
        else:
            if not jack:
                self._close_streams()
            self._handle.release()
            self._engine.release()
        self._streams = []
        _OPEN.discard(self)
