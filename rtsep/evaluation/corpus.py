"""Mixtures with their true sources: a manifest of `rtsep mix`, or folders of files with the same names."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rtsep.audio_files import find_audio
from rtsep.errors import ConfigError
from rtsep.evaluation.mix import MANIFEST

MIXTURE = "mixture"


@dataclass(frozen=True)
class Item:
    """A mixture and its true sources.

    Parameters
    ----------
    id : str
        Of its own in the corpus.
    mixture : Path
        File.
    sources : dict of str to Path
        File of each true source.
    snr_db : float or None
        Speech to noise, if it is known.
    label : str
        Class, such as the kind of noise; empty if there is none.
    """

    id: str
    mixture: Path
    sources: dict[str, Path] = field(default_factory=dict)
    snr_db: float | None = None
    label: str = ""


def read_corpus(path: Path) -> list[Item]:
    """The mixtures of a manifest, or of a folder.

    Parameters
    ----------
    path : Path
        A manifest, a folder with a `manifest.jsonl`, or a folder with folders `mixture` and one for each source, in
        which files of the same name belong together.

    Raises
    ------
    ConfigError
        If there are none, or a line or a name is not as it should be.
    OSError
        If a file cannot be read.
    """
    if path.is_dir() and not (path / MANIFEST).exists():
        items = _from_folders(path)
    else:
        items = _from_manifest(path / MANIFEST if path.is_dir() else path)
    if not items:
        raise ConfigError(f"{path}: no mixtures")
    ids = set()
    for item in items:
        if item.id in ids:
            raise ConfigError(f"{path}: id {item.id!r} is there twice")
        ids.add(item.id)
    return items


def _from_manifest(path: Path) -> list[Item]:
    items = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    items.append(_from_entry(json.loads(line), path.parent))
                except (ValueError, TypeError, KeyError, AttributeError) as problem:
                    raise ConfigError(f"{path}, line {number}: {type(problem).__name__}: {problem}") from None
    return items


def _from_entry(entry: dict[str, Any], folder: Path) -> Item:
    """An item from a line; sources may be objects with a file, or files alone."""
    sources = {
        str(name): folder / (source if isinstance(source, str) else source["file"])
        for name, source in entry["sources"].items()
    }
    snr_db = entry.get("snr_db", entry.get("music_snr_db"))
    return Item(
        str(entry.get("id", entry["mixture"])),
        folder / entry["mixture"],
        sources,
        None if snr_db is None else float(snr_db),
        str(entry.get("class", "")),
    )


def _from_folders(folder: Path) -> list[Item]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if MIXTURE not in names or len(names) < 2:
        raise ConfigError(f"{folder}: no {MANIFEST}, and no folders {MIXTURE!r} and one for each source")
    items = []
    for below in map(PurePosixPath, find_audio(folder / MIXTURE)):
        sources = {name: folder / name / below for name in names if name != MIXTURE}
        label = below.parts[0] if len(below.parts) > 1 else ""
        items.append(Item(str(below.with_suffix("")), folder / MIXTURE / below, sources, None, label))
    return items
