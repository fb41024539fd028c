"""Which files to separate, and which folder their sources go to."""

from __future__ import annotations

import argparse
import os
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


def find_jobs(inputs: list[Path], folder: Path, outputs: Callable[[Path, Path], dict[str, Path]]) -> list[Job]:
    """The files among `inputs`, and those in the folders among them.

    Parameters
    ----------
    inputs : list of Path
        Files and folders. The outputs of a folder are arranged as its files are; hidden files, and outputs of
        earlier runs, are left out.
    folder : Path
        For the outputs.
    outputs : callable
        `outputs(path, folder)`: files that the sources of `path` become.

    Raises
    ------
    ConfigError
        If a folder has no audio files, or outputs would overwrite each other or an input.
    """
    jobs: dict[str, Job] = {}
    for path in inputs:
        if path.is_dir():
            found = _walk(path, folder, outputs)
            if not found:
                raise ConfigError(f"{path}: no audio files in this folder")
        else:
            found = [Job(path, folder)]
        for job in found:
            jobs.setdefault(_real(job.path), job)
    _refuse_clashes(jobs, outputs)
    return list(jobs.values())


def _walk(top: Path, folder: Path, outputs: Callable[[Path, Path], dict[str, Path]]) -> list[Job]:
    from rtsep.audio_files import is_audio

    jobs = []
    for where, folders, names in os.walk(top):
        here = Path(where)
        # The outputs may well go to a folder below the inputs.
        folders[:] = sorted(f for f in folders if not f.startswith(".") and _real(here / f) != _real(folder))
        for name in sorted(names):
            if is_audio(here / name):
                jobs.append(Job(here / name, folder / here.relative_to(top)))
    # Outputs of any format: the name without its suffix counts.
    made = {_real(out.with_suffix("")) for job in jobs for out in outputs(*job).values()}
    return [job for job in jobs if _real(job.path.with_suffix("")) not in made]


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _refuse_clashes(jobs: dict[str, Job], outputs: Callable[[Path, Path], dict[str, Path]]) -> None:
    made: dict[str, Path] = {}
    for job in jobs.values():
        for output in outputs(*job).values():
            place = _real(output)
            if place in jobs:
                raise ConfigError(f"{output} is an input, and would be an output of {job.path}; use another folder")
            if place in made:
                raise ConfigError(f"{made[place]} and {job.path} would both become {output}; separate them one by one")
            made[place] = job.path
