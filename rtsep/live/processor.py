"""What a live stream runs between its devices: the state of the callback, and the driver of the separator."""

from __future__ import annotations

import ctypes
from collections import Counter

import numpy as np

from rtsep.engine.output import Output
from rtsep.kernels.memory import memory, zeros
from rtsep.live import callback as cb
from rtsep.live.driver import Driver
from rtsep.live.native import NativeDriver
from rtsep.live.pointers import Handle
from rtsep.live.rings import write
from rtsep.live.times import Times
from rtsep.separator import Separator

TAP_S = 4.0  # how long the disk may be busy before a recording loses samples;
TAP_BYTES = 1 << 24  # with many channels, less
SCOPE_S = 0.25  # how long who looks on may be busy; longer, and the ring would not stay in the cache
PHASE_SHARE = 0.7  # of a hop, after which the phase recovery starts no further iteration
FOREVER = 1 << 62  # ns


class Processor:
    """Makes what is heard out of what comes in, whichever devices call it back.

    Parameters
    ----------
    separator : Separator
    driver : Driver
        Of that separator.
    n_in : int
        Channels that the input device is opened with.
    played : list of int
        Channels of the output device, from 0, that play those of the separator, one after the other and over again.
    monitor : Output
        The output stage of what is heard.
    late : {"mixture", "silence", "wait"}
    howling : bool
        Whether howling is listened for.

    Attributes
    ----------
    live : LiveState
    access : Access
        The devices' way to it.
    times : Times
    goals : ndarray, float32, (1 + n_src,)
        The gains of mixture and sources that are wanted.
    trims : ndarray, float32, (2,)
        The same of what comes in, and of all that is heard.
    put_right : Counter
        Samples that the separator had to limit or to mute, by what was done.
    """

    def __init__(
        self,
        separator: Separator,
        driver: Driver,
        n_in: int,
        played: list[int],
        monitor: Output,
        late: str,
        howling: bool,
    ) -> None:
        config = separator.config
        row_bytes = 4 * (1 + separator.n_src) * config.n_channels
        self.separator, self.driver = separator, driver
        self.live = live = cb.prepare_live(
            config,
            separator.n_src,
            n_in,
            max(played) + 1,
            separator.latency + driver.prefill,
            monitor,
            min(round(TAP_S * config.sr), TAP_BYTES // row_bytes),
            min(round(SCOPE_S * config.sr), TAP_BYTES // row_bytes),
        )._replace(deadline=driver.deadline)
        live.route_out[:] = -1
        live.route_out[played] = np.arange(len(played)) % config.n_channels
        self._waits = late == "wait"
        self._run(live, separator, driver)
        live.fallback[0] = late == "mixture"
        live.listens[0] = howling
        self.times, self.goals = Times(live.times, config.sr), live.goals.copy()
        self.trims = live.trim_goals.copy()
        self._put_right: Counter[str] = Counter()  # before the last reset
        self._fresh = [array.copy() for array in memory(live)]
        self._handle = Handle(live)
        self._before: tuple[Handle, Driver] | None = None
        self.access = cb.Access(
            np.array([True]), np.array([live.route_out.size]), np.array([self._handle.address]), zeros(1, np.int64)
        )
        self._warm_up()

    def _run(self, live: cb.LiveState, separator: Separator, driver: Driver) -> None:
        """Let a state run a separator."""
        hop_ns = round(1e9 * separator.config.hop_s)
        live.process[:] = driver.function, driver.pointer
        live.limits[:] = (FOREVER, FOREVER, 0) if self._waits else (PHASE_SHARE * hop_ns, hop_ns, 1)

    def _warm_up(self) -> None:
        """One callback on silence, so that the first real one meets nothing for the first time."""
        n, live = self.separator.config.hop, self.live
        device_in = np.zeros(n * int(live.route_in[0]), np.float32)
        device_out = np.zeros(n * live.route_out.size, np.float32)
        call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_ulong, ctypes.c_void_p,
                                ctypes.c_ulong, ctypes.c_void_p)(cb.compiled_callback().address)  # fmt: skip
        handle = Handle(self.access)
        self.driver.reset()
        cb.hand_over(self.access, 0)  # compiled now
        call(device_in.ctypes.data, device_out.ctypes.data, n, None, 0, handle.address)
        handle.release()
        self._restore()  # which also touches every page

    def _restore(self) -> None:
        for array, values in zip(memory(self.live), self._fresh, strict=True):
            np.copyto(array, values)

    def reset(self) -> None:
        """A new beginning after a break, with what is wanted now; counts go on. Not while the callback runs."""
        self.access.current[0], self.access.following[0] = self._handle.address, 0
        live = self.live
        tap, scope, monitor, alarms = live.tap, live.scope, live.monitor, live.howling.alarms
        kept = [live.counts, monitor.muted, monitor.limited, alarms, live.taps, live.scopes, self.driver.shed]
        kept += [tap.written, tap.read, scope.written, scope.read]
        values = [array.copy() for array in kept]
        self._put_right.update(self.separator.counts)
        self.driver.reset()
        self._restore()
        for array, value in zip(kept, values, strict=True):
            array[:] = value
        live.goals[:] = live.gains[:] = self.goals  # commands that no callback has read are gone
        live.trim_goals[:] = live.trims[:] = self.trims
        self.times.interrupt()

    def pass_on(self, running: bool) -> bool:
        """The goals to the callback; False if it is `running` and has not yet read those before."""
        if running and self.followed:
            return bool(write(self.live.commands, self.goals, 1))
        if running:  # what will be heard begins with them
            self.live.goals[:] = self.goals
            return True
        self.live.goals[:] = self.live.gains[:] = self.goals
        return True

    def trim(self, running: bool) -> None:
        """The gains of input and output to the callback, which reads them anew each time."""
        self.live.trim_goals[:] = self.trims
        if not running:
            self.live.trims[:] = self.trims

    @property
    def switchable(self) -> bool:
        """Whether the separator can be exchanged: what runs in the callback itself can."""
        return isinstance(self.driver, NativeDriver)

    def follow(self, separator: Separator, running: bool) -> bool:
        """Exchange the separator for another one of the same sources, between a fade-out and a fade-in.

        False, and nothing is done, if a callback that is `running` has not yet done what it was told before. The state
        before is kept until the next exchange, when no callback can be in it any more.
        """
        if not self.followed:
            return False
        driver = NativeDriver(separator)
        live = cb.succeed(self.live, separator.config, separator.latency)._replace(deadline=driver.deadline)
        self._run(live, separator, driver)
        live.goals[:] = self.goals
        live.gains[:] = -separator.latency * live.steps[0]  # zero when the first sample comes out
        handle = Handle(live)
        if running and not write(self.live.commands, np.zeros_like(self.goals), 1):
            handle.release()
            driver.close()
            return False
        self.live.fallback[:] = 0  # a late hop must not bring back what fades out
        fresh = {id(array): values for array, values in zip(memory(self.live), self._fresh, strict=True)}
        self._fresh = [fresh[id(array)] if id(array) in fresh else array.copy() for array in memory(live)]
        monitor = live.monitor
        for array, values in zip(memory(live), self._fresh, strict=True):
            if array is monitor.fade and values[0] < 0:  # until the first sample comes out
                values += (self.separator.latency - separator.latency) * monitor.fade_step
        driver.shed[:] = self.driver.shed
        self._put_right.update(self.separator.counts)
        self._let_go()
        self._before = self._handle, self.driver
        self.separator, self.driver, self.live, self._handle = separator, driver, live, handle
        if running:
            cb.hand_over(self.access, handle.address)
        else:
            live.gains[:] = self.goals
            self.access.current[0] = handle.address
        return True

    @property
    def followed(self) -> bool:
        """Whether the exchange has happened."""
        return bool(self.access.following[0] == 0)

    def _let_go(self) -> None:
        if self._before:
            handle, driver = self._before
            handle.release()
            driver.close()
            self._before = None

    @property
    def callbacks(self) -> int:
        """How many there have been."""
        return int(self.live.counts[cb.CALLBACKS])

    @property
    def put_right(self) -> Counter[str]:
        return self._put_right + Counter(self.separator.counts)

    def close(self) -> None:
        """Release the memory; after the devices are closed."""
        self._let_go()
        self._handle.release()
        self.driver.close()
