"""What the panel of `rtsep live` shows, as rows that fill a terminal of any size."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from rtsep.live import Stats

FLOOR_DB = -60.0  # left end of the bars
SILENCE_DB = -99.0  # from here on down, a level has no number
WARM_DB, HOT_DB = -18.0, -6.0  # RMS of loud speech; close to what clips
BUSY, FULL = 0.5, 0.8  # shares of the hop time that deserve a look, and that are dangerous
MAX_NAME = 14
HEARD = ""  # key of what is heard, in peaks and lights: no source has that name
COLUMNS_FROM = 76  # from this width on, delay and load stand side by side

Row = list[Segment]


class Glyphs(NamedTuple):
    """Signs that not every terminal has."""

    bar: str
    half: str
    peak: str
    track: str
    heard: str
    dot: str
    to: str
    sideways: str
    vertical: str


UNICODE = Glyphs("━", "╸", "┃", "─", "▶", "●", "→", "←→", "↑↓")
ASCII = Glyphs("=", "-", "|", ".", ">", "*", "->", "<>", "+-")


@dataclass(frozen=True)
class View:
    """A live stream at one moment, as far as the panel shows it.

    Parameters
    ----------
    devices : (str, str)
        Names of input and output.
    sr : int
        Sample rate in Hz.
    hop_ms : float
    sources : sequence of str
    stats : Stats
    choice : dict
        As `LiveStream.choice`.
    strength_db : float
        The strength as a listener counts it; inf for all.
    stepped : str
        What the keys for stronger and weaker change: "strength", "input gain", "output gain" or "gate".
    gate : float
        Its threshold, 0 for none.
    ledger : dict of str to int
        Samples.
    peaks : dict of str to float
        Highest level of late in dBFS, of "mixture", of each source and of what is `HEARD`.
    lights : set of str
        "mixture" where the input has clipped of late, `HEARD` where a limiter worked.
    messages : sequence of str
        Newest last.
    keys : bool
        Whether there is a keyboard.
    """

    devices: tuple[str, str]
    sr: int
    hop_ms: float
    sources: Sequence[str]
    stats: Stats
    choice: dict[str, Any]
    strength_db: float
    stepped: str
    gate: float
    ledger: dict[str, int]
    peaks: dict[str, float]
    lights: set[str]
    messages: Sequence[str]
    keys: bool


def layout(view: View, width: int, height: int, glyphs: Glyphs = UNICODE) -> list[Row]:
    """`height` rows of `width` cells each; where they are too few, what matters least is left out."""
    # Each row with its rank: the higher, the sooner it goes.
    body = [
        (0, _header(view, glyphs)),
        (5, _devices(view, width, glyphs)),
        (21, _row()),
        (0, _hearing(view, width)),
        (21, _row()),
        *_meters(view, width, glyphs),
        (20, _row()),
        *_delay_and_load(view, width),
        *_messages(view, width, height),
    ]
    footer = _footer(view, width, glyphs)
    order = sorted(range(len(body)), key=lambda i: body[i][0])
    kept = sorted(order[: max(height - 1, 0)])
    rows = [body[i][1] for i in kept]
    rows += [_row()] * (height - 1 - len(rows)) + [footer]
    return [Segment.adjust_line_length(row, width) for row in rows[:height]]


def _row(*pieces: tuple[str, str]) -> Row:
    return [Segment(text, Style.parse(style)) for text, style in pieces]


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{s:02}"


def _header(view: View, glyphs: Glyphs) -> Row:
    stats = view.stats
    color = "green" if stats.state == "running" else "bold red"
    pieces = [(" rtsep", "bold"), (f"  {glyphs.dot} {stats.state}", color), (f" {_clock(stats.elapsed_s)}", "")]
    if stats.recording:
        pieces += [("  rec", "bold red"), (f" {_clock(stats.recorded_s)}", "")]
    return _row(*pieces)


def _devices(view: View, width: int, glyphs: Glyphs) -> Row:
    rate = f" {view.sr} Hz"
    room = width - len(rate) - len(glyphs.to) - 4
    first, second = view.devices
    if cell_len(first) + cell_len(second) > room:
        first = set_cell_size(first, min(cell_len(first), max(room // 2, room - cell_len(second))))
        second = set_cell_size(second, min(cell_len(second), room - cell_len(first)))
    return _row((f" {first} ", ""), (glyphs.to, "dim"), (f" {second} ", ""), (rate, "dim"))


def _hearing(view: View, width: int) -> Row:
    choice, rest = view.choice, view.strength_db
    strength = "full" if math.isinf(rest) else f"{rest:.0f} dB"
    solo = view.sources[choice["solo"]]
    more = _trims(view, solo)
    name, style, notes = solo, "bold black on green", [f"  strength {strength}{more}", f"  strength {strength}", more]
    if view.stats.state != "running":
        name, style, notes = "nothing", "bold white on red", [""]
    elif choice["bypass"]:
        notes = [
            f"  bypass of {name}, strength {strength}{more}",
            f"  bypass of {name}, strength {strength}",
            "  bypass",
        ]
        name, style = "mixture", "bold black on yellow"
    rows = [_row((" Hearing ", ""), (f" {name} ", style), (note, "")) for note in notes]
    return _first_that_fits(rows, width)


def _trims(view: View, solo: str) -> str:
    """Gains and gate, where they do something or the keys change them."""
    notes = ""
    for name, label in (("input gain", "in"), ("output gain", "out")):
        gain = view.choice[name.replace(" ", "_") + "_db"]
        notes += f"  {label} {gain:+.0f} dB" if gain or view.stepped == name else ""
    if view.gate or view.stepped == "gate":
        notes += f"  gate {view.gate:.2f}" if view.gate else "  gate off"
        notes += f" ({view.stats.presence[solo]:.2f} there)"
    return notes


def _meters(view: View, width: int, glyphs: Glyphs) -> list[tuple[int, Row]]:
    levels, peaks = view.stats.levels_db | {HEARD: view.stats.heard_db}, view.peaks
    heard = 0 if view.choice["bypass"] else 1 + view.choice["solo"]
    if view.stats.state != "running":
        levels, heard = dict.fromkeys(levels, SILENCE_DB), None
        peaks = levels
    n_name = min(max(map(cell_len, [*levels, "heard"])), MAX_NAME, width // 4)
    n_bar = max(width - n_name - 14, 1)
    rows = [(15, _row((set_cell_size(" Levels", 6 + n_name), "bold cyan"), (_scale(n_bar), "dim"), ("  dBFS", "dim")))]
    for i, (name, level) in enumerate(levels.items()):
        here = i == heard or name == HEARD
        label = f" {glyphs.heard if i == heard else ' '} {i if 0 < i < min(10, len(levels) - 1) else ' '} "
        value = _row((f" {level:6.1f}" if level > SILENCE_DB else "      -", "bold" if here else ""))
        if name in view.lights:
            value = _row(("  LIMIT" if name == HEARD else "   CLIP", "bold white on red"))
        rows.append(
            (
                1 if i == heard else 2 if name in view.lights else 3,
                _row((label, "bold"), (set_cell_size(name or "heard", n_name) + " ", "bold" if here else ""))
                + _bar(level, peaks[name], n_bar, here, glyphs)
                + value,
            )
        )
    return rows


def _scale(n_bar: int) -> str:
    """Numbers above a bar, each ending where its level is."""
    step = 12 if n_bar >= 30 else 20
    line = ""
    for db in range(int(FLOOR_DB) + step, 1, step):
        line += f"{db:{_cells(db, n_bar) - len(line)}}"
    return line


def _cells(level: float, n_bar: int) -> int:
    return round(n_bar * min(max(1 - level / FLOOR_DB, 0), 1))


def _bar(level: float, peak: float, n_bar: int, heard: bool, glyphs: Glyphs) -> Row:
    """Green, yellow and red where the source is heard; a mark at the peak."""
    halves = _cells(level, 2 * n_bar)
    full, half = divmod(halves, 2)
    signs = (glyphs.bar * full + glyphs.half * half).ljust(n_bar, glyphs.track)
    warm, hot = _cells(WARM_DB, n_bar), _cells(HOT_DB, n_bar)
    styles = ["green"] * warm + ["yellow"] * (hot - warm) + ["red"] * (n_bar - hot)
    if not heard:
        styles = ["blue"] * n_bar
    lit = full + half
    styles[lit:] = ["bright_black"] * (n_bar - lit)
    at = _cells(peak, n_bar) - 1
    if at >= 0:
        signs = signs[:at] + glyphs.peak + signs[at + 1 :]
        styles[at] = "bold white" if peak < HOT_DB else "bold red"
    row: Row = []
    start = 0
    for i in range(1, n_bar + 1):
        if i == n_bar or styles[i] != styles[start]:
            row += _row((signs[start:i], styles[start]))
            start = i
    return row


def _delay_and_load(view: View, width: int) -> list[tuple[int, Row]]:
    delay, load = _delay(view), _load(view)
    if width < COLUMNS_FROM:
        return [*load, (20, _row()), *delay]
    half, rows = width // 2, []
    for i in range(max(len(delay), len(load))):
        left = delay[i] if i < len(delay) else (99, _row())
        right = load[i] if i < len(load) else (99, _row())
        rows.append((min(left[0], right[0]), Segment.adjust_line_length(left[1], half) + right[1]))
    return rows


def _delay(view: View) -> list[tuple[int, Row]]:
    """The ledger; parts that add nothing are left out."""
    rows = [(16, _row((" Delay", "bold cyan")))]
    for name, samples in view.ledger.items():
        if samples:
            rows.append((10, _row((f" {name:10} {samples:6} samples {1000 * samples / view.sr:7.1f} ms", ""))))
    total = sum(view.ledger.values())
    rows.append((4, _row((f" {'sum':10} {total:6} samples {1000 * total / view.sr:7.1f} ms", "bold"))))
    return rows


def _load(view: View) -> list[tuple[int, Row]]:
    stats = view.stats
    rows = [(16, _row((" Load", "bold cyan"), (f"  of the {view.hop_ms:g} ms of a hop", "dim")))]
    for rank, name, label in ((4, "median", "median"), (6, "p999", "p99.9"), (4, "max", "max")):
        share = stats.hop_share[name]
        color = "green" if share < BUSY else "yellow" if share < FULL else "red"
        rows.append((rank, _row((f" {label:10} ", ""), (f"{100 * share:6.1f} %", color))))
    replaced = f" ({stats.replaced_s:.2f} s replaced)" if stats.replaced_s else ""
    faults = [
        ("late hops", stats.late_hops, replaced, "red"),
        ("xruns", stats.xruns, "", "red"),
        ("shed", stats.shed_iterations, " iterations", "yellow"),
        ("clipped", stats.clipped, " samples of the input", "red"),
        ("limited", stats.limited, " samples", "yellow"),
        ("muted", stats.muted, " samples", "red"),
        ("howls", stats.howls, f" (gain {stats.howl_gain_db:.0f} dB)", "red"),
        ("reconnects", stats.reconnects, "", "yellow"),
    ]
    for name, count, note, color in faults:
        if count or name in ("late hops", "xruns"):
            rank = 7 if not count else 2 if color == "red" else 3
            rows.append((rank, _row((f" {name:10} ", ""), (f"{count:6}{note}", color if count else ""))))
    if stats.recording_lost_s:
        rows.append((2, _row((f" {'rec lost':10} ", ""), (f"{stats.recording_lost_s:6.2f} s", "red"))))
    return rows


def _messages(view: View, width: int, height: int) -> list[tuple[int, Row]]:
    """The last one is news, the two before may help, older ones only fill a large screen, each with one row."""
    shown = list(view.messages)[-height:]
    rows = [(20, _row()), (17, _row((" Messages", "bold cyan")))] if shown else []
    for age, message in zip(range(len(shown) - 1, -1, -1), shown, strict=True):
        rank = 2 if age == 0 else 11 + age if age < 3 else 30 + age
        lines = textwrap.wrap(message, max(width - 2, 20), subsequent_indent=" " * 9) if age < 3 else [message]
        rows += [(rank + (i > 0), _row((f" {line}", "" if age == 0 else "dim"))) for i, line in enumerate(lines)]
    return rows


def _footer(view: View, width: int, glyphs: Glyphs) -> Row:
    if not view.keys:
        return _row((" no keys, standard input is no terminal; Ctrl-C ends", "dim"))
    numbers = "1" if len(view.sources) == 1 else f"1-{min(len(view.sources), 9)}"
    choices = {"i": "input", "o": "output", "g": "gate"}
    rest = {"l": "latency", "r": "record", "q": "quit"}
    longest = {f"{numbers} tab {glyphs.sideways}": "source", "b space": "bypass", glyphs.vertical: view.stepped}
    short = {numbers: "source", glyphs.vertical: view.stepped, "b": "bypass", "q": "quit"}
    middle = {numbers: "source", glyphs.vertical: view.stepped, "b": "bypass"}
    rows = []
    for keys, gap in (
        (longest | choices | rest, "   "),
        (middle | choices | rest, "  "),
        (middle | choices | rest, " "),
        (middle | rest, " "),
        (short, " "),
    ):
        row = [piece for key, what in keys.items() for piece in ((gap, ""), (key, "bold"), (f" {what}", "dim"))]
        rows.append(_row((" ", ""), *row[1:]))
    return _first_that_fits(rows, width)


def _first_that_fits(rows: Sequence[Row], width: int) -> Row:
    return next((row for row in rows if Segment.get_line_length(row) <= width), rows[-1])
