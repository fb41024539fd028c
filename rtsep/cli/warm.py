"""`rtsep warm`: compile before anybody waits for it, as for an image or for users who cannot write to the package."""

from __future__ import annotations

import argparse
import time
from typing import Any

from rtsep.cli.engine import add_engine_options, engine_settings
from rtsep.cli.machine import add_json_option

DESCRIPTION = """\
Compile the kernels that `rtsep separate` and `rtsep live` need with these settings, any rate and any number of
channels, and keep the machine code: in NUMBA_CACHE_DIR if that is set, else in the package. It is good for
this processor, and read by every user.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("warm", help="compile the kernels ahead of time", description=DESCRIPTION)
    add_json_option(parser)
    add_engine_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.offline", "rtsep.live"))


def run(args: argparse.Namespace) -> int:
    """Separate silence offline, and run the audio callback once."""
    import numpy as np

    import rtsep
    from rtsep.config import StreamConfig
    from rtsep.kernels.cache import folders, writable
    from rtsep.live.bridge import compiled_callbacks
    from rtsep.live.callback import compiled_callback
    from rtsep.live.endurance import measure
    from rtsep.offline import separate
    from rtsep.separator import Separator

    start = time.perf_counter()
    estimator, phase, output = engine_settings(args)
    config = StreamConfig.from_ms(StreamConfig().sr, args.window_ms, args.hop_ms)
    separate(np.zeros(config.sr, np.float32), config.sr, estimator, phase, config=config, output=output)
    if not getattr(phase, "offline", False):
        separator = Separator(config, estimator, phase, output)
        if separator.compiled:
            measure(separator, config.hop_s)
        compiled_callback(), compiled_callbacks()
    folder = folders(rtsep.__file__)[-1]
    if not writable(folder):
        raise PermissionError(f"{folder} cannot be written")
    seconds = time.perf_counter() - start
    args.report = {"estimator": estimator.name, "phase": phase.name, "elapsed_s": seconds, "folder": str(folder)}
    print(f"{estimator.name} + {phase.name}: ready after {seconds:.1f} s, kept in {folder}")
    return 0
