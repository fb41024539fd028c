"""Separate a corpus, score it, and keep what is done."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from errno import ENOSPC
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtsep import __version__
from rtsep.audio_files import FileError, StagedFiles, make_folder, read_alike
from rtsep.config import MAX_SR, StreamConfig
from rtsep.engine.output import Output
from rtsep.engine.registry import is_whole
from rtsep.errors import ConfigError
from rtsep.estimators import Oracle
from rtsep.evaluation.checks import ScoreError
from rtsep.evaluation.corpus import Item
from rtsep.evaluation.matching import match
from rtsep.evaluation.ratios import si_sdr
from rtsep.evaluation.scores import Scene, check_scores, is_speech, measure
from rtsep.evaluation.workers import Failure, Task
from rtsep.offline import separate
from rtsep.plain import describe, plain
from rtsep.staging import writing

DONE = "done.jsonl"
RUN = "run.json"
ORACLE = "oracle"
RESIDUAL = "residual"


@dataclass(frozen=True)
class Setup:
    """One way to separate.

    Parameters
    ----------
    label : str
        What it is called in tables.
    estimator : settings, or "oracle"
        The latter is given the true sources of each mixture.
    phase : settings
        Of the phase recovery.
    output : Output
        Strength, ceiling, fade-in.
    window_ms, hop_ms, latency_ms : float, optional
        As in `StreamConfig.from_ms`.
    """

    label: str
    estimator: Any
    phase: Any
    output: Output = field(default_factory=Output)
    window_ms: float | None = None
    hop_ms: float | None = None
    latency_ms: float | None = None

    def config(self, sr: int, n_channels: int) -> StreamConfig:
        """Of the stream for a mixture."""
        return StreamConfig.from_ms(sr, self.window_ms, self.hop_ms, n_channels, latency_ms=self.latency_ms)

    @property
    def latency(self) -> str:
        """That of a stream of it, "16 ms", or "whole signal"."""
        if is_whole(self.estimator) or self.phase.lookahead is None:
            return "whole signal"
        config = self.config(MAX_SR, 1)
        return f"{1e3 * (config.synthesis + self.phase.lookahead * config.hop) / MAX_SR:g} ms"

    def plain(self) -> dict[str, Any]:
        """All settings as plain values."""
        return {
            "label": self.label,
            "estimator": {"name": ORACLE} if self.estimator == ORACLE else describe(self.estimator),
            "phase": describe(self.phase),
            "output": asdict(self.output),
            **self.config(MAX_SR, 1).times_ms,
            "latency": self.latency,
        }


class Separated(NamedTuple):
    """A scene, and the seconds that separating it took."""

    scene: Scene
    elapsed_s: float


def separate_item(item: Item, setup: Setup) -> Separated:
    """Separate a mixture, and pair the estimates with the true sources.

    Raises
    ------
    OSError, ConfigError
        If a file cannot be read, files differ in rate, channels or length, or sources cannot be paired.

    Notes
    -----
    Sources pair by name. If no name is on both sides, and there are as many of them, or as many talkers, the pairs with
    the best sum of SI-SDR are taken. An estimate called `residual` is compared with the sum of all sources that are
    left.
    """
    names = tuple(item.sources)
    signals, sr = read_alike([item.mixture, *item.sources.values()])
    mixture, references = signals[0], signals[1:]
    estimator = Oracle(references) if setup.estimator == ORACLE else setup.estimator
    config = setup.config(sr, len(mixture))
    _compile(config, setup, len(references))
    start = time.perf_counter()
    estimates = separate(mixture, sr, estimator, setup.phase, config=config, output=setup.output)
    elapsed_s = time.perf_counter() - start
    found = names if setup.estimator == ORACLE else tuple(estimator.sources)
    pairs = _pair(names, references, found, estimates)
    if not pairs:
        raise ConfigError(f"{setup.label} makes {', '.join(found)}, the mixture has {', '.join(names)}")
    here, there = list(pairs), list(pairs.values())
    sources, true, heard = [names[j] for j in here], references[here], estimates[there]
    rest = [j for j in range(len(names)) if j not in pairs]
    if rest and RESIDUAL in found and RESIDUAL not in names:
        sources.append(names[rest[0]] if len(rest) == 1 else RESIDUAL)
        true = np.concatenate([true, references[rest].sum(0, keepdims=True)])
        heard = np.concatenate([heard, estimates[[found.index(RESIDUAL)]]])
    return Separated(Scene(sr, tuple(sources), true, heard, mixture), elapsed_s)


def evaluate_item(item: Item, setup: Setup, scores: Sequence[str]) -> list[dict[str, Any]] | Failure:
    """Separate and score one mixture.

    Returns
    -------
    list of dict, or Failure
        A row for each source: what it is, `real_time_factor`, the scores, and `reasons` of those that are NaN.
    """
    try:
        scene, elapsed_s = separate_item(item, setup)
        rows = measure(scene, scores, speech=[name for name in scene.sources if is_speech(name)])
    except Exception as problem:  # whatever a file does to a package, the others go on
        known = isinstance(problem, (FileError, ConfigError, ScoreError))
        return Failure(str(problem) if known else f"{type(problem).__name__}: {problem}")
    duration_s = scene.references.shape[-1] / scene.sr
    head = {"setup": setup.label, "id": item.id, "class": item.label, "snr_db": item.snr_db, "duration_s": duration_s}
    return [
        head
        | {"source": row.source, "real_time_factor": elapsed_s / duration_s}
        | row.values
        | {"reasons": row.reasons}
        for row in rows
    ]


_compiled: set[tuple[StreamConfig, str, int]] = set()


def _compile(config: StreamConfig, setup: Setup, n_src: int) -> None:
    """Make the kernels ready, once in a process, so that no mixture is charged for it."""
    key = (config, setup.label, n_src)
    if key not in _compiled:
        silence = np.zeros((config.n_channels, config.hop), np.float32)
        estimator = Oracle(np.zeros((n_src, *silence.shape))) if setup.estimator == ORACLE else setup.estimator
        separate(silence, config.sr, estimator, setup.phase, config=config, output=setup.output)
        _compiled.add(key)


def _pair(
    names: tuple[str, ...], references: np.ndarray, found: tuple[str, ...], estimates: np.ndarray
) -> dict[int, int]:
    """Index of the estimate for that of each true source that has one; empty if they do not fit."""
    pairs = {j: found.index(name) for j, name in enumerate(names) if name in found}
    if pairs:
        return pairs
    talkers = [j for j, name in enumerate(names) if is_speech(name)]
    own = [k for k, name in enumerate(found) if name != RESIDUAL]
    everything, every = list(range(len(names))), list(range(len(found)))
    for here, there in ((talkers, own), (everything, every), (everything, own)):
        if len(here) == len(there):
            best = _best_pairs(references[here], estimates[there])
            return {j: there[k] for j, k in zip(here, best, strict=True)}
    return {}


def _best_pairs(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    try:
        return match([[si_sdr(s.ravel(), e.ravel()) for e in estimates] for s in references])
    except ScoreError as problem:
        raise ConfigError(f"the sources cannot be matched: {problem}") from None


class Evaluation:
    """An evaluation in a folder, which can be interrupted and gone on with.

    Parameters
    ----------
    folder : Path
        For the results. `done.jsonl` gets a line for each mixture and setup as soon as it is done.
    items : sequence of Item
        The corpus.
    setups : sequence of Setup
        Ways to separate, with labels of their own; the first is what others are compared with.
    scores : sequence of str
        Names of scores.
    overwrite : bool
        Whether another evaluation in the folder is replaced; without, the same one goes on, and another is refused.

    Raises
    ------
    ConfigError
        For unknown scores, labels that are not unique, or a folder with another evaluation.
    OSError
        If the folder cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        items: Sequence[Item],
        setups: Sequence[Setup],
        scores: Sequence[str],
        overwrite: bool = False,
    ) -> None:
        check_scores(scores)
        labels = [setup.label for setup in setups]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"the same is asked for twice: {', '.join(labels)}")
        self.folder, self.items, self.setups, self.scores = folder, items, setups, scores
        self.rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.failed: dict[tuple[str, str], str] = {}
        self._begin(overwrite)

    def plain(self) -> dict[str, Any]:
        """What is evaluated, as plain values."""
        corpus = hashlib.sha256("\n".join(f"{item.id}\t{item.mixture.name}" for item in self.items).encode())
        return {
            "rtsep": __version__,
            "setups": [setup.plain() for setup in self.setups],
            "scores": list(self.scores),
            "n_mixtures": len(self.items),
            "corpus_sha256": corpus.hexdigest(),
        }

    def tasks(self) -> list[Task]:
        """What is left to do."""
        by_key = {(setup.label, item.id): (item, setup, self.scores) for item in self.items for setup in self.setups}
        return [Task(key, arguments) for key, arguments in by_key.items() if key not in self.rows]

    def run(
        self,
        results: Callable[[Callable[..., Any], Iterable[Task]], Iterator[tuple[Any, Any]]],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Do what is left to do.

        Parameters
        ----------
        results : callable
            `results(function, tasks)` gives keys and results, such as `rtsep.evaluation.workers.run_local`.
        progress : callable, optional
            Called with the tasks done and those in all.

        Raises
        ------
        OSError
            If what is done cannot be written.
        """
        tasks = self.tasks()
        total = len(tasks) + len(self.rows)
        done = self.folder / DONE
        with writing(done):
            lines = open(done, "ab", buffering=0)  # noqa: SIM115
        with lines:
            if progress:
                progress(len(self.rows), total)
            for key, result in results(evaluate_item, tasks):
                self._take(key, result)
                if not isinstance(result, Failure):
                    line = json.dumps({"key": key, "rows": plain(result)}, allow_nan=False).encode() + b"\n"
                    with writing(done):
                        if lines.write(line) < len(line):  # the disk took a part of it
                            raise OSError(ENOSPC, os.strerror(ENOSPC))
                if progress:
                    progress(len(self.rows) + len(self.failed), total)
            with writing(done):
                os.fsync(lines.fileno())

    def table(self) -> list[dict[str, Any]]:
        """All rows, in the order of setups and items."""
        keys = [(setup.label, item.id) for setup in self.setups for item in self.items]
        return [row for key in keys for row in self.rows.get(key, [])]

    def _take(self, key: tuple[str, str], result: list[dict[str, Any]] | Failure) -> None:
        if isinstance(result, Failure):
            self.failed[key] = result.reason
        else:
            self.rows[key] = result

    def _begin(self, overwrite: bool) -> None:
        """Read what an earlier run has done, if it was the same evaluation."""
        wanted = json.loads(json.dumps(plain(self.plain()), allow_nan=False))
        run, done = self.folder / RUN, self.folder / DONE
        if run.exists() and not overwrite:
            try:
                found = json.loads(run.read_bytes())
            except ValueError as problem:
                reason = "is empty" if not run.stat().st_size else f"is not JSON: {problem}"
                raise ConfigError(f"{run} {reason} (--overwrite begins anew)") from None
            if found != wanted:
                raise ConfigError(f"{self.folder} holds another evaluation (--overwrite replaces it)")
            self._read_done(done)
            return
        make_folder(self.folder)
        with writing(run), StagedFiles([run], overwrite=True) as staged:
            done.unlink(missing_ok=True)
            staged.part(run).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            staged.commit()

    def _read_done(self, path: Path) -> None:
        known = {(setup.label, item.id) for setup in self.setups for item in self.items}
        if not path.exists():
            return
        whole = 0  # bytes up to the end of the last complete line
        with open(path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # the run was stopped while it wrote this one
                try:
                    entry = json.loads(line)
                except ValueError:
                    break  # or the machine was
                whole += len(line)
                if tuple(entry["key"]) in known:
                    self.rows[tuple(entry["key"])] = [_with_nan(row) for row in entry["rows"]]
        os.truncate(path, whole)


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return row | {column: math.nan for column in row["reasons"] if row.get(column) is None}
