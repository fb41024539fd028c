"""Recording: what the callback put into the tap goes to files, by a thread of its own."""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile as sf

from rtsep.errors import LiveError
from rtsep.live.rings import Ring, forget, read, waiting

INTERVAL_S = 0.05  # between two writings; whatever ends the process, what was written before can be read
BLOCK = 4096  # samples that are written at a time
UPDATE_HEADER = 0x1060  # SFC_UPDATE_HEADER_NOW of sndfile.h, for which soundfile has no name


def recording_paths(folder: Path, sources: tuple[str, ...]) -> list[Path]:
    """The files of a recording. Raises `LiveError` where one of them is there already."""
    paths = [folder / f"{name}.wav" for name in ("mixture", *sources)]
    there = [path.name for path in paths if path.exists()]
    if there:
        raise LiveError(f"cannot record to {folder}: {', '.join(there)} would be replaced; choose another folder")
    return paths


class Recorder:
    """Writes DIR/mixture.wav and DIR/NAME.wav of each source: float32, aligned with each other to the sample.

    Parameters
    ----------
    tap : Ring
        Rows of the mixture's channels and of each source's.
    folder : Path
        Made if missing. Files in it are not replaced; of a recording of nothing none is left.
    sources : tuple of str
    n_channels, sr : int

    Attributes
    ----------
    n_samples : int
        Written so far, in every file.
    problem : Exception or None
        What ended the recording.

    Raises
    ------
    LiveError
        If a file cannot be made.
    """

    def __init__(self, tap: Ring, folder: Path, sources: tuple[str, ...], n_channels: int, sr: int) -> None:
        self.folder, self._tap, self._n_channels = folder, tap, n_channels
        self._files: list[sf.SoundFile] = []
        self._paths: list[Path] = []
        self.n_samples = 0
        self.problem: Exception | None = None
        try:
            for path in recording_paths(folder, sources):
                folder.mkdir(parents=True, exist_ok=True)
                path.open("xb").close()
                # RF64 is a WAV that may grow beyond 4 GB; readers of WAV read it.
                self._paths.append(path)
                self._files.append(sf.SoundFile(path, "w", sr, n_channels, "FLOAT", format="RF64"))
        except (OSError, sf.LibsndfileError) as problem:
            self._close_files()
            raise LiveError(f"cannot record to {folder}: {getattr(problem, 'strerror', None) or problem}") from problem
        forget(tap)
        self._block = np.empty(tap.data.shape[0] * BLOCK, np.float32)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep recorder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.wait(INTERVAL_S):
                self._write()
            self._write()
        except Exception as problem:  # soundfile asserts that all was written
            self.problem = self._reason(problem)
            for file in self._files:  # what only some of them have got
                with suppress(OSError, sf.LibsndfileError):
                    file.truncate(self.n_samples)
        finally:
            self._close_files()

    def _reason(self, problem: Exception) -> Exception:
        """Why nothing can be written: libsndfile says but "System error"."""
        try:
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(bytes(self._block.nbytes))
        except OSError as reason:
            return OSError(f"{reason.strerror}")
        return problem

    def _write(self) -> None:
        while n := min(waiting(self._tap), BLOCK):
            read(self._tap, self._block, n)
            rows = self._block[: self._tap.data.shape[0] * n].reshape(len(self._files), self._n_channels, n)
            for file, channels in zip(self._files, rows, strict=True):
                file.write(channels.T)
                sf._snd.sf_command(file._file, UPDATE_HEADER, sf._ffi.NULL, 0)
            self.n_samples += n

    def _close_files(self) -> None:
        for file in self._files:
            with suppress(OSError, sf.LibsndfileError):  # a full disk has been reported
                file.close()
        if not self.n_samples:
            for path in self._paths:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is left and close the files; the callback must not use the tap any more."""
        self._ended.set()
        self._thread.join()
