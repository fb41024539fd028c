"""`rtsep evaluate`: separate a corpus, score it, report."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rtsep.cli import OPTIONS
from rtsep.cli.engine import LIBRARY_ONLY, add_engine_options, engine_settings, times_ms
from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.progress import progress_bar
from rtsep.cli.score import add_scores_option
from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.evaluation.evaluate import Setup

DEFAULT_SCORES = "si-sdr"
DESCRIPTION = """\
Separate mixtures whose true sources are known, score the results, and report: a table of files (CSV, JSON,
and Parquet with pandas and pyarrow), a summary with confidence intervals, plots, and a page for the browser.
A run that was interrupted goes on where it was when it is started again.
"""
EPILOG = """\
examples:
  rtsep mix --speech voices/ --noise street/ -o mixtures
  rtsep evaluate mixtures -o results --scores si-sdr,stoi,pesq
  rtsep evaluate mixtures -o results --compare denoise denoise+mixture oracle+omisi:15:2

Exit status: 0 if all mixtures are done, 2 if one is not, 129, 130 or 143 if interrupted.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "evaluate",
        help="separate mixtures with known sources, score, report",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "corpus",
        type=given_path,
        metavar="CORPUS",
        help="manifest of `rtsep mix`, its folder, or a folder with folders `mixture` and one for each source",
    )
    parser.add_argument(
        "-o", "--output", type=given_path, required=True, metavar="DIR", help="folder for the results, made if needed"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="SETUP",
        help="several ways side by side, in place of --estimator, --phase, --iterations and --lookahead: "
        "ESTIMATOR[+PHASE[:ITERATIONS[:LOOKAHEAD]]]; differences are from the first, `oracle` gets the true sources",
    )
    add_scores_option(parser, DEFAULT_SCORES)
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on the Dask cluster with this scheduler")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of another evaluation")
    add_json_option(parser)
    add_engine_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.evaluation.report",))


def run(args: argparse.Namespace) -> int:
    """Evaluate, report, print."""
    from rtsep.evaluation.corpus import read_corpus
    from rtsep.evaluation.evaluate import Evaluation
    from rtsep.evaluation.workers import cores, run_dask, run_local

    if args.jobs is not None and not 1 <= args.jobs <= 1024:
        raise ConfigError(f"jobs={args.jobs} is not between 1 and 1024")
    if args.dask and find_spec("distributed") is None:
        raise ConfigError('--dask needs the package distributed: pip install "rtsep[dask]"')
    setups = [_compared(args, text) for text in args.compare] if args.compare else [_setup(args, None)]
    evaluation = Evaluation(args.output, read_corpus(args.corpus), setups, args.scores, args.overwrite)
    results = partial(run_dask, address=args.dask) if args.dask else partial(run_local, jobs=args.jobs or cores())
    before = len(evaluation.rows)
    if before:
        print(f"rtsep: {before} are done from before", file=sys.stderr)
    with progress_bar("evaluating") as progress:
        evaluation.run(results, progress)
    for (setup, item), reason in evaluation.failed.items():
        print(f"rtsep: {setup}: {item}: {reason}", file=sys.stderr)

    from rtsep.evaluation.overview import overview_text
    from rtsep.evaluation.report import write_report

    paths = write_report(evaluation)
    summary = json.loads(paths["summary.json"].read_text(encoding="utf-8"))
    args.report = {"files": {name: str(path) for name, path in paths.items()}, "summary": summary}
    print(overview_text(summary, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    print()
    for path in paths.values():
        print(path)
    return 2 if evaluation.failed else 0


def _compared(args: argparse.Namespace, text: str) -> Setup:
    try:
        return _setup(args, text)
    except ConfigError as problem:
        # Its parts are no options here: `estimator 'magic'`, not `--estimator='magic'`.
        reason = re.sub(r"(?<!\S)(\w+)=", lambda found: f"{OPTIONS.get(found[1], found[1])} ", str(problem))
        raise ConfigError(f"--compare {text}: {reason}") from None


def _setup(args: argparse.Namespace, text: str | None) -> Setup:
    """A setup from the options, or from `text` as `--compare` takes it."""
    from rtsep.choose import find, takes
    from rtsep.evaluation.evaluate import ORACLE, Setup

    wanted = argparse.Namespace(**vars(args))
    if text is not None:
        found = re.fullmatch(r"(\w+)(?:\+(\w+)(?::(\d+)(?::(\d+))?)?)?", text)
        if found is None:
            raise ConfigError("is not ESTIMATOR[+PHASE[:ITERATIONS[:LOOKAHEAD]]]")
        wanted.estimator, phase_name, iterations, lookahead = found.groups()
        # What is given is for those that take it.
        for option, without in (("model", None), ("with_rest", False), ("components", None)):
            blind = option == "components" and hasattr(find("estimator", wanted.estimator), "blind")
            if not takes("estimator", wanted.estimator, option) and not (blind and wanted.model is None):
                setattr(wanted, option, without)
        if phase_name is not None:
            wanted.phase = phase_name
            wanted.iterations = None if iterations is None else int(iterations)
            vars(wanted).pop("lookahead", None)  # None is the whole signal
            if lookahead is not None:
                wanted.lookahead = int(lookahead)
    oracle = wanted.estimator in LIBRARY_ONLY
    if oracle:
        # It is made for each mixture; its phase recovery is the default one.
        wanted.estimator, wanted.phase = "passthrough", wanted.phase or "omisi"
    estimator, phase, output = engine_settings(wanted)
    label = text or f"{estimator.name}+{phase.name}"
    return Setup(label, ORACLE if oracle else estimator, phase, output, **times_ms(wanted))
