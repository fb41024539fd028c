"""Sound devices that are files: they stand in for the module sounddevice, play from one array and record into another.

As fast as the callback is; a device can be pulled out at any sample, and put back.
"""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import cffi
import numpy as np
from scipy.signal import lfilter
from test_live_callback import CALLBACK

BLOCK = 160


class PortAudioError(Exception):
    """What sounddevice raises."""


class FileDevices:
    """A microphone that plays `x`, (n_samples,), and headphones; one device.

    `heard` is what was played so far, one array for each time that the device was opened; `position` the samples of
    `x` that were taken. Set `there` to False to pull it out; `feedback` are the
    coefficients (b, a) of a filter from headphones to microphone.
    """

    def __init__(self, x: np.ndarray, sr: int) -> None:
        self.x, self.sr, self.position, self.there = x.astype(np.float32), sr, 0, True
        self.heard: list[np.ndarray] = []
        self.opened = 0
        self.feedback: tuple[Any, Any] | None = None
        self.PortAudioError = PortAudioError
        self._ffi, self._lib, self._initialized = cffi.FFI(), None, 1
        self.default = SimpleNamespace(device=SimpleNamespace(_pair=(None, None)), hostapi=0)

    def query_hostapis(self, index: int | None = None) -> Any:
        side = 0 if self.there else -1
        api = {"name": "Files", "default_input_device": side, "default_output_device": side}
        return (api,) if index is None else api

    def query_devices(self) -> list[dict[str, Any]]:
        device = {
            "name": "file",
            "hostapi": 0,
            "max_input_channels": 1,
            "max_output_channels": 1,
            "default_samplerate": self.sr,
            "default_low_input_latency": 0,
            "default_low_output_latency": 0,
        }
        return [device] if self.there else []

    def check_input_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate != self.sr:
            raise PortAudioError("Invalid sample rate", -9997)

    check_output_settings = check_input_settings

    def _terminate(self) -> None:
        self._initialized -= 1

    def _initialize(self) -> None:
        self._initialized += 1

    def _StreamBase(self, **asked: Any) -> Stream:
        if not self.there:
            raise PortAudioError("Device unavailable", -9985)
        self.opened += 1
        return Stream(self, asked)


class Stream:
    """An open duplex stream with a thread that calls back."""

    def __init__(self, devices: FileDevices, asked: dict[str, Any]) -> None:
        assert asked["kind"] == "duplex"
        self._devices, self._ending = devices, threading.Event()
        address = {name: int(devices._ffi.cast("intptr_t", asked[name])) for name in ("callback", "userdata")}
        self._callback, self._user = CALLBACK(address["callback"]), address["userdata"]
        self.latency = (0.0, 0.0)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        devices, played = self._devices, []
        memory = np.zeros(2)
        while devices.there and not self._ending.is_set():
            block_in = np.zeros(BLOCK, np.float32)
            part = devices.x[devices.position : devices.position + BLOCK]
            block_in[: part.size] = part
            if played and devices.feedback:
                b, a = devices.feedback
                fed_back, memory = lfilter(b, a, played[-1], zi=memory)
                block_in += fed_back.astype(np.float32)
            block_out = np.zeros(BLOCK, np.float32)
            self._callback(block_in.ctypes.data, block_out.ctypes.data, BLOCK, None, 0, self._user)
            played.append(block_out)
            devices.position += BLOCK
            time.sleep(0.0005)
        devices.heard.append(np.concatenate(played))

    @property
    def active(self) -> bool:
        return self._thread.is_alive()

    def abort(self, ignore_errors: bool = True) -> None:
        self._ending.set()
        self._thread.join()

    def close(self, ignore_errors: bool = True) -> None:
        self.abort()
