"""`rtsep evaluate --dask` with a real scheduler and real workers on loopback."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from test_evaluate import corpus, mixtures, rows, start  # noqa: F401 - fixtures

from rtsep.cli import main

pytestmark = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs distributed")

COPIES = 20


@contextmanager
def dask(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition) -> None:
    while not condition():
        time.sleep(0.02)


def test_a_worker_that_is_killed_loses_no_mixture_and_none_is_counted_twice(corpus, tmp_path):  # noqa: F811
    lines = (corpus / "manifest.jsonl").read_text().splitlines()
    many = [json.loads(line) | {"id": f"{k}-{i}"} for k in range(COPIES) for i, line in enumerate(lines)]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in many))
    place = tmp_path / "scheduler.json"
    out, done = tmp_path / "out", tmp_path / "out" / "done.jsonl"
    one = ("--scheduler-file", place, "--no-nanny", "--nthreads", 1, "--no-dashboard", "--local-directory", tmp_path)
    with (
        dask("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", place, "--no-dashboard"),
        dask("worker", *one) as first,
        dask("worker", *one),
    ):
        wait_for(lambda: place.exists() and place.stat().st_size > 0)
        address = json.loads(place.read_text())["address"]
        assert "127.0.0.1" in address
        run = start(corpus, "-o", out, "--phase", "mixture", "--dask", address)
        try:
            wait_for(lambda: run.poll() is not None or (done.exists() and done.stat().st_size > 1_000))
            first.kill()
            killed_after = len(done.read_text().splitlines())
            stdout, stderr = run.communicate(timeout=120)
        finally:
            run.kill()
            run.wait()
    assert run.returncode == 0, stderr
    assert 0 < killed_after < 6 * COPIES
    assert str(out / "summary.json") in stdout
    keys = [tuple(json.loads(line)["key"]) for line in done.read_text().splitlines()]
    assert len(set(keys)) == len(keys) == 6 * COPIES
    assert len({(row["id"], row["source"]) for row in rows(out)}) == len(rows(out)) == 12 * COPIES


def test_no_scheduler_is_one_line_and_status_2(mixtures, tmp_path, capsys):  # noqa: F811
    # A port that nothing listens on: the discard service is long gone.
    arguments = ["evaluate", str(mixtures), "-o", str(tmp_path / "out"), "--dask", "tcp://127.0.0.1:9"]
    assert main(arguments) == 2
    assert "rtsep: --dask tcp://127.0.0.1:9: no scheduler there" in capsys.readouterr().err.splitlines()[-1]
