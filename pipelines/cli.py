"""The verbs prepare and verify. Ray and the readers are imported once a verb runs, so that help is quick."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crossdim.foundation import entry_point, signals
from crossdim.foundation.cluster import ray_session, starts_here
from crossdim.foundation.counts import count
from crossdim.foundation.extras import require
from crossdim.foundation.location import format_location
from crossdim.foundation.plan_table import read_prices
from crossdim.foundation.progress import show_stage
from crossdim.foundation.provenance import record_provenance
from crossdim.foundation.storage_arguments import open_bucket
from crossdim.foundation.usage import Usage, measure_usage
from crossdim.pipelines.options import FOLDER, add_prepare_options, add_verify_options
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.vocabulary import Modality

if TYPE_CHECKING:
    from crossdim.foundation.settings import Families
    from crossdim.pipelines.jobs.engine import OpenSession
    from crossdim.pipelines.jobs.preparation import Preparation
    from crossdim.pipelines.jobs.pseudonyms import PseudonymOptions
    from crossdim.pipelines.sources.labels import LabelTable

#: Distributions that decide what is read and written.
PACKAGES = ("ray", "numpy", "pydicom", "nibabel", "SimpleITK", "Pillow", "zarr", "numcodecs", "python-gdcm", "pylibjpeg-openjpeg")
#: Seconds for which a store that does not answer is asked again: longer than a server's restart. Our choice.
PATIENCE_S = 20.0


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``prepare`` and ``verify``."""
    parser = entry_point.Parser(prog="crossdim", description="Raw images and volumes to published datasets.")
    add_verbs(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[entry_point.Parser]) -> None:
    """Add ``prepare`` and ``verify``."""
    preparing = "turn folders of images or volumes into a published dataset; the same line resumes"
    parser = verbs.add_parser("prepare", help=preparing)
    add_prepare_options(parser)
    parser.set_defaults(verb=prepare, load_recipe=_load_recipe)
    parser = verbs.add_parser("verify", help="re-read a published dataset and hold every byte against its manifest")
    add_verify_options(parser)
    parser.set_defaults(verb=verify)


