"""The panel of `rtsep live`: its layout for any size, and the command in a terminal, on a JACK server."""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import fields

import pyte
import pytest
import soundfile as sf
from jackd import JackServer, require_audio
from rich.cells import cell_len
from rich.segment import Segment

from rtsep.cli.keys import names_of
from rtsep.cli.layout import ASCII, COLUMNS_FROM, HEARD, View, layout
from rtsep.cli.panel import STRENGTHS_DB, _Lights, _next_strength, _Peaks
from rtsep.live import Stats

LIVE = [sys.executable, "-m", "rtsep", "live", "--phase", "mixture"]
PATIENCE_S = 200  # kernels may have to be compiled first
MAIN_SCREEN, SHOW_CURSOR = b"\x1b[?1049l", b"\x1b[?25h"

# The layout


def view(**changes):
    stats: dict = dict.fromkeys((field.name for field in fields(Stats)), 0) | {
        "state": "running",
        "elapsed_s": 3725.0,
        "hop_share": {"median": 0.1, "p999": 0.6, "max": 1.2},
        "heard_db": -24.0,
        "presence": {"speech": 0.83, "noise": 0.2},
        "levels_db": {"mixture": -20.0, "speech": -24.0, "noise": -200.0},
    }
    shown = {
        "devices": ("Built-in Microphone", "Built-in Output"),
        "sr": 48_000,
        "hop_ms": 4.0,
        "sources": ("speech", "noise"),
        "choice": {"solo": 0, "strength": 1.0, "bypass": False, "input_gain_db": 0.0, "output_gain_db": 0.0},
        "strength_db": math.inf,
        "stepped": "strength",
        "gate": 0.0,
        "lights": set(),
        "ledger": {"window": 768, "look-ahead": 0, "device in": 128, "device out": 256},
        "peaks": {"mixture": -12.0, "speech": 3.0, "noise": -200.0},
        "messages": (),
        "keys": True,
    }
    for name, value in changes.items():
        (stats if name in stats else shown)[name] = shown[name] | value if name == "choice" else value
    shown["peaks"] = {name: shown["peaks"].get(name, -30.0) for name in (*stats["levels_db"], HEARD)}
    stats["presence"] = {name: stats["presence"].get(name, 0.5) for name in shown["sources"]}
    return View(stats=Stats(**stats), **shown)


FAULTS = {
    "late_hops": 3,
    "xruns": 2,
    "shed_iterations": 4,
    "limited": 5,
    "muted": 6,
    "howls": 2,
    "howl_gain_db": -12.0,
    "reconnects": 1,
    "replaced_s": 0.25,
    "clipped": 7,
    "recording": True,
    "recorded_s": 4000.0,
    "recording_lost_s": 0.5,
}
VIEWS = {
    "quiet": view(),
    "faults": view(**FAULTS, messages=[f"12:00:0{i} " + "the device is gone " * 9 for i in range(9)]),
    "reconnecting": view(state="reconnecting", devices=("麦克风 " * 20, "耳机 " * 20), keys=False),
    "many sources": view(
        sources=tuple(f"source {i}" for i in range(14)),
        levels_db={"mixture": 3.0} | {f"source {i}": -5.0 * i for i in range(14)},
        choice={"solo": 12, "strength": 0.5, "bypass": False},
    ),
    "nothing yet": view(
        levels_db={"mixture": -200.0, "speech": -200.0, "noise": -200.0},
        hop_share={"median": 0.0, "p999": 0.0, "max": 0.0},
        choice={"solo": 1, "strength": 0.0, "bypass": True},
    ),
}


def text(*args):
    return ["".join(segment.text for segment in row) for row in layout(*args)]


@pytest.mark.parametrize("name", VIEWS)
def test_the_layout_fills_every_size_exactly(name):
    for width in [*range(1, 100, 3), COLUMNS_FROM, 120, 300]:
        for height in [*range(1, 30), 40, 100]:
            rows = layout(VIEWS[name], width, height)
            assert len(rows) == height
            assert {Segment.get_line_length(row) for row in rows} == {width}
            assert all(cell_len("".join(segment.text for segment in row)) == width for row in rows)


def test_what_is_heard_its_level_faults_news_and_keys_remain_on_40_by_12():
    rows = text(VIEWS["faults"], 40, 12)
    screen = "\n".join(rows)
    for needed in ("running 1:02:05", "Hearing  speech", "▶ 1 speech", "late hops       3", "xruns", "muted"):
        assert needed in screen
    assert "12:00:08" in screen
    assert "12:00:07" not in screen
    assert rows[-1] == " 1-2 source ↑↓ strength b bypass q quit "


