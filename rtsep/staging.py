"""Files that appear all together or not at all, and are made by one run at a time."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows: two runs at once are not noticed
    fcntl = None  # type: ignore[assignment]

from rtsep.errors import FileError

PREFIX = ".rtsep-"
PART = ".part"
OLD = ".old"
RUN = ".run" + PART
ASKS = 5  # for a lock, 20 ms apart: who looks for parts of killed runs has it for a moment
_looked_at: set[Path] = set()  # folders that were freed of the parts of others
_made: set[Path] = set()  # folders that this process made, and in which nothing is yet
_folders = threading.Lock()  # so that what is known of them is true


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system with what cannot be written: at the end of a disk they do not say it themselves."""
    try:
        yield
    except FileError:
        raise
    except OSError as problem:
        raise FileError(f"{path} cannot be written: {problem.strerror or problem}") from None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One run at a time, for as long as it takes, that writes `path` and what is beside it; another is refused.

    Raises `FileError` for that, and where nothing can be written.
    """
    lock, held = _hidden(path, RUN), dict[Path, int]()
    try:
        with writing(path):
            _remove_stale(path.parent)
            if not _lock(lock, held, path):
                raise FileError(f"{path} is being written by another run")
        yield
    finally:
        if held.get(path, -1) >= 0:
            with suppress(OSError):
                lock.unlink()
            os.close(held[path])
        if fcntl is None:  # an open file cannot be removed there
            with suppress(OSError):
                lock.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what replaces `path` at once at the end, or not at all. Raises `FileError`."""
    with StagedFiles([path], overwrite=True) as staged, writing(path):
        yield staged.part(path)
        staged.commit()


class StagedFiles:
    """Files that are written beside their final names and appear there together or not at all.

    A context manager: what was not committed when it ends is removed, with the folders that were made for it, and so is
    what a run that was killed left in these folders.

    Parameters
    ----------
    paths : list of Path
        Final names, of up to 255 bytes.
    overwrite : bool
        Whether files with these names may be replaced.

    Raises
    ------
    FileError
        If one exists and may not be replaced.
    """

    def __init__(self, paths: list[Path], overwrite: bool) -> None:
        self.paths, self._overwrite = paths, overwrite
        self._locks: dict[Path, int] = {}
        _finish(paths)
        for path in paths:
            if path.exists() and not overwrite:
                raise FileError(f"{path} exists (--overwrite replaces it)")
            if path.is_dir():
                raise FileError(f"{path} is a folder")

    def part(self, path: Path) -> Path:
        """Where to write what will be `path`: hidden, in the same folder, which is made if need be.

        From the first call on, other runs are refused. Raises `FileError`.
        """
        if self._locks.get(path, -1) < 0:
            with writing(path):
                begun = self._begin(path)
            if not begun:
                raise FileError(f"{path} is being written by another run")
            if path.exists() and not self._overwrite:  # which has just ended
                raise FileError(f"{path} exists (--overwrite replaces it)")
        return _hidden(path, PART)

    def _begin(self, path: Path) -> bool:
        self._locks[path] = -1  # a signal may come at any moment from here on
        make_folder(path.parent)
        _remove_stale(path.parent)
        try:
            return _lock(_hidden(path, PART), self._locks, path)
        except FileNotFoundError:  # another run has just removed a folder that it had made
            make_folder(path.parent)
            return _lock(_hidden(path, PART), self._locks, path)

    def write(self, path: Path, content: bytes) -> None:
        """Write all of what will be `path`. Raises `FileError`, also where the disk is full."""
        with writing(path):
            self.part(path).write_bytes(content)

    def commit(self) -> None:
        """Make all files durable, then rename them. Raises `OSError`."""
        for path in self.paths:
            with open(self.part(path), "rb+") as file:
                os.fsync(file.fileno())
        parts = {path: self.part(path) for path in self.paths}
        if fcntl is None:
            self._close()  # an open file cannot be renamed there
        if len(parts) == 1:
            os.replace(parts[self.paths[0]], self.paths[0])
        else:
            self._replace(parts)
        self._close()
        self._locks.clear()
        with _folders:
            for path in self.paths:
                _made.difference_update(path.parents)

    def _replace(self, parts: dict[Path, Path]) -> None:
        # What is replaced stays at hand until all are in place.
        old = {path: _hidden(path, OLD) for path in self.paths if path.exists()}
        renamed: list[Path] = []
        try:
            for path in self.paths:
                if path in old:
                    os.replace(path, old[path])
                renamed.append(path)
                os.replace(parts[path], path)
        except BaseException:
            for path in renamed:
                if not parts[path].exists():
                    path.unlink(missing_ok=True)
            for path, backup in old.items():
                if backup.exists():
                    os.replace(backup, path)
            raise
        for backup in old.values():
            backup.unlink(missing_ok=True)

    def _close(self) -> None:
        for path, fd in self._locks.items():
            if fd >= 0:
                os.close(fd)
            self._locks[path] = -1

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for path, fd in self._locks.items():
            if fd >= 0 or fcntl is None:
                with suppress(OSError):
                    _hidden(path, PART).unlink()
            else:  # of another run, or begun when a signal came
                _remove_unless_locked(_hidden(path, PART))
        self._close()
        with _folders:
            for path in self.paths:
                for folder in path.parents:
                    if folder not in _made:
                        break
                    try:
                        folder.rmdir()
                    except OSError:  # something else is in it: by now, or still
                        break
                    _made.discard(folder)


