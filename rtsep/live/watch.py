"""The watch over a live stream: a thread that says what happens to it, and gets devices back that were gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rtsep.errors import LiveError
from rtsep.live import callback as cb
from rtsep.live.connection import anything_open
from rtsep.live.devices import DEVICES, portaudio, rescan
from rtsep.live.howling import gain_db, howls
from rtsep.live.link import SILENT_S, Link
from rtsep.live.processor import Processor
from rtsep.live.record import Recorder
from rtsep.live.virtual import restore_virtual

WATCH_S = 0.05  # between two looks
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 4.0)  # before the attempts to reconnect; the last one goes on
PACE_S, RUNAWAY = 2.0, 2.0  # devices that take so many times as much as that time has are no devices
STUCK_S = 5.0  # for an attempt to reconnect; then it is left alone, and ends when PortAudio lets it go on


class Watch:
    """Looks after a stream until it is ended.

    Parameters
    ----------
    link : Link
        Open.
    processor : Processor
    recorder : callable
        `recorder()`, the present Recorder or None.
    say : callable
        `say(message)`, called by the thread.
    """

    def __init__(
        self, link: Link, processor: Processor, recorder: Callable[[], Recorder | None], say: Callable[[str], None]
    ) -> None:
        self._link, self._processor, self._recorder, self._say = link, processor, recorder, say
        self._stuck = self._ran_away = False
        self._warned, self._howls = False, howls(processor.live.howling)
        self._delay: int | None = None
        self._pace = time.monotonic(), 0  # when, and samples until then
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more. An attempt to reconnect that hangs is left alone."""
        self._ending.set()
        self._thread.join(STUCK_S)

    def _run(self) -> None:
        seen, since = -1, time.monotonic()
        looked = since
        while not self._ending.wait(WATCH_S):
            with self._link.lock:
                self._processor.times.collect()
                callbacks, now = self._processor.callbacks, time.monotonic()
                # After a Ctrl-Z, this process stood still and not the device.
                if callbacks != seen or now - looked > SILENT_S / 2:
                    seen, since = callbacks, now
                looked = now
                self._report()
                self._compare()
                self._check_pace()
                lost = not self._link.active or time.monotonic() - since > SILENT_S
            gone = self._link.routing.gone
            if lost or gone:
                self._reconnect(gone)
                since = time.monotonic()
            for message in self._link.routing.look():  # without the lock: the server may stand still
                self._say(message)

    def _report(self) -> None:
        """What the other threads ran into."""
        live, driver, recorder, block = (
            self._processor.live,
            self._processor.driver,
            self._recorder(),
            self._processor.times.block,
        )
        n_howls = howls(live.howling)
        if n_howls > self._howls:
            gain = gain_db(live.howling)
            self._say(f"howling: what is heard feeds back into the microphone; turned down to {gain:.0f} dB")
        self._howls = n_howls
        if block > driver.prefill > 0 and not self._warned:
            self._warned = True
            prefill_ms = 1000 * driver.prefill / self._processor.separator.config.sr
            self._say(
                f"the device delivers {block} samples at a time, which prefill_ms={prefill_ms:g} does not cover: "
                "the mixture is heard"
            )
        if driver.stuck and not self._stuck:
            self._say("the estimator does not return from a hop, the mixture is heard")
        self._stuck = driver.stuck
        problem, driver.problem = driver.problem, None
        if problem:
            self._say(f"the separator failed, the mixture is heard: {type(problem).__name__}: {problem}")
        if recorder and recorder.problem and live.taps[0]:
            live.taps[0] = 0
            self._say(f"the recording to {recorder.folder} ended: {recorder.problem}")

    def _compare(self) -> None:
        """Whether the delay is still what it was."""
        if not self._link.active or self._link.learning:
            return
        delay, before = sum(self._link.ledger.values()), self._delay
        if before is not None and delay != before:
            ms = 1000 / self._processor.separator.config.sr
            self._say(f"the delay of the devices is {delay} samples, {delay * ms:.1f} ms, and was {before * ms:.1f} ms")
        self._delay = delay

    def _check_pace(self) -> None:
        """Whether the devices keep time: ALSA's null and file devices take whatever they get at once."""
        since, before = self._pace
        elapsed, samples = time.monotonic() - since, int(self._processor.live.counts[cb.SAMPLES])
        if elapsed < PACE_S or not self._processor.live.limits[2]:  # with "wait", a clock may run as it likes
            return
        self._pace = since + elapsed, samples
        ratio = (samples - before) / (elapsed * self._processor.separator.config.sr)
        if ratio > RUNAWAY and not self._ran_away:
            self._ran_away = True
            self._say(
                f"device {self._link.output.name!r} plays {ratio:.0f} times as fast as time goes by: it is no sound "
                "device (ALSA's null or file?), and what is heard and recorded is not what comes in; take another"
            )

    def _reconnect(self, gone: str) -> None:
        """Begin anew with the devices; `gone`: one that its server has no more, while that goes on."""
        link = self._link
        which = repr(gone) if gone else f"{link.input.name!r} or {link.output.name!r}"
        self._say(f"device {which} stopped; trying to get it back")
        with link.lock:
            link.close(lost=not gone)
            link.state = "reconnecting"
        attempt = 0
        while not self._ending.wait(BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]):
            attempt += 1
            try:
                for message in restore_virtual():
                    self._say(message)
                # Without the other lock: a JACK server that stands still keeps PortAudio waiting.
                with DEVICES:
                    if not anything_open():  # whose streams a search would end
                        rescan()
                with link.lock:
                    if self._ending.is_set():
                        return
                    link.reopen()
            except (LiveError, portaudio().PortAudioError) as problem:
                self._say(f"attempt {attempt}: {problem}")
                continue
            self._say(f"running again on {link.input.name!r} and {link.output.name!r}")
            return
