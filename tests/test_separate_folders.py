"""Folders: all of it is done or named, on all cores, again and again, and by one run at a time."""

from __future__ import annotations

import dis
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import soundfile as sf
from test_cli import PLAIN, rtsep, separate
from test_files import posix, read, recording, sparse_wav, write

from rtsep import staging
from rtsep.audio_files import FileError, StagedFiles
from rtsep.cli import main
from rtsep.cli.jobs import run_jobs
from rtsep.files import FileSeparator


@pytest.fixture
def folder(tmp_path):
    """Files of several lengths, rates and channels."""
    top = tmp_path / "in"
    top.mkdir()
    for i in range(7):
        write(top / f"{i}.wav", recording(20_000 + 1_000 * i, 1 + i % 2), (16_000, 22_050)[i % 3 == 0])
    return top


def test_several_jobs_give_the_same_bits_as_one(folder, tmp_path):
    for jobs in (1, 3):
        options = ["--phase", "omisi", "--iterations", "1"]
        assert main(["separate", str(folder), "-o", str(tmp_path / str(jobs)), "--jobs", str(jobs), *options]) == 0
    names = sorted(os.listdir(tmp_path / "1"))
    assert len(names) == 14
    assert names == sorted(os.listdir(tmp_path / "3"))
    for name in names:
        assert np.array_equal(read(tmp_path / "1" / name), read(tmp_path / "3" / name))


def test_json_is_in_the_order_of_the_inputs_whoever_is_done_first(folder, tmp_path, capsys):
    write(folder / "0.wav", recording(400_000))
    assert separate(folder, "-o", tmp_path / "out", "--jobs", "4", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [file["input"] for file in report["files"]] == [str(folder / f"{i}.wav") for i in range(7)]


def test_a_job_that_fails_leaves_the_others_alone_and_jobs_stop_together():
    def work(item, alive):
        if item == 3:
            raise RuntimeError("three")
        for _ in range(1000):
            alive()
            time.sleep(0.001)
        return item

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="three"):
        list(run_jobs(work, [3, *range(10, 30)], 4))
    assert time.monotonic() - start < 15  # all would take five seconds and more for each four
    assert threading.active_count() < 4
    assert dict(run_jobs(lambda item, alive: item**2, list(range(50)), 8)) == {i: i**2 for i in range(50)}


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_a_number_of_jobs_that_cannot_be_is_refused(tmp_path, capsys, jobs):
    assert separate(write(tmp_path / "a.wav", recording(100)), "--jobs", jobs) == 2
    assert capsys.readouterr().err == f"rtsep: --jobs={jobs} is less than 1\n"


