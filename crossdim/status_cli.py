"""The verb ``status``: how a run or a preparation is doing; what lies in the folder decides. Imports neither Ray nor torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from crossdim.foundation import entry_point, signals
from crossdim.foundation.storage_arguments import open_bucket
from crossdim.foundation.watching import report_status
from crossdim.pipelines.preparation_status import ENDED, GOOD, is_dataset, read_preparation_status
from crossdim.storage_schema.errors import RunError
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_verbs import add_status, show_run_status


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``status``."""
    parser = entry_point.Parser(prog="crossdim", description="How a run or a preparation is doing.")
    add_status(parser.add_subparsers(metavar="VERB", required=True), status, "a run or a preparation")
    return parser


def status(arguments: argparse.Namespace) -> int:
    """The verb ``status``."""
    signals.tell_outcome("")
    folder = open_bucket(arguments.location, arguments)
    if not folder.exists(CONFIG):
        if is_dataset(folder):
            return report_status(partial(read_preparation_status, folder), arguments, final=ENDED, good=GOOD)
        if not folder.exists():
            unscanned = "a preparation writes nothing before its sources are listed"
            raise RunError(f"{folder.where('')} does not exist; check the --out of its pretrain or prepare command ({unscanned})")
    return show_run_status(folder, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
