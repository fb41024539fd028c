"""Which files to separate, and which folder their sources go to."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rtsep.errors import ConfigError


def given_path(text: str) -> Path:
    """A path from the command line; an empty one, as from an unset variable, is refused and not the folder here."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


class Job(NamedTuple):
    """A file to separate."""

    path: Path
    folder: Path  # for its sources
    stem: str  # their names begin with it


class Found(NamedTuple):
    """What is to be done, and what is not."""

    jobs: list[Job]
    left_out: list[Path]  # files of the folders whose names are not of audio files


Outputs = Callable[[Path, Path, str], dict[str, Path]]


def find_jobs(inputs: list[Path], folder: Path | None, outputs: Outputs) -> Found:
    """The files among `inputs`, and those in the folders among them.

    Parameters
    ----------
    inputs : list of Path
        Files and folders. The outputs of a folder are arranged as its files are; hidden files, and outputs of
        earlier runs, are left out. Those that differ by their suffix only keep it in the names of their outputs.
    folder : Path or None
        For the outputs; None for that of each input.
    outputs : callable
        `outputs(path, folder, stem)`: files that the sources of `path` become.

    Raises
    ------
    ConfigError
        If a folder has no audio files, or outputs would overwrite each other or an input.
    """
    jobs: dict[str, Job] = {}
    left_out: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found, others = _walk(path, folder, outputs)
            if not found:
                raise ConfigError(f"{path}: no audio files in this folder")
            left_out += others
        else:
            found = [Job(path, path.parent if folder is None else folder, path.stem)]
        for job in found:
            jobs.setdefault(_real(job.path), job)
    jobs = dict(zip(jobs, _told_apart(list(jobs.values())), strict=True))
    _refuse_clashes(jobs, outputs)
    return Found(list(jobs.values()), left_out)


def _walk(top: Path, folder: Path | None, outputs: Outputs) -> tuple[list[Job], list[Path]]:
    from rtsep.audio_files import is_audio

    jobs, others = [], []
    for where, folders, names in os.walk(top):
        here = Path(where)
        # The outputs may well go to a folder below the inputs.
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and (folder is None or _real(here / f) != _real(folder))
        )
        paths = [here / name for name in sorted(names) if not name.startswith(".")]
        audio = [path for path in paths if is_audio(path)]
        others += [path for path in paths if not is_audio(path)]
        goal = here if folder is None else folder / here.relative_to(top)
        jobs += [Job(path, goal, path.stem) for path in audio]
    # Outputs of any format, with or without the suffix of the input: the name without its own suffix counts.
    made = {
        _real(output.with_suffix(""))
        for job in jobs
        for stem in (job.stem, job.path.name)
        for output in outputs(job.path, job.folder, stem).values()
    }
    pictures = {_real(job.folder / f"{stem}.png") for job in jobs for stem in (job.stem, job.path.name)}
    inputs = [job for job in jobs if _real(job.path.with_suffix("")) not in made]
    return inputs, [path for path in others if _real(path) not in pictures]


def _told_apart(jobs: list[Job]) -> list[Job]:
    """Inputs whose outputs would have the same names keep their suffix in them."""

    def key(job: Job) -> tuple[str, str]:
        return _real(job.folder), os.path.normcase(job.stem)

    alike = Counter(map(key, jobs))
    return [job if alike[key(job)] == 1 else job._replace(stem=job.path.name) for job in jobs]


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _refuse_clashes(jobs: dict[str, Job], outputs: Outputs) -> None:
    made: dict[str, Path] = {}
    for job in jobs.values():
        for output in outputs(*job).values():
            place = _real(output)
            if place in jobs:
                raise ConfigError(f"{output} is an input, and would be an output of {job.path}; use another folder")
            if place in made:
                raise ConfigError(f"{made[place]} and {job.path} would both become {output}; separate them one by one")
            made[place] = job.path
