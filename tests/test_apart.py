"""What crashes in foreign code costs one value."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import signals
from test_files import posix, write

from rtsep.cli import main
from rtsep.evaluation import ScoreError, pesq
from rtsep.evaluation.apart import call_apart, stop

SR = 16_000


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def shout(x: int) -> int:
    os.write(1, b"what foreign code prints is no answer\n")
    return x + 1


def fail(text: str) -> None:
    raise ScoreError(text)


@pytest.fixture(autouse=True)
def ended():
    yield
    stop()


def test_a_call_returns_or_raises_as_if_it_were_here():
    assert call_apart(shout, 1) == 2
    x = np.arange(5.0)
    np.testing.assert_array_equal(call_apart(np.cumsum, x), np.cumsum(x))
    with pytest.raises(ScoreError, match=r"^no answer$"):
        call_apart(fail, "no answer")
    with pytest.raises(ZeroDivisionError):
        call_apart(divmod, 1, 0)
    assert call_apart(os.getpid) == call_apart(os.getpid) != os.getpid()


@posix
def test_a_crash_is_an_error_with_its_cause_and_the_next_call_works():
    with pytest.raises(ScoreError, match=r"^its program crashed: segmentation fault$"):
        call_apart(crash)
    assert call_apart(shout, 2) == 3


@posix
def test_the_process_ends_with_its_parent_even_in_the_middle_of_a_call(tmp_path):
    code = (
        "import os, sys, threading, time; from rtsep.evaluation.apart import call_apart; "
        "print(call_apart(os.getpid), flush=True); call_apart(time.sleep, 300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    if sys.platform != "linux":
        pytest.skip("only Linux ends a process that is in a call")
    wait_for_end([child])


def wait_for_end(pids: list[int], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < end, f"{left} still run"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def many_utterances(seconds: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Bursts and pauses of 0.6 s: more utterances than PESQ's C code has room for."""
    rng = np.random.default_rng(0)
    t = np.arange(seconds * SR)
    clean = np.where(t // (6 * SR // 10) % 2 == 0, 0.1 * rng.normal(size=t.size), 0).astype(np.float32)
    return clean, (clean + 0.01 * rng.normal(size=t.size)).astype(np.float32)


@posix
def test_pesq_of_many_utterances_crashes_alone(tmp_path, capsys):
    pytest.importorskip("pesq")
    clean, made = many_utterances()
    with pytest.raises(ScoreError, match="PESQ: its program crashed: segmentation fault"):
        pesq(clean, made, SR)
    part = slice(8 * SR)
    assert pesq(clean[part], made[part], SR) > 1
    for name, x in (("clean", clean), ("made", made)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.wav", x, SR)
        write(tmp_path / name / "b.wav", x[part], SR)
    folders = [str(tmp_path / name) for name in ("clean", "made")]
    assert main(["score", *folders, "--scores", "sdr,pesq", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["scores"]["pesq"] is None
    assert first["reasons"]["pesq"] == "PESQ: its program crashed: segmentation fault"
    assert first["scores"]["sdr"] > 10
    assert second["scores"]["pesq"] > 1


@posix
def test_an_evaluation_says_in_its_table_why_a_value_is_missing(tmp_path, capsys):
    pytest.importorskip("pesq")
    clean, made = many_utterances()
    short = signals.voices(4 * SR, n_src=1)[0]
    corpus = tmp_path / "corpus"
    for name, x in (("mixture", made), ("speech", clean), ("noise", made - clean)):
        (corpus / name).mkdir(parents=True)
        write(corpus / name / "long.wav", x, SR)
    for name, x in (("mixture", short + 0.01), ("speech", short), ("noise", 0.01 + 0 * short)):
        write(corpus / name / "short.wav", x, SR)
    out = tmp_path / "out"
    options = ["--estimator", "passthrough", "--jobs", "2", "--scores", "si-sdr,pesq"]
    # `signal` is no source of the mixture; of as many sources as talkers the best pair is taken.
    assert main(["evaluate", str(corpus), "-o", str(out), *options]) == 0
    text = capsys.readouterr().out
    assert "no PESQ of 1 mixture: PESQ: its program crashed: segmentation fault" in text
    assert "1 of 2" in text
