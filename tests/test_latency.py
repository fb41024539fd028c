"""The round trip and `rtsep latency`, on a JACK server without hardware whose delay is known to the sample."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from jackd import JackServer, open_client, require_audio

from rtsep import ConfigError, Separator, StreamConfig
from rtsep.estimators import Passthrough
from rtsep.live import LiveError
from rtsep.live import callback as cb
from rtsep.live.devices import DEVICES
from rtsep.live.roundtrip import LEAST_PEAK_TO_NOISE_DB, find_probe, make_probe, measure_round_trip
from rtsep.phase import OMISI

ENGINE = ["--estimator", "passthrough", "--phase", "mixture", "--latency-ms", "16"]
LATENCY = [sys.executable, "-m", "rtsep", "latency", *ENGINE]


@pytest.fixture
def server(request):
    require_audio()
    with JackServer(*request.param) as jack_server:
        yield jack_server


def measure(server: JackServer, separator: Separator, join, lost_at=lambda before, done: False, **settings):
    """The round trip in freewheel, after `join()` connected what is to be connected.

    Samples are lost where `lost_at(before, done)`: the flag is raised by hand, no server loses any on demand.
    """
    import jack

    streams, before = [], 0

    # Whoever let the server's time run must be there to stop it, or the server stands still for ten seconds.
    with server.client() as client:

        def ready(stream):
            nonlocal before
            before = 0
            streams.append(stream)
            join()
            client.set_freewheel(True)
            time.sleep(0.1)  # at the change samples are lost

        def progress(done, total):
            nonlocal before
            streams[-1]._processor.live.counts[cb.XRUNS] += lost_at(before, done)
            before = done
            if done == total:
                client.set_freewheel(False)

        try:
            return measure_round_trip(separator, ready=ready, progress=progress, **settings)
        finally:
            # A server that is left in freewheel never lets go of PortAudio. It refuses what is already so.
            with suppress(jack.JackErrorCode):
                client.set_freewheel(False)


@contextmanager
def cable(server: JackServer, gain: float, delay: int = 0, noise: float = 0.0, pause_s: float = 0.0):
    """A JACK client as the cable, and the function that connects it; a pause in every period slows time down."""
    client = open_client("cable", server)
    client.inports.register("in")
    client.outports.register("out")
    rng = np.random.default_rng(0)
    line = np.zeros(delay, np.float32)

    @client.set_process_callback
    def process(frames: int) -> None:
        nonlocal line
        line = np.concatenate([line, client.inports[0].get_array()])
        client.outports[0].get_array()[:] = gain * line[:frames] + noise * rng.standard_normal(frames)
        line = line[frames:]
        time.sleep(pause_s)

    def join():
        server.loop_back()
        (source,) = client.get_ports("rtsep", is_output=True)
        (target,) = client.get_ports("rtsep", is_input=True)
        client.disconnect(source, target)
        client.connect(source, client.inports[0])
        client.connect(client.outports[0], target)

    client.activate()
    try:
        yield join
    finally:
        client.deactivate()
        with DEVICES:
            client.close()


def passthrough(sr: int) -> Separator:
    return Separator(StreamConfig(sr), Passthrough(), "mixture")


@pytest.mark.parametrize("sr", [16_000, 44_100, 48_000])
@pytest.mark.parametrize(("delay", "gain"), [(0.0, 1.0), (100.25, -0.1), (1234.5, 0.01), (4321.77, -1.0)])
def test_a_probe_is_found_to_a_fiftieth_of_a_sample_in_noise_20_db_below_it(sr, delay, gain):
    rng = np.random.default_rng(round(delay))
    probe = make_probe(sr, -20)
    n = probe.size + sr // 2
    turns = np.fft.rfftfreq(2 * n)
    spectrum = np.fft.rfft(probe, 2 * n) * np.exp(-2j * np.pi * turns * delay)
    recording = gain * np.fft.irfft(spectrum, 2 * n)[:n]
    recording += 0.1 * abs(gain) * np.sqrt(np.mean(probe.astype(float) ** 2)) * rng.standard_normal(n)
    arrival = find_probe(probe, recording, sr)
    assert arrival.delay == pytest.approx(delay, abs=0.02)
    assert arrival.gain == pytest.approx(gain, rel=0.01)
    assert arrival.peak_to_noise_db > 40


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_hum_and_silence_are_taken_for_no_probe(seed):
    rng = np.random.default_rng(seed)
    probe, n = make_probe(16_000, -20), 12_000
    hum = np.sin(2 * np.pi * 50 / 16_000 * np.arange(n) + seed)
    for recording in (rng.standard_normal(n), hum, np.cumsum(rng.standard_normal(n)), np.zeros(n)):
        assert find_probe(probe, recording, 16_000).peak_to_noise_db < LEAST_PEAK_TO_NOISE_DB


@pytest.mark.parametrize(
    ("server", "block_size", "delay"),
    [
        ((16_000, 64), 0, 64),
        ((16_000, 64), 100, 164),
        ((44_100, 256), 0, 256),
        ((48_000, 128), 128, 256),
        ((48_000, 1024), 0, 1024),
    ],
    indirect=["server"],
)
def test_the_devices_take_what_jack_is_known_to_take(server, block_size, delay):
    trip = measure(server, passthrough(server.sr), server.loop_back, block_size=block_size, repeats=2, level_db=-12)
    assert trip.devices.repeats == pytest.approx([delay] * 2, abs=0.01)
    assert trip.promised_devices == delay
    assert trip.devices.spread < 0.01
    assert (trip.gain_db, trip.noise_db) == (pytest.approx(0, abs=0.01), -160)
    assert not trip.inverted
    assert not trip.clipped
    assert trip.remarks == []


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
@pytest.mark.parametrize(
    ("estimator", "phase", "hops"),
    [("denoise", "omisi", 0), ("denoise", OMISI(lookahead=2), 2), ("hpss", "mixture", 0)],
)
def test_the_engine_takes_what_its_ledger_says(server, estimator, phase, hops):
    separator = Separator(StreamConfig(16_000, 512, 128), estimator, phase)
    trip = measure(server, separator, server.loop_back, repeats=2)
    assert separator.latency == trip.promised_engine == 512 + 128 * hops
    assert trip.engine.repeats == pytest.approx([separator.latency] * 2, abs=0.01)
    assert trip.total.median == pytest.approx(sum(trip.promised.values()), abs=0.01)
    assert trip.remarks == []


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_a_long_inverting_cable_is_noticed(server):
    with cable(server, gain=-0.5, delay=132) as join:
        trip = measure(server, passthrough(16_000), join, repeats=2)
    assert trip.devices.repeats == pytest.approx([64 + 132] * 2, abs=0.01)
    assert trip.engine.median == pytest.approx(256, abs=0.01)
    assert trip.gain_db == pytest.approx(-6.02, abs=0.01)
    assert trip.remarks == [
        "the loop inverts the polarity",
        "the devices add 132 samples (8.25 ms) that they do not report",
    ]


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_clipping_and_noise_are_noticed(server):
    with cable(server, gain=20, noise=0.2) as join:
        trip = measure(server, passthrough(16_000), join, repeats=1)
    assert trip.noise_db == pytest.approx(-14, abs=1)
    assert trip.snr_db == pytest.approx(17, abs=1)
    assert trip.clipped
    assert ["clips" in remark for remark in trip.remarks] == [True, False]
    assert "only 17 dB above the noise" in trip.remarks[1]


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_without_a_cable_it_says_what_to_connect(server):
    with pytest.raises(LiveError, match=r"no signal came back from output 'system' to input 'system': connect .* -160"):
        measure(server, passthrough(16_000), lambda: None, repeats=1)


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_noise_is_not_taken_for_a_cable(server):
    with cable(server, gain=0, noise=0.1) as join, pytest.raises(LiveError, match="of which noise -20 dBFS"):
        measure(server, passthrough(16_000), join, repeats=2)


@pytest.mark.parametrize("server", [(16_000, 256)], indirect=True)
def test_a_repeat_in_which_samples_were_lost_is_discarded(server):
    with cable(server, gain=1, pause_s=0.003) as join:
        lost_at = lambda before, done: before < 1.5 * 16_000 <= done  # noqa: E731
        trip = measure(server, passthrough(16_000), join, lost_at, repeats=2)
    assert trip.discarded == 1
    assert trip.devices.repeats == pytest.approx([256], abs=0.01)
    assert "1 of 2 repeats" in trip.remarks[0]


@pytest.mark.parametrize("server", [(16_000, 256)], indirect=True)
def test_if_samples_were_lost_in_all_repeats_it_is_measured_once_more(server):
    started = []

    def join_again():
        started.append(None)
        join()

    with cable(server, gain=1, pause_s=0.003) as join:
        lost_at = lambda before, done: len(started) == 1  # noqa: E731
        trip = measure(server, passthrough(16_000), join_again, lost_at, repeats=1)
    assert trip.devices.repeats == pytest.approx([256], abs=0.01)
    assert len(started) == 2


@pytest.mark.parametrize("server", [(16_000, 256)], indirect=True)
def test_if_samples_were_lost_in_all_repeats_nothing_is_reported(server):
    with cable(server, gain=1, pause_s=0.003) as join, pytest.raises(LiveError, match="samples were lost in every"):
        measure(server, passthrough(16_000), join, lambda before, done: True, repeats=1)


def test_a_bridge_between_two_rates_is_measured_with_the_devices():
    require_audio()
    with JackServer(16_000, 256, realtime=True) as server:
        # In real time, where other programs may keep the machine from being in time.
        for _ in range(3):
            with suppress(LiveError):
                trip = measure_round_trip(passthrough(48_000), repeats=2, ready=lambda stream: server.loop_back())
                break
        else:
            pytest.fail("samples were lost three times")
    assert trip.promised["bridge"] > 0
    assert trip.engine.median == pytest.approx(768, abs=1)
    assert trip.devices.median == pytest.approx(trip.promised_devices, abs=0.001 * 48_000)


def test_settings_that_cannot_work_are_refused_before_anything_is_opened():
    with pytest.raises(ConfigError, match="repeats=0"):
        measure_round_trip(passthrough(16_000), repeats=0)
    with pytest.raises(ConfigError, match="level_db=0 is not between -80 and -3 dBFS"):
        measure_round_trip(passthrough(16_000), level_db=0)
    with pytest.raises(ConfigError, match="n_channels=2"):
        measure_round_trip(Separator(StreamConfig(n_channels=2), Passthrough(), "mixture"))


def run_joined(server: JackServer, *options: str) -> subprocess.CompletedProcess:
    """`rtsep latency` in real time, its output joined to its input when it says that it plays."""
    process = subprocess.Popen([*LATENCY, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        heard = []
        for line in process.stderr:
            heard.append(line)
            if "playing" in line:
                break
        server.loop_back()
        stdout, stderr = process.communicate(timeout=180)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, "".join(heard) + stderr)


def said(stderr: str) -> list[str]:
    """What rtsep itself says, and not JACK or ALSA."""
    return [line for line in stderr.splitlines() if line.startswith("rtsep: ") or "Traceback" in line]


# Periods of 64 ms: no sample is lost however busy the machine is.
@pytest.mark.parametrize("server", [(16_000, 1024)], indirect=True)
def test_the_command_prints_promise_and_measurement_line_by_line(server):
    run = run_joined(server, "--repeats", "2", "--block", "32")
    assert run.returncode == 0
    assert len(said(run.stderr)) == 1
    assert "playing 4 sweeps with peaks of -20 dBFS on 'system'" in run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "system -> system, 16000 Hz, blocks of 32, passthrough + mixture"
    numbers = {line.split("  ")[0].strip() or line.split()[0]: line.split() for line in lines[3:-2]}
    assert numbers["engine"] == ["engine", "256", "16.00", "256.00", "16.00", "0.00"]
    assert numbers["devices"] == ["devices", "1056", "66.00", "1056.00", "66.00", "0.00"]
    assert numbers["total"] == ["total", "1312", "82.00", "1312.00", "82.00", "0.00"]
    assert lines[-1] == "note: what was measured agrees with what is promised"


@pytest.mark.parametrize("server", [(16_000, 1024)], indirect=True)
def test_the_report_for_machines_is_json_and_nothing_else(server):
    run = run_joined(server, "--repeats", "2", "--json")
    report = json.loads(run.stdout)
    assert run.returncode == 0
    assert set(report) == {"settings", "loop", "promised", "measured", "discarded", "remarks"}
    assert report["settings"] == {
        "input": "system",
        "output": "system",
        "sr": 16_000,
        "block_size": 0,
        "estimator": "passthrough",
        "phase": "mixture",
        "level_db": -20,
    }
    loop = {"gain_db", "inverted", "clipped", "noise_db", "snr_db", "peak_to_noise_db"}
    assert set(report["loop"]) == loop
    assert report["promised"]["engine"] == 256
    assert report["promised"]["total"] == report["promised"]["engine"] + report["promised"]["devices"] == 1280
    assert {name: round(delay["median"], 2) for name, delay in report["measured"].items()} == {
        "engine": 256,
        "devices": 1024,
        "total": 1280,
    }
    assert all(len(delay["repeats"]) + report["discarded"] == 2 for delay in report["measured"].values())


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--repeats", "1"], 3, "no signal came back from output 'system' to input 'system'"),
        (["--input", "nosuch"], 3, "nosuch"),
        (["--repeats", "0"], 2, "repeats=0 is not between 1 and 100"),
        (["--input-channel", "2"], 3, "no channel 2"),
        (["--output-channel", "2"], 3, "no channel 2"),
        (["--level", "3"], 2, "--level=3.0 is not between -80 and -3 dBFS"),
    ],
)
def test_the_command_ends_with_one_line_and_a_status(server, options, status, message):
    run = subprocess.run([*LATENCY, *options], capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == status
    assert message in said(run.stderr)[-1]
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