def test_a_large_screen_shows_everything():
    screen = "\n".join(text(VIEWS["faults"], 120, 60))
    for needed in (
        "rec 1:06:40",
        "Built-in Microphone → Built-in Output  48000 Hz",
        "strength full",
        "median       10.0 %",
        "p99.9        60.0 %",
        "max         120.0 %",
        "late hops       3 (0.25 s replaced)",
        "xruns           2",
        "shed            4 iterations",
        "limited         5 samples",
        "muted           6 samples",
        "howls           2 (gain -12 dB)",
        "reconnects      1",
        "rec lost     0.50 s",
        "window        768 samples    16.0 ms",
        "device in     128 samples     2.7 ms",
        "device out    256 samples     5.3 ms",
        "sum          1152 samples    24.0 ms",
        "12:00:00 the device",
        "clipped         7 samples of the input",
        "1-2 tab ←→ source   b space bypass   ↑↓ strength   i input   o output   g gate   l latency   r record   q ",
    ):
        assert needed in screen, needed


def test_faults_that_did_not_happen_take_no_place():
    screen = "\n".join(text(VIEWS["quiet"], 120, 60))
    assert "late hops       0" in screen
    assert "xruns           0" in screen
    for name in ("shed", "limited", "muted", "howls", "reconnects", "rec ", "clipped", "look-ahead", "Messages"):
        assert name not in screen


def test_the_mark_is_at_what_is_heard():
    def marked(**choice):
        shown = view(choice={"solo": 1, "strength": 0.75, "bypass": False} | choice, strength_db=12.04)
        return next(row for row in text(shown, 80, 24) if "▶" in row), text(shown, 80, 24)[3]

    assert "2 noise" in marked()[0]
    assert "Hearing  noise   strength 12 dB" in marked()[1]
    assert "mixture" in marked(bypass=True)[0]
    assert "Hearing  mixture   bypass of noise, strength 12 dB" in marked(bypass=True)[1]


def test_gains_and_the_gate_are_shown_where_they_do_something_or_keys_change_them():
    assert "gain" not in "".join(text(view(), 120, 24))
    choice = {"input_gain_db": 3.0, "output_gain_db": 0.0}
    row = text(view(choice=choice, stepped="output gain", gate=0.5), 120, 24)[3]
    assert "strength full  in +3 dB  out +0 dB  gate 0.50 (0.83 there)" in row
    assert "↑↓ output gain" in text(view(stepped="output gain"), 120, 24)[-1]
    assert "gate off (0.83 there)" in text(view(stepped="gate"), 80, 24)[3]


def test_what_clips_is_lit():
    rows = text(view(lights={"mixture", HEARD}), 80, 24)
    assert next(row for row in rows if " mixture " in row).rstrip().endswith("   CLIP")
    assert next(row for row in rows if " heard " in row).rstrip().endswith("  LIMIT")
    assert "LIMIT" not in "".join(text(view(), 80, 24))
    lights = _Lights()
    counts = [(0, 5), (1, 5), (2, 6), (3, 6), (3.6, 6)]
    assert [lights.update({"x": count}, now) for now, count in counts] == [set(), set(), {"x"}, {"x"}, set()]


def test_without_devices_nothing_is_heard():
    rows = text(view(state="reconnecting"), 80, 24)
    assert "● reconnecting" in rows[0]
    assert "Hearing  nothing" in rows[3]
    assert not set("▶━┃") & set("".join(rows))


def test_a_bar_ends_under_its_number():
    for width, levels in [(40, (-40, -20, 0)), (57, (-48, -12, 0)), (80, (-24, -12, 0)), (120, (-36, -24, 0))]:
        for db in levels:
            level = {"mixture": db, "speech": -200.0, "noise": -200.0}
            rows = text(view(levels_db=level, peaks=dict.fromkeys(level, -200.0)), width, 24)
            scale, bar = next((a, b) for a, b in itertools.pairwise(rows) if "Levels" in a)
            number = scale.index(f" {db}") + len(f" {db}")
            assert abs(1 + max(bar.rfind("━"), bar.rfind("╸")) - number) <= 1, (width, db)  # rounded to half a cell


def test_a_terminal_without_unicode_gets_ascii():
    for name in ("quiet", "faults", "many sources"):
        assert "".join(text(VIEWS[name], 80, 24, ASCII)).isascii()