def test_what_cannot_be_read_is_named_and_the_rest_is_done(tmp_path, capsys):
    top = tmp_path / "in"
    top.mkdir()
    write(top / "a.wav", recording(2_000))
    for name in ("b.m4a", "c.mp4", "d.wma", "e.webm"):
        (top / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    for name, format in (("f.sph", "NIST"), ("g.voc", "VOC"), ("h.snd", "AU")):
        sf.write(top / name, recording(2_000).T, 16_000, format=format, subtype="PCM_16")
    for name in ("cover.jpg", "notes", ".hidden"):
        (top / name).write_text("words")
    assert separate(top, "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    named = [line.split(": ")[1] for line in captured.err.splitlines()]
    assert named == [str(top / name) for name in ("b.m4a", "c.mp4", "d.wma", "e.webm")]
    assert sorted(os.listdir(tmp_path / "out")) == [f"{stem}.signal.wav" for stem in "afgh"]
    assert "left out, whose names are not of audio files: cover.jpg, notes\n" in captured.out


def test_a_second_run_is_one_line_and_skips_what_is_there(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert separate(folder, "-o", out) == 0
    before = {name: (out / name).stat().st_mtime_ns for name in os.listdir(out)}
    capsys.readouterr()
    assert separate(folder, "-o", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rtsep: 7 files have outputs already")
    (out / "3.signal.wav").unlink()
    assert separate(folder, "-o", out, "--skip-existing") == 0
    said = capsys.readouterr().out
    assert "6 files had outputs already" in said
    assert "3.wav" in said
    assert "4.wav" not in said
    after = {name: (out / name).stat().st_mtime_ns for name in os.listdir(out)}
    assert {name for name in after if after[name] != before[name]} == {"3.signal.wav"}
    assert separate(folder, "-o", out, "--skip-existing", "--overwrite") == 2
    assert separate(folder, "-o", out, "--skip-existing", "--json") == 0


def test_without_a_folder_outputs_go_beside_the_input_and_the_engine_is_named(tmp_path, capsys, monkeypatch):
    write(tmp_path / "talk.wav", recording(2_000))
    monkeypatch.chdir(tmp_path)
    assert separate("talk.wav") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "estimator passthrough, phase mixture, latency 16 ms (window 16 ms, hop 4 ms)",
        "outputs go beside the input, to .",
    ]
    assert sorted(os.listdir()) == ["talk.signal.wav", "talk.wav"]
    assert main(["separate", "talk.wav", "--window-ms", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("estimator denoise, phase mixture, latency 8 ms (window 8 ms, hop 2 ms)\n")
    assert "note: the network of `speech` is not made for these windows" in said
    assert sorted(os.listdir()) == ["talk.noise.wav", "talk.signal.wav", "talk.speech.wav", "talk.wav"]
    assert main(["separate", "talk.wav", "--estimator", "hpss", "--source", "percussive"]) == 0
    assert (tmp_path / "talk.percussive.wav").exists()
    assert not (tmp_path / "talk.harmonic.wav").exists()


@posix
@pytest.mark.parametrize("stem", ["x" * 242, "録" * 79, "x" * 232])
def test_names_of_up_to_255_bytes_are_written(tmp_path, stem):
    try:
        path = write(tmp_path / f"{stem}.wav", recording(1_000))
    except (OSError, sf.LibsndfileError):
        pytest.skip("this file system does not allow the name")
    out = tmp_path / "out"
    assert separate(path, "-o", out, "--plot") == 0
    assert separate(path, "-o", out, "--plot", "--overwrite") == 0
    assert sorted(os.listdir(out)) == sorted([f"{stem}.png", f"{stem}.signal.wav"])


@posix
def test_a_name_that_becomes_too_long_is_one_line(tmp_path, capsys):
    path = write(tmp_path / f"{'x' * 251}.wav", recording(1_000))
    assert separate(path, "-o", tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith(".signal.wav cannot be written: File name too long\n")


@posix
def test_parts_of_a_killed_run_are_removed_by_the_next(tmp_path):
    path = sparse_wav(tmp_path / "in.wav", 3600)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rtsep", "separate", str(path), "-o", str(out), *PLAIN]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while not (out.exists() and os.listdir(out)):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert [name for name in os.listdir(out) if name.endswith(".part")]
    other = write(tmp_path / "other.wav", recording(1_000))
    done = rtsep("separate", other, "-o", out, *PLAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(out) == ["other.signal.wav"]


@posix
def test_of_two_runs_with_one_output_the_second_is_refused(tmp_path):
    path = sparse_wav(tmp_path / "in.wav", 3600)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rtsep", "separate", str(path), "-o", str(out), *PLAIN]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
        while not (out.exists() and os.listdir(out)):
            assert first.poll() is None
            time.sleep(0.02)
        second = rtsep("separate", path, "-o", out, "--overwrite", *PLAIN)
        assert second.returncode == 2
        assert second.stderr == f"rtsep: {path}: {out / 'in.signal.wav'} is being written by another run\n"
        assert os.listdir(out)  # the first one's
        first.terminate()
    assert not out.exists()


KILLED = """
import os, sys
from pathlib import Path
from rtsep.staging import StagedFiles
paths, left, replace = [Path(name) for name in sys.argv[2:]], int(sys.argv[1]), os.replace
def counted(a, b):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    replace(a, b)
os.replace = counted
with StagedFiles(paths, overwrite=True) as staged:
    for path in paths:
        staged.write(path, b"new")
    staged.commit()
"""


@posix
@pytest.mark.parametrize("n", range(7))
def test_files_of_a_run_that_was_killed_are_all_old_or_all_new(n, tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c", "d")]
    for path in paths[:3]:
        path.write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(n), *map(str, paths)]).returncode == 9
    with pytest.raises(FileError, match="exists"):
        StagedFiles(paths, overwrite=False)
    with StagedFiles([tmp_path / "other"], overwrite=False) as staged:  # whoever comes next removes what is left
        staged.part(tmp_path / "other")
    found = [path.read_text() if path.exists() else "" for path in paths]
    assert found == (["new"] * 4 if n else ["old"] * 3 + [""])
    assert len(os.listdir(tmp_path)) == (4 if n else 3)


@posix
@posix
def test_a_signal_at_any_moment_leaves_nothing(tmp_path):
    # A Ctrl-C 0.1 ms after the file was made left it. Signals are handled after calls and jumps back.
    output = tmp_path / "new" / "out.wav"
    left, n_instructions, last = [], 0, 0
    before = {}

    def trace(frame, event, arg):
        nonlocal n_instructions
        if frame.f_code.co_filename != staging.__file__ or frame.f_code.co_name in ("__exit__", "__init__"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            n_instructions += before.get(frame, "").startswith(("CALL", "RESUME", "JUMP_"))
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if n_instructions == last:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    while n_instructions == last:
        last, n_instructions = last + 1, 0
        before.clear()
        staging._looked_at.clear()
        tracer = sys.gettrace()
        with suppress(KeyboardInterrupt), StagedFiles([output], overwrite=False) as staged:
            sys.settrace(trace)
            try:
                staged.part(output)
            finally:
                sys.settrace(tracer)
        left += [last] * any(tmp_path.iterdir())
    assert (last > 10, left) == (True, [])


def test_who_looks_does_not_disturb_who_writes(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c", "d")]
    done = threading.Event()

    def look():
        while not done.is_set():
            StagedFiles(paths, overwrite=True)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            for n in range(200):
                with StagedFiles(paths, overwrite=True) as staged:
                    for path in paths:
                        staged.write(path, b"%d" % n)
                    staged.commit()
        finally:
            done.set()
        looking.result()
    assert {path.read_text() for path in paths} == {"199"}
    assert len(os.listdir(tmp_path)) == 4


@posix
def test_several_that_fail_leave_no_folder(tmp_path):
    for i in range(6):
        write(tmp_path / f"in{i}.wav", recording(40_000))
    code = (
        "import resource, signal, sys; from rtsep.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.exit(main(sys.argv[1:]))"
    )
    files = [str(tmp_path / f"in{i}.wav") for i in range(6)]
    ran = subprocess.run([sys.executable, "-c", code, "separate", *files, "-o", str(tmp_path / "x/y"), *PLAIN])
    assert ran.returncode == 2
    assert not (tmp_path / "x").exists()


@posix
def test_an_interrupted_run_of_several_jobs_leaves_nothing(tmp_path):
    top = tmp_path / "in"
    top.mkdir()
    for i in range(4):
        sparse_wav(top / f"{i}.wav", 3600)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rtsep", "separate", str(top), "-o", str(out), "--jobs", "3", *PLAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not (out.exists() and len(os.listdir(out)) == 3):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert (run.returncode, said) == (130, "rtsep: interrupted\n")
    assert not out.exists()


def test_whole_signals_share_the_memory(tmp_path, monkeypatch):
    from rtsep import files

    paths = [write(tmp_path / f"{i}.wav", recording(16_000)) for i in range(4)]
    separator = FileSeparator("passthrough", "misi")
    config = separator.config_of(type("Reader", (), {"sr": 16_000, "n_channels": 1}))
    needed = files.memory_of_whole(config, 1, 16_000)
    at_once, most = 0, 0
    true_separate = files.separate

    def counting(*args, **options):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)
        try:
            return true_separate(*args, **options)
        finally:
            at_once -= 1

    monkeypatch.setattr(files, "separate", counting)
    monkeypatch.setattr(separator, "_memory", files._Budget(2 * needed))
    list(run_jobs(lambda path, alive: separator.separate(path, tmp_path), paths, 4))
    assert most == 2


@posix
def test_a_full_disk_and_a_locked_folder_cost_the_files_that_do_not_fit(folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(tmp_path / "full")]).returncode:
        pytest.skip("needs to mount a small file system")
    try:
        assert separate(folder, "-o", tmp_path / "full", "--jobs", "2") == 2
        left = os.listdir(tmp_path / "full")
        lines = capsys.readouterr().err.splitlines()
        assert len(left) + len(lines) == 7
        assert all(name.endswith(".signal.wav") for name in left)
        assert all("cannot be written: " in line for line in lines)
    finally:
        subprocess.run(["umount", str(tmp_path / "full")], check=True)