def _hidden(path: Path, suffix: str) -> Path:
    """A short name beside `path`, the same in every run."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    return path.with_name(f"{PREFIX}{digest}{suffix}")


def _finish(paths: list[Path]) -> None:
    """Go on where a run was killed while it put its files in their places: all of them were complete.

    One that was put aside and has no successor comes back.
    """
    if not any(_hidden(path, OLD).exists() for path in paths):
        return
    locks: dict[Path, int] = {}
    with suppress(OSError), ExitStack() as closing:
        parts = {path: _hidden(path, PART) for path in paths if _hidden(path, PART).exists()}
        for part in parts.values():
            if not _lock(part, locks, part, new=False):  # it is at work
                return
            closing.callback(os.close, locks[part])
        for path, part in parts.items():
            os.replace(part, path)
        for path in paths:
            old = _hidden(path, OLD)
            if old.exists() and not path.exists():
                os.replace(old, path)
            old.unlink(missing_ok=True)


def _lock(part: Path, locks: dict[Path, int], path: Path, new: bool = True) -> bool:
    """Make or take over a part, empty, or one that is there as it is; False if another run has it. Raises `OSError`.

    What it is locked by is put into `locks` under `path` in here: between a return and what is done with it a signal
    may come.
    """
    asked = 0
    while True:
        fd = os.open(part, os.O_RDWR | (os.O_CREAT if new else 0) | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    asked += 1
                    if asked == ASKS:
                        return False
                    time.sleep(0.02)
                    continue
                except OSError:  # a file system without locks
                    pass
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(part)):  # else it was removed in between
                    if new:
                        os.ftruncate(fd, 0)
                    locks[path] = fd
                    return True
        except BaseException:
            locks[path] = -1
            with suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)


def _remove_stale(folder: Path) -> None:
    """Remove parts that nobody is writing any more; once for each folder."""
    if fcntl is None or folder in _looked_at:
        return
    _looked_at.add(folder)
    with suppress(OSError):
        if any(folder.glob(f"{PREFIX}*{OLD}")):  # the next run with these names goes on with them
            return
        for part in folder.glob(f"{PREFIX}*{PART}"):
            _remove_unless_locked(part)


def _remove_unless_locked(part: Path) -> None:
    assert fcntl is not None
    with suppress(OSError):
        fd = os.open(part, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(part)):
                part.unlink()
        finally:
            os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder for outputs unless it is there. Raises `FileError`, and then leaves none that it has made."""
    for last in (False, True):
        with _folders:
            new = [place for place in (folder, *folder.parents) if not place.exists()]
            _made.update(new)  # before they are there: a signal may come in between
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                _made.difference_update(new)
                for place in new:
                    with suppress(OSError):
                        place.rmdir()
                # Another run may just have removed one that it had made.
                if last or not isinstance(problem, FileNotFoundError):
                    raise FileError(f"{folder} cannot be made: {problem.strerror}") from None
            else:
                return