# Keys, strength, peaks


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("1Q\t \x1b[A\x1b[D\x1bOB\x1bOC", ["1", "q", "tab", "space", "up", "left", "down", "right"]),
        ("\x1b[3~\x1b[1;5C\x1b[200~q", ["q"]),  # delete, Ctrl-right, the beginning of a paste
        ("\x1b1b", ["b"]),  # Alt-1
        ("\x1b[\x1b", []),
        ("", []),
    ],
)
def test_keys_are_told_from_escape_sequences(typed, keys):
    assert names_of(typed) == keys


def test_strength_goes_through_its_steps_and_stays_at_the_ends():
    strength, up = 0.0, [0.0]
    for _ in range(len(STRENGTHS_DB)):
        strength = _next_strength(strength, True)
        up.append(strength)
    assert up[-1] == up[-2] == 1
    assert all(a < b for a, b in itertools.pairwise(up[:-1]))
    down = [1.0]
    for _ in range(len(STRENGTHS_DB)):
        down.append(_next_strength(down[-1], False))
    assert down[::-1] == [0.0, *up[:-1]]
    assert 20 * math.log10(1 - _next_strength(1 - 10 ** (-10 / 20), True)) == pytest.approx(-12)
    assert 20 * math.log10(1 - _next_strength(1 - 10 ** (-10 / 20), False)) == pytest.approx(-9)


def test_a_peak_is_held_and_falls_to_the_level():
    peaks = _Peaks()
    shown = [peaks.update({"x": level}, now)["x"] for now, level in [(0, -30), (1, -10), (2, -50), (3, -50), (9, -50)]]
    assert shown == pytest.approx([-30, -10, -10, -20, -50])


# In a terminal


@pytest.fixture(scope="module")
def server():
    require_audio()
    with JackServer(16_000, 64) as jack_server:
        yield jack_server


class Terminal:
    """A terminal emulator with a command in it; a context manager."""

    def __init__(self, command, width=80, height=24, **options):
        self.ours, self.theirs = pty.openpty()
        self.screen = pyte.Screen(width, height)
        self.screens = [self.screen]
        self.sent = b""
        self.resize(width, height)
        self.before = termios.tcgetattr(self.theirs)
        environment = os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | options.pop("env", {})
        streams = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs} | options
        self.process = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0),
            pass_fds=[self.theirs],
            **streams,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.theirs)
        os.close(self.ours)

    def resize(self, width, height):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(height, width)

    def read(self, seconds):
        """Whether anything came."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        sent = os.read(self.ours, 65536)
        self.sent += sent
        for screen in self.screens:
            pyte.ByteStream(screen).feed(sent)
        return True

    def type(self, keys):
        os.write(self.ours, keys.encode())

    def until(self, *wanted):
        end = time.monotonic() + PATIENCE_S
        while not all(words in self.text for words in wanted):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            self.read(0.5)

    @property
    def text(self):
        return "\n".join(self.screen.display)

    def finish(self):
        """Exit status, and what was written after the panel."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text
            self.read(0.1)
        while self.read(0.1):
            pass
        return self.process.returncode, self.sent.rpartition(MAIN_SCREEN)[2].decode()

    def assert_restored(self):
        assert termios.tcgetattr(self.theirs) == self.before
        assert self.sent.count(b"\x1b[?1049h") == self.sent.count(MAIN_SCREEN) > 0
        assert self.sent.rfind(SHOW_CURSOR) > self.sent.rfind(b"\x1b[?25l")


def test_the_panel_shows_the_stream_and_obeys_the_keys(server, tmp_path):
    with Terminal([*LIVE, "--strength", "10"], cwd=tmp_path) as terminal:
        terminal.until("● running", "system → system  16000 Hz", "Hearing  speech   strength 10 dB", "▶ 1 speech")
        terminal.until("window        128 samples     8.0 ms", "median", "p99.9", "max", "late hops", "q quit")
        terminal.type("2")
        terminal.until("Hearing  residual ", "▶ 2 residual")
        terminal.type("\t")
        terminal.until("Hearing  speech")
        terminal.type("\x1b[D")
        terminal.until("Hearing  residual")
        terminal.type("\x1b[C")
        terminal.until("Hearing  speech")
        terminal.type("\x1b[A")
        terminal.until("strength 12 dB")
        terminal.type("--")
        terminal.until("strength 6 dB")
        terminal.type("b")
        terminal.until("Hearing  mixture   bypass of speech, strength 6 dB", "▶   mixture")
        terminal.type(" ")
        terminal.until("Hearing  speech")
        terminal.type("l")
        terminal.until("window         64 samples     4.0 ms")
        terminal.type("i++o-g")
        terminal.until("strength 6 dB  in +2 dB  out -1 dB  gate off", "↑↓ gate")
        terminal.type("+")
        terminal.until("gate 0.05 (")
        terminal.type("g+")
        terminal.until("strength 9 dB", "↑↓ strength")
        terminal.type("r")
        terminal.until(" rec 0:0", "recording to rtsep-")
        terminal.type("r")
        terminal.until("recorded to rtsep-")
        terminal.type("9q")
        status, rest = terminal.finish()
    assert status == 0
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"mixture.wav", "speech.wav", "residual.wav"}
    assert sf.info(folder / "mixture.wav").frames > 0
    assert "system -> system, 16000 Hz, speech, residual" in rest
    assert "hops late" in rest


