"""What rtsep raises on purpose; here, so that the command line can catch it before anything heavy is imported."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot work; the message names the value and the reason."""


class StepError(RuntimeError):
    """An estimator in ordinary Python failed in a hop; what it raised is the cause."""


class LiveError(RuntimeError):
    """The sound device cannot be used; the message is one line with the device and the way out."""


class FileError(OSError):
    """A file that cannot be read or written; the message is one line."""
