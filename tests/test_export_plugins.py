"""Plug-ins give the samples of `Separator.process`, in hosts of LV2 and LADSPA and in PipeWire."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_uint32, c_ulong, c_void_p
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pipewire import PipeWire, require_pipewire, wait_until
from signals import voices

import rtsep
from rtsep.cli import main
from rtsep.export.plugin import write_plugins
from rtsep.export.target import Target

pytestmark = pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="no C compiler")
FADE = 480


class LV2(ctypes.Structure):
    _fields_ = (
        ("uri", c_char_p),
        ("instantiate", ctypes.CFUNCTYPE(c_void_p, c_void_p, c_double, c_char_p, c_void_p)),
        ("connect_port", ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)),
        ("activate", ctypes.CFUNCTYPE(None, c_void_p)),
        ("run", ctypes.CFUNCTYPE(None, c_void_p, c_uint32)),
        ("deactivate", c_void_p),
        ("cleanup", ctypes.CFUNCTYPE(None, c_void_p)),
        ("extension_data", c_void_p),
    )

    def new(self, sr):
        return self.instantiate(ctypes.addressof(self), sr, b"", None)


class LADSPA(ctypes.Structure):
    _fields_ = (
        ("id", c_ulong),
        ("label", c_char_p),
        ("properties", c_int),
        ("name", c_char_p),
        ("maker", c_char_p),
        ("copyright", c_char_p),
        ("n_ports", c_ulong),
        ("kinds", POINTER(c_int)),
        ("names", POINTER(c_char_p)),
        ("ranges", c_void_p),
        ("data", c_void_p),
        ("instantiate", ctypes.CFUNCTYPE(c_void_p, c_void_p, c_ulong)),
        ("connect_port", ctypes.CFUNCTYPE(None, c_void_p, c_ulong, c_void_p)),
        ("activate", ctypes.CFUNCTYPE(None, c_void_p)),
        ("run", ctypes.CFUNCTYPE(None, c_void_p, c_ulong)),
        ("run_adding", c_void_p),
        ("set_run_adding_gain", c_void_p),
        ("deactivate", c_void_p),
        ("cleanup", ctypes.CFUNCTYPE(None, c_void_p)),
    )

    def new(self, sr):
        return self.instantiate(ctypes.addressof(self), sr)


def descriptor(format, binary):
    """The plug-in in a file, as a host sees it."""
    function = getattr(ctypes.CDLL(str(binary)), f"{format}_descriptor")
    function.restype, function.argtypes = POINTER({"lv2": LV2, "ladspa": LADSPA}[format]), [c_ulong]
    assert not function(1)
    return function(0).contents


class Host:
    """An instance whose input and output are the same memory."""

    def __init__(self, format, binary, n_channels, sr=48_000):
        self.plugin, self.n_channels = descriptor(format, binary), n_channels
        self.instance = self.plugin.new(sr)
        assert self.instance
        self.controls = {"strength": c_float(60), "source": c_float(0), "switch": c_float(format == "lv2")}
        self.latency = c_float(-1)
        for i, value in enumerate([*self.controls.values(), self.latency]):
            self.plugin.connect_port(self.instance, 2 * n_channels + i, ctypes.addressof(value))
        self.plugin.activate(self.instance)

    def run(self, x, sizes=(1, 1000, 64, 7, 480)):
        y, at, k = np.array(x, order="C"), 0, 0
        while at < x.shape[1]:
            n = min(sizes[k % len(sizes)], x.shape[1] - at)
            for c in range(self.n_channels):
                for port in (c, self.n_channels + c):
                    self.plugin.connect_port(self.instance, port, y[c, at:].ctypes.data)
            self.plugin.run(self.instance, n)
            at, k = at + n, k + 1
        return y

    def set(self, **values):
        for name, value in values.items():
            self.controls[name].value = value

    def close(self):
        self.plugin.cleanup(self.instance)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Format and number of channels: what was separated, the file of the plug-in."""
    root = tmp_path_factory.mktemp("plug ins")
    made = {}
    for format in ("lv2", "ladspa"):
        separators = [separator(1), separator(2)]
        written = write_plugins(separators, Target(), root / format, format)
        for n_channels, (path, _) in enumerate(written, 1):
            made[format, n_channels] = path / "plugin.so" if format == "lv2" else path
    return made


def separator(n_channels):
    return rtsep.Separator(rtsep.StreamConfig(48_000, n_channels=n_channels), "denoise")


def sources(x, **settings):
    """All sources of the engine in Python, (n_src, n_channels, n_samples)."""
    engine = separator(x.shape[0])
    engine.set(**settings)
    return engine.process(x if x.shape[0] > 1 else x[0]).reshape(2, *x.shape)


def mixture(n, n_channels, seed=1):
    return np.stack([voices(n, 48_000, seed=seed + c).sum(0) for c in range(n_channels)]).astype(np.float32)