def test_after_a_resize_nothing_is_left_over_and_q_restores_the_terminal(server):
    with Terminal(LIVE) as terminal:
        terminal.until("q quit")
        for width, height in [(40, 12), (140, 45), (20, 4), (80, 24)]:
            terminal.resize(width, height)
            fresh = pyte.Screen(width, height)
            terminal.screens = [terminal.screen, fresh]
            end = time.monotonic() + PATIENCE_S
            while "rtsep" not in fresh.display[0] or "source" not in fresh.display[-1]:
                assert time.monotonic() < end, terminal.text
                terminal.read(0.5)
            for _ in range(20):  # frames that were made for the size before are over
                terminal.read(0.05)
            assert terminal.screen.display == fresh.display
            assert fresh.display[0].startswith(" rtsep  ● run")
            assert fresh.display[-1].startswith(" 1-2 ")
            assert "Hearing  speech" in terminal.text
        terminal.type("q")
        status, rest = terminal.finish()
        terminal.assert_restored()
    assert status == 0
    assert "hops late" in rest
    assert "Hearing" not in rest


def break_it(terminal):
    terminal.process.send_signal(signal.SIGUSR1)


BROKEN = (
    "import signal, sys; from rtsep.cli import main; "
    "signal.signal(signal.SIGUSR1, lambda *_: 1 / 0); sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    ("end", "status", "last_words"),
    [
        (lambda terminal: terminal.type("\x03"), 0, "hops late"),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 143, "hops late"),
        (break_it, 1, "ZeroDivisionError"),
    ],
    ids=["Ctrl-C", "SIGTERM", "an exception"],
)
def test_every_other_end_restores_the_terminal(server, end, status, last_words):
    with Terminal([sys.executable, "-c", BROKEN, *LIVE[3:]]) as terminal:
        terminal.until("q quit")
        assert termios.tcgetattr(terminal.theirs) != terminal.before
        end(terminal)
        ended, rest = terminal.finish()
        terminal.assert_restored()
    assert ended == status
    assert last_words in rest
    assert "Hearing" not in rest


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_brings_the_panel_back(server):
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not installed")
    with Terminal([bash, "--norc", "--noprofile", "-i"], env={"PS1": "ready> "}) as terminal:
        terminal.until("ready>")
        terminal.type(f"{' '.join(LIVE)}; echo status $?\n")
        terminal.until("q quit")
        terminal.type("\x1a")
        terminal.until("Stopped", "status 148", "ready>")
        assert terminal.sent.count(MAIN_SCREEN) == 1
        terminal.screen.reset()
        terminal.type("fg\n")
        terminal.until("● running", "q quit")
        terminal.type("q")
        terminal.until("hops late", "ready>")
        assert terminal.sent.count(MAIN_SCREEN) == 2
        assert terminal.sent.rfind(SHOW_CURSOR) > terminal.sent.rfind(b"\x1b[?25l")


@pytest.mark.parametrize(("options", "env"), [(["--plain"], {}), ([], {"TERM": "dumb"})])
def test_lines_instead_of_the_panel(server, options, env):
    with Terminal([*LIVE, *options, "--seconds", "1.2"], env=env) as terminal:
        status, printed = terminal.finish()
    assert status == 0
    assert "\x1b" not in printed
    assert printed.count(" load median ") == 2
    assert "hops late" in printed


def test_without_a_keyboard_the_panel_says_so_and_runs(server):
    with Terminal([*LIVE, "--seconds", "2"], stdin=subprocess.DEVNULL) as terminal:
        terminal.until("Hearing  speech", "no keys, standard input is no terminal")
        assert terminal.finish()[0] == 0
        terminal.assert_restored()
