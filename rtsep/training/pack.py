"""A packed corpus: the recordings of a recipe in one small file that trainings read fast.

A zip of Ogg Vorbis streams at 16 kHz, each with recordings of one group one after the other, and `index.json`: for
every stream its kind, corpus and group, and names, digests and lengths of its recordings. Digests are those of the
originals: what is for testing is found in a pack, too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rtsep.config import ConfigError
from rtsep.models import one_line
from rtsep.staging import replacing
from rtsep.training.corpus import SR, Clip, regrouped
from rtsep.training.recipe import Corpus

LONGEST_S = 600  # of a stream, unless one recording is longer
COMPRESSION = 0.7  # of libsndfile: about 35 kbit/s of speech
INDEX = "index.json"

Loaded = list[tuple[Corpus, list[Clip]]]


def write_pack(
    path: Path, loaded: Mapping[str, Loaded], jobs: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write all clips, by the kind of recording, encoded by `jobs` threads."""
    streams = [
        (kind, corpus, clips)
        for kind, corpora in loaded.items()
        for corpus, every in corpora
        for clips in _streams(every)
    ]
    pool = ThreadPoolExecutor(jobs)
    try:
        with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
            index = []
            encoded = pool.map(lambda stream: _encoded(stream[2]), streams)
            for i, ((kind, corpus, clips), data) in enumerate(zip(streams, encoded, strict=True)):
                file.writestr(f"{i}.ogg", data)
                kept = [(clip.name, clip.digest, clip.samples.size) for clip in clips]
                index.append(
                    {"kind": kind, "corpus": corpus.name, "group": clips[0].group, "clips": kept} | _filters(corpus)
                )
                if progress:
                    progress(i + 1, len(streams))
            file.writestr(INDEX, json.dumps(index), zipfile.ZIP_DEFLATED)
    finally:
        pool.shutdown(cancel_futures=True)


def read_pack(path: Path, corpora: Mapping[str, Sequence[Corpus]], jobs: int) -> dict[str, Loaded]:
    """The clips of the corpora of a recipe, by the kind of recording, decoded by `jobs` threads.

    Raises
    ------
    ConfigError
        If the file is no pack, is damaged, lacks a corpus, or has one of which other recordings were left out.
    """
    by_name = {(kind, corpus.name): corpus for kind, some in corpora.items() for corpus in some}
    try:
        with zipfile.ZipFile(path) as file, ThreadPoolExecutor(jobs) as pool:
            index = _checked(json.loads(file.read(INDEX)))
            streams = [(i, entry) for i, entry in enumerate(index) if (entry["kind"], entry["corpus"]) in by_name]
            decoded = list(pool.map(lambda stream: list(_clips(file.read(f"{stream[0]}.ogg"), stream[1])), streams))
    except Exception as problem:  # zipfile, zlib and JSON raise many kinds
        raise ConfigError(f"{path} cannot be used as a packed corpus: {one_line(problem)}") from None
    found: dict[tuple[str, str], list[Clip]] = {}
    for (_, entry), clips in zip(streams, decoded, strict=True):
        corpus = by_name[entry["kind"], entry["corpus"]]
        for name, value in _filters(corpus).items():
            if entry[name] != value:
                raise ConfigError(f"{path}: {corpus.name!r} was packed with {name}={entry[name]!r}, not {value!r}")
        found.setdefault((entry["kind"], entry["corpus"]), []).extend(regrouped(corpus, clip) for clip in clips)
    if missing := sorted(name for _, name in set(by_name) - set(found)):
        raise ConfigError(f"{path} has no {', '.join(missing)}")
    return {kind: [(corpus, found[kind, corpus.name]) for corpus in some] for kind, some in corpora.items()}


def _filters(corpus: Corpus) -> dict[str, Any]:
    """By what recordings were left out."""
    return {"exclude": corpus.exclude, "range_db": corpus.range_db}


def _checked(index: Any) -> list[dict[str, Any]]:
    """An index as `write_pack` makes it. Raises some error for any other."""
    for entry in index:
        if not {"exclude", "range_db"} <= entry.keys():
            raise ValueError("by what its recordings were chosen is not in it: pack them again")
        texts = [entry[name] for name in ("kind", "corpus", "group", "exclude")]
        for name, digest, size in entry["clips"]:
            texts += name, digest
            if type(size) is not int or size < 1:
                raise ValueError(f"{name} has {size!r} samples")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("names in its index are no texts")
        float(entry["range_db"])
    return list(index)


def _streams(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """The clips of a group after those of another, at most `LONGEST_S` together."""
    stream: list[Clip] = []
    for clip in sorted(clips, key=lambda clip: clip.group):
        length = sum(one.samples.size for one in stream) + clip.samples.size
        if stream and (clip.group != stream[0].group or length > LONGEST_S * SR):
            yield stream
            stream = []
        stream.append(clip)
    if stream:
        yield stream


def _encoded(clips: Sequence[Clip]) -> bytes:
    samples = np.concatenate([clip.samples for clip in clips])
    buffer = io.BytesIO()
    with sf.SoundFile(
        buffer, "w", SR, 1, format="OGG", subtype="VORBIS", compression_level=COMPRESSION
    ) as stream:  # some seconds at a time: libvorbis takes its stack for all that it is given, and minutes exceed it
        for at in range(0, samples.size, 4 * SR):
            stream.write(samples[at : at + 4 * SR])
    return buffer.getvalue()


def _clips(data: bytes, entry: dict[str, Any]) -> Iterator[Clip]:
    samples, _ = sf.read(io.BytesIO(data), dtype="int16")
    at = 0
    for name, digest, size in entry["clips"]:
        if at + size > samples.size:
            raise ValueError(f"{name} is not complete")
        yield Clip(name, entry["group"], digest, samples[at : at + size])
        at += size