def _read_label_table(arguments: argparse.Namespace) -> LabelTable | None:
    from crossdim.pipelines.sources.labels import read_labels

    if arguments.label and arguments.label_column:
        raise UsageError("--label folder and --label-column both name the label; choose one")
    if not arguments.labels:
        for option in ("label_column", "patient_column", "missing_values"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')} needs the table that it speaks of: --labels FILE.csv")
        return None
    if not (arguments.label_column or arguments.patient_column):
        raise UsageError("--labels needs --label-column, --patient-column or both")
    missing = None if arguments.missing_values is None else frozenset(w.strip() for w in arguments.missing_values.split(","))
    return read_labels(open_bucket(arguments.labels, arguments), arguments.label_column, arguments.patient_column, missing)


def _parse_pseudonyms(arguments: argparse.Namespace) -> PseudonymOptions:
    from crossdim.pipelines.jobs.pseudonyms import PseudonymOptions

    salt, names = (open_bucket(url, arguments) if url else None for url in (arguments.salt_file, arguments.name_map))
    return PseudonymOptions(salt_file=salt, name_map=names, names=arguments.source_names or "by_format")


@contextlib.contextmanager
def _open_session(arguments: argparse.Namespace, verb: str, *, num_files: int, num_bytes: int) -> Iterator[None]:
    """A Ray session, or nothing for a job that this process does; a missing package is reported before any work begins."""
    from crossdim.pipelines.jobs.engine import is_small

    address, local = arguments.ray_address, arguments.local
    if local and address:
        raise UsageError("--local works in this process and --ray-address on a cluster; choose one")
    if local or (local is None and starts_here(address) and is_small(num_files, num_bytes)):
        yield
        return
    require("ray", verb)
    require("pandas", verb)
    with contextlib.ExitStack() as stack:
        with show_stage(verb, "starting Ray" if starts_here(address) else "joining Ray", quiet=arguments.json):
            stack.enter_context(ray_session(address))
        yield


def _load_recipe(arguments: argparse.Namespace) -> tuple[Any, Families]:
    from crossdim.pipelines.recipes import resolve

    return resolve(arguments.recipe), {}


def prepare(arguments: argparse.Namespace) -> int:
    """The verb ``prepare``."""
    signals.tell_written(written=False)
    started, begun, prices = time.monotonic(), measure_usage(), read_prices(arguments)
    from crossdim.pipelines.recipes import default_name, resolve

    recipe = resolve(arguments.recipe, arguments.set)
    name = arguments.name or default_name(arguments.recipe)
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise UsageError(f"--name becomes part of object names: letters, digits, - and _; found {name!r}")
    from crossdim.pipelines.dataset_description import describe_dataset
    from crossdim.pipelines.jobs.preparation import Preparation
    from crossdim.pipelines.jobs.prepare import prepare as run
    from crossdim.pipelines.prepare_result import build_document, format_result
    from crossdim.storage_schema.split import SplitRule

    order = Preparation(
        sources=tuple(open_bucket(url, arguments).with_patience(PATIENCE_S) for url in arguments.sources),
        out=open_bucket(arguments.out, arguments).with_patience(PATIENCE_S),
        recipe=recipe,
        name=name,
        split=SplitRule(test_fraction=arguments.test_fraction, by=arguments.split_by),
        pseudonyms=_parse_pseudonyms(arguments),
        modality=Modality(arguments.modality) if arguments.modality else None,
        label_table=_read_label_table(arguments),
        label_by_folder=arguments.label == FOLDER,
        include_label_maps=arguments.include_label_maps,
        append=arguments.append,
        concurrency=arguments.concurrency,
        quiet=arguments.json,
    )
    open_session = partial(_open_session, arguments, "prepare")
    if arguments.plan:
        return _plan(order, open_session, begun, prices, may_use_ray=not arguments.local)
    provenance = _record_provenance(arguments)
    outcome = run(order, open_session)
    with show_stage("prepare", "drawing the page", quiet=order.quiet):
        described = describe_dataset(
            order.out, None if outcome.already_published else provenance, outcome.inputs if arguments.previews else None
        )
    seconds = time.monotonic() - started
    sentence = format_result(outcome, arguments.out, seconds, described=described)
    entry_point.print_result(build_document(outcome, seconds), sentence, as_json=arguments.json)
    return entry_point.QUARANTINED if outcome.manifest.num_quarantined else entry_point.DONE


def _plan(order: Preparation, open_session: OpenSession, begun: Usage, prices: Mapping[str, float], *, may_use_ray: bool) -> int:
    """Print the plan of a preparation."""
    from crossdim.pipelines.estimate.arithmetic import estimate_job
    from crossdim.pipelines.estimate.job import plan_job
    from crossdim.pipelines.estimate.text import build_document as build_plan_document
    from crossdim.pipelines.estimate.text import build_figures, format_plan

    job = plan_job(order, open_session, begun)
    columns, figures = build_figures(job, estimate_job(job, may_use_ray=may_use_ray), prices)
    document = build_plan_document(job, columns, figures)
    entry_point.print_result(document, format_plan(job, columns, figures), as_json=order.quiet)
    return entry_point.DONE


def _record_provenance(arguments: argparse.Namespace) -> dict[str, Any]:
    """Record how a dataset is made; paths of sources and tables, which may hold names of patients, are not written down."""
    files = {arguments.labels: "LABELS", arguments.salt_file: "KEY", arguments.name_map: "NAMES", arguments.config: "CONFIG"}
    hidden = dict.fromkeys(arguments.sources, "SRC") | {path: name for path, name in files.items() if path}
    return record_provenance(PACKAGES, hidden)


def verify(arguments: argparse.Namespace) -> int:
    """The verb ``verify``."""
    signals.tell_written(written=False)
    from crossdim.pipelines.jobs.verify import verify as run

    dataset = open_bucket(arguments.dataset, arguments).with_patience(PATIENCE_S)
    open_session = partial(_open_session, arguments, "verify")
    report = run(dataset, open_session, version=arguments.version, concurrency=arguments.concurrency, quiet=arguments.json)
    amounts = f"{count(report.num_objects, 'object')}, {count(report.num_samples, 'sample')}, {report.num_bytes / 1e6:.1f} MB"
    if report.problems:
        sentence = "\n  ".join(
            [
                f"{format_location(arguments.dataset)}: {count(len(report.problems), 'problem')} in {amounts}",
                *map(str, report.problems),
            ]
        )
    else:
        sentence = f"{format_location(arguments.dataset)} is whole: {amounts}, every byte and every sample checked"
    entry_point.print_result(report.document(), sentence, as_json=arguments.json)
    return entry_point.FAILED if report.problems else entry_point.DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
