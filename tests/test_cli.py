"""The command line as users and scripts see it: what it prints, its exit status, what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile as sf
from test_files import MINUS_100_DB, limited_file_size, posix, read, recording, sparse_wav, write

from rtsep import list_estimators, list_phases
from rtsep.cli import main

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = (
    *("estimator", "phase", "iterations", "lookahead", "window-ms", "hop-ms", "strength"),
    *("format", "overwrite", "plot", "json"),
)
PLAIN = ("--estimator", "passthrough", "--phase", "mixture")  # the quickest to compile


def rtsep(*args: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    command = [sys.executable, "-m", "rtsep", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def separate(*args: object) -> int:
    """The same in this process, which is quicker."""
    return main(["separate", *map(str, args), *PLAIN])


def test_a_file_becomes_a_file_per_source_and_the_summary_names_them(tmp_path):
    path = write(tmp_path / "in.wav", recording(24_000))
    run = rtsep("separate", path, "-o", tmp_path / "out")
    assert (run.returncode, run.stderr) == (0, "")
    outputs = [tmp_path / "out" / f"in.{name}.wav" for name in ("speech", "residual")]
    assert sorted(os.listdir(tmp_path / "out")) == ["in.residual.wav", "in.speech.wav"]
    assert np.abs(sum(map(read, outputs)) - read(path)).max() < MINUS_100_DB
    assert "0:01.500, 16000 Hz, 1 channel" in run.stdout
    assert all(str(output) in run.stdout for output in outputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iterations", "x"], "argument --iterations: invalid int value: 'x'"),
        (["--iterations", "-1"], "--iterations=-1 is not between 0 and 1000"),
        (["--lookahead", "all"], "--phase='omisi' does not take --lookahead=all"),
        (["--lookahead", "99"], "--lookahead=99 is not between 0 and 32"),
        (["--window-ms", "nan"], "--window-ms=nan is not between 0.005 and 1000 ms"),
        (["--window-ms", "16", "--hop-ms", "20"], "--hop-ms=20 is too long for a window of 16 ms"),
        (["--hop-ms", "0"], "--hop-ms=0.0 is not between"),
        (["--strength", "-3"], "--strength=-3.0 is not 0 dB or more"),
        (["--estimator", "magic"], "--estimator='magic' is not one of"),
        (["--estimator", "oracle"], "--estimator='oracle' is for the library: it needs the true sources"),
        (["--phase", "magic"], "--phase='magic' is not one of "),
        (["--phase", "mixture", "--iterations", "3"], "--phase='mixture' does not take --iterations=3"),
        (["--format", "wma"], "argument --format: invalid choice: 'wma'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_options_are_refused_in_one_line_with_the_value(tmp_path, capsys, options, message):
    path = write(tmp_path / "in.wav", recording(2_000))
    # `passthrough` first: a later --estimator wins.
    assert main(["separate", str(path), "-o", str(tmp_path / "out"), "--estimator", "passthrough", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"words", "is not an audio file"), (None, "No such file or directory")],
)
def test_a_bad_file_is_one_line_and_status_2(tmp_path, capsys, content, message):
    path = tmp_path / "in.wav"
    if content is not None:
        path.write_bytes(content)
    assert separate(path, "-o", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rtsep: {path}: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_keeps_its_shape_and_a_bad_file_is_reported_at_the_end(tmp_path, capsys):
    top = tmp_path / "in"
    (top / "sub").mkdir(parents=True)
    (top / ".hidden").mkdir()
    write(top / "b.wav", recording(2_000))
    write(top / "sub" / "b.flac", recording(2_000, 2), subtype="PCM_16")
    write(top / ".hidden" / "c.wav", recording(2_000))
    (top / "a.wav").write_text("words")
    (top / "notes.txt").write_text("words")
    assert separate(top, "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"rtsep: {top / 'a.wav'}: is not an audio file that libsndfile")
    assert "left out, whose names are not of audio files: notes.txt" in captured.out
    made = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert made == ["b.signal.wav", "sub/b.signal.wav"]


@pytest.mark.parametrize("out", ["in", "in/out"])
def test_outputs_of_an_earlier_run_are_not_inputs_of_the_next(tmp_path, out):
    top = tmp_path / "in"
    top.mkdir()
    write(top / "a.wav", recording(2_000))
    for format in ("wav", "flac", "wav"):
        assert separate(top, "-o", tmp_path / out, "--overwrite", "--format", format) == 0
    made = {p.name for p in top.rglob("*") if p.is_file()}
    assert made == {"a.wav", "a.signal.wav", "a.signal.flac"}


def test_a_folder_without_audio_is_named(tmp_path, capsys):
    assert separate(tmp_path, "-o", tmp_path / "out") == 2
    assert capsys.readouterr().err == f"rtsep: {tmp_path}: no audio files in this folder\n"


def test_inputs_that_differ_by_their_suffix_keep_it(tmp_path, capsys):
    top = tmp_path / "in"
    top.mkdir()
    a, b = write(top / "a.wav", recording(2_000)), write(top / "a.flac", recording(2_000), subtype="PCM_16")
    write(top / "b.wav", recording(2_000))
    for inputs in ([top], [a, b, top / "b.wav"], [top]):  # and again
        assert separate(*inputs, "-o", tmp_path / "out", "--overwrite") == 0
        made = ["a.flac.signal.wav", "a.wav.signal.wav", "b.signal.wav"]
        assert sorted(os.listdir(tmp_path / "out")) == made
        assert "2 inputs of the same name keep their suffix" in capsys.readouterr().out
    assert separate(top, "-o", top) == separate(top, "-o", top, "--skip-existing") == 0
    assert len(os.listdir(top)) == 6


def test_two_inputs_with_the_same_outputs_are_refused_before_anything_is_done(tmp_path, capsys):
    (tmp_path / "b").mkdir()
    a, b = write(tmp_path / "a.wav", recording(2_000)), write(tmp_path / "b" / "a.wav", recording(2_000))
    assert separate(a, b, "-o", tmp_path / "out") == 2
    message = f"rtsep: {a} and {b} would both become {tmp_path / 'out' / 'a.wav.signal.wav'}"
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "out").exists()
    assert separate(a, a, "-o", tmp_path / "out") == 0  # named twice, done once


def test_an_input_is_never_overwritten(tmp_path, capsys):
    a, b = write(tmp_path / "a.wav", recording(2_000)), write(tmp_path / "a.signal.wav", recording(2_000))
    before = b.read_bytes()
    assert separate(a, b, "-o", tmp_path, "--overwrite") == 2
    assert f"{b} is an input, and would be an output of {a}" in capsys.readouterr().err
    assert b.read_bytes() == before


def test_existing_outputs_are_refused_and_replaced_if_told(tmp_path, capsys):
    path = write(tmp_path / "in.wav", recording(2_000))
    assert separate(path, "-o", tmp_path) == 0
    assert separate(path, "-o", tmp_path) == 2
    assert "in.signal.wav exists (--overwrite replaces it)" in capsys.readouterr().err
    assert separate(path, "-o", tmp_path, "--overwrite") == 0


def test_json_is_all_there_is_on_stdout(tmp_path, capsys):
    path = write(tmp_path / "in.wav", signals.hostile()["not finite"])
    bad = tmp_path / "bad.wav"
    bad.touch()
    assert separate(path, bad, "-o", tmp_path, "--json", "--plot") == 2
    captured = capsys.readouterr()
    report = json.loads(captured.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["failed"] == [{"input": str(bad), "error": "is empty: 0 bytes"}]
    assert report["settings"]["estimator"]["name"] == "passthrough"
    assert report["settings"]["output"]["strength_db"] is None
    (done,) = report["files"]
    assert done["outputs"] == {"signal": str(tmp_path / "in.signal.wav")}
    assert Path(done["plot"]).read_bytes().startswith(b"\x89PNG")
    assert (done["sr"], done["n_channels"], done["n_samples"], done["duration_s"]) == (16_000, 1, 4_000, 0.25)
    assert done["counts"]["replaced"] == 12
    assert "12 input samples were not finite" in done["remarks"][0]
    assert captured.err == f"rtsep: {bad}: is empty: 0 bytes\n"


def test_what_spoils_the_sum_is_said_in_words(tmp_path, capsys):
    path = write(tmp_path / "in.wav", signals.hostile()["square"])
    assert separate(path, "-o", tmp_path, "--format", "wav16") == 0
    assert re.search(r"note: \d+ samples were turned down by the limiter", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["a [b] (c).wav", "Grüße 日本.wav", "b\udcff.wav", "-x.wav", "%s{}.wav"])
def test_any_file_name_works(tmp_path, name):
    try:
        path = write(tmp_path / "in.wav", recording(2_000)).rename(tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("this file system does not allow the name")
    assert separate(path, "-o", tmp_path / "out", "--plot") == 0
    assert sorted(os.listdir(tmp_path / "out")) == [f"{path.stem}.png", f"{path.stem}.signal.wav"]


@posix
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_run_leaves_nothing_and_says_so_in_one_line(tmp_path, number, status, word):
    path = sparse_wav(tmp_path / "in.wav", 3600)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rtsep", "separate", str(path), "-o", str(out), *PLAIN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (out.exists() and os.listdir(out)):
            assert process.poll() is None
            time.sleep(0.02)
        assert os.listdir(out)[0].endswith(".part")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stdout.count("\n"), stderr) == (status, 1, f"rtsep: {word}\n")
    assert not out.exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of the memory from /proc")
def test_memory_does_not_grow_with_the_length(tmp_path):
    # Not by getrusage, whose peak includes that of the process which this one was forked from.
    code = "import sys; from rtsep.cli import main; main(sys.argv[1:]); print(open('/proc/self/status').read())"
    peaks = []
    for minutes in (0.2, 2):
        path = sparse_wav(tmp_path / f"{minutes}.wav", 60 * minutes)
        command = [sys.executable, "-c", code, "separate", str(path), "-o", str(tmp_path), *PLAIN]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        peaks.append(int(run.stdout.split("VmHWM:")[1].split()[0]) / 2**10)
    assert peaks[1] - peaks[0] < 20  # MiB; the samples of two minutes are 44 MiB
    assert peaks[1] < 300


@posix
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    path = sparse_wav(tmp_path / "in.wav", 4)
    with limited_file_size(1_000_000):  # the child inherits it
        run = rtsep("separate", path, "-o", tmp_path / "out", *PLAIN)
    assert run.returncode == 2
    assert run.stderr == f"rtsep: {path}: {tmp_path / 'out' / 'in.signal.wav'} cannot be written: disk full?\n"
    assert not (tmp_path / "out").exists()


def test_a_terminal_shows_a_progress_bar_and_a_pipe_does_not(tmp_path):
    pty = pytest.importorskip("pty")
    path = sparse_wav(tmp_path / "in.wav", 60)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rtsep", "separate", str(path), "-o", str(tmp_path / "out"), *PLAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as run:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # how Linux says that the other end was closed
                break
            if not data:
                break
            shown += data
        assert run.stdout is not None
        printed = run.stdout.read()
    os.close(ours)
    assert run.returncode == 0
    assert b"in.wav" in shown
    assert b"%" in shown
    assert b"%" not in printed
    assert b"signal" in printed


def test_list_names_everything_with_a_line_and_says_why_the_oracle_is_not_for_files(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, summary in (list_estimators() | list_phases()).items():
        assert any(line.split() and line.split()[0] == name and summary in line for line in lines)
    (oracle,) = [line for line in lines if line.split()[0] == "oracle"]
    assert oracle.endswith("Not on the command line: it needs the true sources.")


def test_help_is_complete_and_loads_neither_matplotlib_nor_portaudio():
    code = "import sys; from rtsep.cli import main; status = main(sys.argv[1:]); "
    code += "print({'matplotlib', 'sounddevice', 'rich'} & set(sys.modules), status)"
    for command in ("demo", "separate", "live", "devices", "doctor", "list"):
        text = subprocess.check_output([sys.executable, "-c", code, command, "--help"], text=True)
        assert text.endswith("set() 0\n")
        assert text.startswith(f"usage: rtsep {command}")
        if command == "separate":
            for option in [
                "estimator",
                "phase",
                "iterations",
                "lookahead",
                "window-ms",
                "hop-ms",
                "strength",
                "plot",
                "json",
                "overwrite",
                "format",
            ]:
                assert f"--{option}" in text


def test_no_command_is_an_error_in_one_line():
    run = rtsep()
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "rtsep: the following arguments are required: COMMAND (see rtsep --help)\n"


@posix
def test_a_reader_that_goes_away_ends_the_run_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "rtsep", "list"]
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")


def test_the_demo_writes_sources_and_picture_and_prints_latency_and_load(tmp_path):
    out, made = tmp_path / "rtsep-demo", ["noisy_speech.png", "noisy_speech.residual.wav", "noisy_speech.speech.wav"]
    out.mkdir()
    for name in made:  # as if there had been a run before
        (out / name).touch()
    run = rtsep("demo", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert sorted(os.listdir(out)) == made
    assert (out / made[0]).read_bytes().startswith(b"\x89PNG")
    assert re.search(r"latency +256 samples +16\.0 ms", run.stdout)
    assert re.search(r"load +median [\d.]+ %, p99 [\d.]+ %, max [\d.]+ % of the 4 ms of a hop", run.stdout)
    assert all(f"rtsep-demo/{name}" in run.stdout for name in made)
    mixture = read(ROOT / "rtsep" / "data" / "noisy_speech.flac")
    assert np.abs(read(out / made[1]) + read(out / made[2]) - mixture).max() < MINUS_100_DB


def test_the_shipped_recording_is_small_and_its_rights_are_beside_it():
    folder = ROOT / "rtsep" / "data"
    info = sf.info(folder / "noisy_speech.flac")
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert 6 <= info.duration <= 8
    assert (folder / "noisy_speech.flac").stat().st_size < 300_000
    assert "CC BY 4.0" in (folder / "README.md").read_text()


def test_the_demo_scripts_run(tmp_path):
    path = write(tmp_path / "in.wav", recording(24_000, 2))
    subprocess.run([sys.executable, ROOT / "demos" / "file_separate.py", path, tmp_path], check=True)
    sources = [read(tmp_path / f"{name}.wav") for name in ("speech", "residual")]
    assert np.abs(sum(sources) - read(path)).max() < MINUS_100_DB
    text = subprocess.check_output([sys.executable, ROOT / "demos" / "custom_estimator.py"], text=True)
    shares = re.findall(r"([\d.]+) % of the power", text)
    assert len(shares) == 2
    assert shares[0] == shares[1]
    assert 90 < float(shares[0]) < 100


@posix
def test_an_interrupted_start_is_one_line_whatever_is_being_imported():
    # `list` imports what every command does.
    command = [sys.executable, "-X", "importtime", "-m", "rtsep", "list"]
    for module in ("rtsep.cli.inputs", "numpy", "llvmlite.binding", "numba.core.types", "rtsep.kernels.jit"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            while module not in run.stderr.readline():
                assert run.poll() is None, f"{module} was not imported"
            run.send_signal(signal.SIGINT)
            *_, last = run.stderr.read().splitlines()
        assert (run.returncode, last) == (130, "rtsep: interrupted"), module


def test_the_package_loads_what_is_used():
    code = "import sys, rtsep; print('numba' in sys.modules, 'numpy' in sys.modules)"
    code += "; from rtsep import *; print('omisi' in list_phases(), Separator.__module__, phase.OMISI.name)"
    code += "; print(set(rtsep.__all__) <= set(dir(rtsep)), hasattr(rtsep, 'nothing'))"
    code += "; print('torch' in sys.modules)"  # an extra, which many have not
    text = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert text.splitlines() == ["False False", "True rtsep.separator omisi", "True False", "False"]