@pytest.mark.parametrize("format", ["lv2", "ladspa"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_plugin_gives_the_samples_of_the_engine(exported, format, n_channels):
    x = mixture(24_000, n_channels)
    host = Host(format, exported[format, n_channels], n_channels)
    assert np.array_equal(host.run(x), sources(x)[0])
    assert host.latency.value == separator(n_channels).latency
    host.plugin.activate(host.instance)  # a new start
    host.set(source=1, strength=12)
    assert np.array_equal(host.run(x), sources(x, strength_db=12)[1])
    host.plugin.activate(host.instance)
    host.set(switch=format != "lv2")
    y, latency = host.run(x), separator(n_channels).latency
    assert np.array_equal(y, sources(x, strength_db=0)[1])
    np.testing.assert_allclose(y[:, latency:], x[:, :-latency], atol=1e-6)
    host.close()


def test_another_source_is_faded_in(exported):
    x = mixture(9600, 1)
    y = sources(x)[:, 0]
    host = Host("lv2", exported["lv2", 1], 1)
    first = host.run(x[:, :4801])
    host.set(source=1)
    second = host.run(x[:, 4801:5001])
    host.set(source=np.nan)  # counts as the first, in the middle of a fade
    third = host.run(x[:, 5001:])
    share = np.zeros(9600)
    share[4801:5001] = np.arange(200) / FADE
    share[5001 : 5001 + FADE] = 200 / FADE * (1 - np.arange(FADE) / FADE)
    heard = np.concatenate([first, second, third], 1)[0]
    np.testing.assert_allclose(heard, (1 - share) * y[0] + share * y[1], atol=1e-6)
    assert np.array_equal(heard[share == 0], y[0][share == 0])
    host.close()


@pytest.mark.parametrize("format", ["lv2", "ladspa"])
def test_instances_come_and_go(exported, format, capfd):
    plugin = descriptor(format, exported[format, 1])
    x = mixture(2000, 1)
    both = Host(format, exported[format, 1], 1), Host(format, exported[format, 1], 1)
    both[1].run(-x)
    assert np.array_equal(both[0].run(x), sources(x)[0])

    def cycles(n):
        for _ in range(n):
            instance = plugin.new(48_000)
            plugin.activate(instance)
            plugin.cleanup(instance)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = cycles(10)
    assert cycles(1000) - before < 20_000  # kB; an instance takes 150
    assert plugin.new(44_100) is None
    assert "48000 Hz, not 44100 Hz" in capfd.readouterr().err


def test_hosts_of_lv2_play_it(exported, tmp_path):
    if not shutil.which("lv2apply"):
        pytest.skip("lv2apply is not installed (apt install lilv-utils)")
    x = mixture(12_000, 2)
    soundfile.write(tmp_path / "in.wav", x.T, 48_000, "FLOAT")
    environment = os.environ | {"LV2_PATH": f"{exported['lv2', 2].parents[1]}:/usr/lib/lv2"}
    command = "lv2apply -i in.wav -o out.wav -c strength 60 -c source 1 urn:rtsep:denoise-stereo"
    ran = subprocess.run(command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    y, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert np.array_equal(y.T, sources(x)[1])
    ran = subprocess.run(["lv2info", "urn:rtsep:denoise-mono"], env=environment, capture_output=True, text=True)
    assert "Has latency:       yes" in ran.stdout
    assert '1 = "noise"' in ran.stdout


def test_its_turtle_is_valid(exported):
    if not shutil.which("lv2_validate") or not shutil.which("sord_validate"):
        pytest.skip("lv2_validate is not installed (apt install lv2-dev sordi)")
    folder = exported["lv2", 2].parent
    ran = subprocess.run(
        ["lv2_validate", folder / "manifest.ttl", folder / "plugin.ttl"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_hosts_of_ladspa_play_it(exported, tmp_path):
    if not shutil.which("applyplugin"):
        pytest.skip("applyplugin is not installed (apt install ladspa-sdk)")
    x = np.round(mixture(12_000, 1) * 32768).astype(np.int16)
    soundfile.write(tmp_path / "in.wav", x[0], 48_000, "PCM_16")
    binary = str(exported["ladspa", 1])
    command = ["applyplugin", "in.wav", "out.wav", binary, "rtsep-denoise-mono", "60", "1", "0"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    y, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    # It counts 32767 as full scale on its way in, and cuts off what is between two values on its way out.
    expected = sources(x.astype(np.float32) / np.float32(32767))[1, 0]
    assert np.abs(y[: expected.size] - expected).max() < 3 / 32768
    ran = subprocess.run(["analyseplugin", binary], capture_output=True, text=True)
    assert '"Source heard (0 speech, 1 noise)" input, control, 0 to 1, default 0, integer' in ran.stdout
    assert '"Strength (dB)" input, control, 0 to 60, default 60' in ran.stdout


HOST = r"""
#include <dlfcn.h>
#include <ladspa.h>
int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW);
    const LADSPA_Descriptor *d = ((LADSPA_Descriptor_Function)dlsym(library, "ladspa_descriptor"))(0);
    static float data[8][1000];
    int k, i;
    data[2][0] = 12;
    for (k = 0; k < 20; k++) {
        void *one = d->instantiate(d, 48000);
        for (i = 0; i < (int)d->PortCount; i++) d->connect_port(one, i, data[i]);
        d->activate(one);
        for (i = 0; i < 4; i++) { data[3][0] = i % 2; data[0][i] = 0.5f; d->run(one, 1 + 333 * i); }
        d->cleanup(one);
    }
    return argc < 2;
}
"""


def test_memory_is_used_as_it_should_be(exported, tmp_path):
    if not shutil.which("valgrind") or not Path("/usr/include/ladspa.h").exists():
        pytest.skip("valgrind or ladspa.h is not installed (apt install valgrind ladspa-sdk)")
    (tmp_path / "host.c").write_text(HOST)
    subprocess.run(["cc", "host.c", "-ldl", "-o", "host"], cwd=tmp_path, check=True)
    command = ["valgrind", "--leak-check=full", "--show-leak-kinds=all", "--error-exitcode=9", "./host"]
    ran = subprocess.run([*command, str(exported["ladspa", 1])], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "definitely lost: 0 bytes" in ran.stderr or "no leaks are possible" in ran.stderr


@pytest.mark.parametrize("format", ["lv2", "ladspa"])
def test_pipewire_makes_a_microphone_of_it(exported, format, tmp_path):
    require_pipewire()
    binary = exported[format, 1]
    file = binary.parent / "virtual-microphone.conf" if format == "lv2" else binary.with_suffix(".conf")
    x = mixture(48_000, 1)
    soundfile.write(tmp_path / "in.wav", x[0], 48_000, "FLOAT")
    with PipeWire({"speaker": 1}, quantum=256) as servers:
        if format == "lv2":
            servers.environment["LV2_PATH"] = f"{binary.parents[1]}:/usr/lib/lv2"
        processes = [servers.start("pipewire", "-c", str(file))]
        name = "rtsep-denoise-mono"
        try:
            wait_until(lambda: f"{name}:capture_MONO" in servers.ports())
            # One file with what goes in and what comes out, so that both have the same time.
            options = ["--rate", "48000", "--channels", "2", "--format", "f32", "--target", "0"]
            processes.append(servers.start("pw-record", *options, str(tmp_path / "both.wav")))
            wait_until(lambda: "pw-record:input_FL" in servers.ports())
            servers.run("pw-link", "speaker:monitor_1", "pw-record:input_FL")
            servers.run("pw-link", f"{name}:capture_MONO", "pw-record:input_FR")
            time.sleep(0.5)
            servers.run("pw-play", "--target", "speaker", str(tmp_path / "in.wav"))
            time.sleep(0.5)
        finally:
            for process in reversed(processes):
                process.send_signal(2)
                process.communicate(timeout=10)
    both, _ = soundfile.read(tmp_path / "both.wav", dtype="float32")
    heard, separated = both.T
    begin = np.flatnonzero(heard)[0]
    sent = x[0, np.flatnonzero(x[0])[0] :]
    assert np.array_equal(heard[begin : begin + 24_000], sent[:24_000])
    # The plug-in has run before the recording began, for a number of blocks: a hop began 0, 64 or 128 samples earlier.
    earlier = [np.concatenate([np.zeros(d, np.float32), heard]) for d in (0, 64, 128)]
    expected = [sources(mixed[None])[0, 0, -heard.size :] for mixed in earlier]
    assert any(np.array_equal(separated[begin : begin + 40_000], y[begin : begin + 40_000]) for y in expected)


@pytest.mark.parametrize("format", ["lv2", "ladspa"])
def test_what_cannot_be_made_is_refused_in_one_line(format, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def refused(*options):
        assert main(["export", "passthrough", "--channels", "1", "--format", format, *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "/proc/nowhere" in refused("-o", "/proc/nowhere")
    assert "for Linux, not for 'thumbv7em-none-eabi'" in refused("-o", str(out), "--target", "thumbv7em-none-eabi")
    broken = tmp_path / "bin" / "cc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'error: it broke' >&2\nexit 1\n")
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{broken.parent}:/bin:/usr/bin")
        assert "cannot make the plug-in: error: it broke" in refused("-o", str(out))
        patch.setenv("PATH", str(tmp_path))
        patch.setitem(sys.modules, "ziglang", None)
        assert "needs a C compiler: cc is not installed" in refused("-o", str(out))
    assert not out.exists()
    # What an earlier run left, and what is not ours.
    name = "rtsep-passthrough-mono"
    folder = out / f"{name}.lv2" if format == "lv2" else out
    left = folder / ("plugin.so" if format == "lv2" else f"{name}.so")
    folder.mkdir(parents=True)
    left.write_text("half")
    assert f"{left.name} exists" in refused("-o", str(out))
    assert main(["export", "passthrough", "--channels", "1", "--format", format, "-o", str(out), "--overwrite"]) == 0
    assert "latency 16 ms" in capsys.readouterr().out
    assert descriptor(format, left).new(48_000)
    assert not list(folder.glob(".rtsep-*"))
