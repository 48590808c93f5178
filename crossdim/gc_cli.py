"""The verb ``gc``: removes earlier versions of a dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossdim.foundation import entry_point, signals
from crossdim.foundation.config_options import add_config_options
from crossdim.foundation.option_types import at_least_one
from crossdim.foundation.storage_arguments import add_store_options, open_bucket

if TYPE_CHECKING:
    from crossdim.pipelines.version_removal import VersionRemoval

#: Who may still need an earlier version cannot be seen in the dataset.
WARNING = "A run that began with one of these versions cannot be seen from here: it could not go on."


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``gc``."""
    parser = entry_point.Parser(prog="crossdim", description="Removal of earlier versions of datasets.")
    add_verbs(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[entry_point.Parser]) -> None:
    """Add the verb ``gc``."""
    about = "remove earlier versions of a dataset, and what preparations left that were never published"
    more = "Objects that a kept version names stay, and so do files that prepare does not write. Exit code 1 if the answer is no."
    verb = verbs.add_parser("gc", help=about, description=f"{about[0].upper()}{about[1:]}. {more}")
    verb.add_argument("dataset", metavar="DATASET", help="folder or URL of a published dataset")
    verb.add_argument("--keep", type=at_least_one, default=1, metavar="N", help="number of newest versions to keep (default 1)")
    verb.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    verb.add_argument("--yes", action="store_true", help="remove without a question")
    verb.add_argument("--json", action="store_true", help="print one JSON object")
    add_config_options(verb)
    add_store_options(verb)
    entry_point.add_examples(verb, ["crossdim gc data/xr --dry-run", "crossdim gc s3://lab/ct-1mm --keep 2 --yes"])
    verb.set_defaults(verb=_gc)


def _gc(arguments: argparse.Namespace) -> int:
    from crossdim.foundation.removal import confirm_removal
    from crossdim.pipelines.version_removal import check_version_removal, remove_versions

    signals.tell_outcome("nothing was removed")
    found = check_version_removal(open_bucket(arguments.dataset, arguments), arguments.keep)
    if arguments.dry_run or not found.objects:
        entry_point.print_result(_build_document(found, removed=False), found.describe(), as_json=arguments.json)
        return entry_point.DONE
    lines = [found.describe(), *([WARNING] if found.removed else [])]
    if not arguments.yes and not confirm_removal("gc", lines):
        sys.stderr.write("nothing was removed\n")
        return entry_point.DECLINED
    with signals.hold():  # a manifest goes together with its objects
        remove_versions(found, arguments.keep)
    entry_point.print_result(_build_document(found, removed=True), found.describe(done=True), as_json=arguments.json)
    return entry_point.DONE


def _build_document(found: VersionRemoval, *, removed: bool) -> dict[str, object]:
    return {
        "versions_removed": list(found.removed),
        "versions_kept": list(found.kept),
        "objects": len(found.objects),
        "bytes": found.num_bytes,
        "removed": removed,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
