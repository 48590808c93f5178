"""The verbs prepare and verify. Ray and the readers are imported once a verb runs, so that help is quick."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from crossdim.foundation import entry_point, signals
from crossdim.foundation.cluster import ray_session, starts_here
from crossdim.foundation.config_options import AppendSetting, add_config_options, add_set_option
from crossdim.foundation.extras import require
from crossdim.foundation.location import format_location
from crossdim.foundation.plan_table import add_price_options, read_prices
from crossdim.foundation.progress import show_stage
from crossdim.foundation.provenance import format_time, record_provenance
from crossdim.foundation.storage_arguments import add_store_options, add_version_option, open_bucket
from crossdim.foundation.usage import Usage, measure_usage
from crossdim.pipelines.counts import count
from crossdim.pipelines.recipe_names import RECIPE_NAMES
from crossdim.storage_schema.errors import CrossdimError, UsageError
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.vocabulary import Modality

if TYPE_CHECKING:
    from crossdim.foundation.bucket import Bucket
    from crossdim.foundation.settings import Families
    from crossdim.pipelines.jobs.engine import OpenSession
    from crossdim.pipelines.jobs.preparation import Preparation, PrepareResult
    from crossdim.pipelines.jobs.pseudonyms import PseudonymOptions
    from crossdim.pipelines.jobs.source_inputs import SourceInputs
    from crossdim.pipelines.show.summary import Tables
    from crossdim.pipelines.sources.labels import LabelTable

_LOG = logging.getLogger(__name__)
FOLDER = "folder"
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
    _add_prepare(
        verbs.add_parser("prepare", help="turn folders of images or volumes into a published dataset; the same line resumes")
    )
    _add_verify(verbs.add_parser("verify", help="re-read a published dataset and hold every byte against its manifest"))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes a number from 1 up; found {text!r}")
    return int(text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="Ray cluster to join (auto: the one on this machine); by default Ray starts here"
    )
    parser.add_argument(
        "--local",
        action=argparse.BooleanOptionalAction,
        help="work in this process, without Ray (default: for up to 1000 files and 128 MiB in total, unless a cluster is named)",
    )
    parser.add_argument("--concurrency", type=_positive, metavar="N", help="largest number of tasks at a time on Ray")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    add_config_options(parser)
    add_store_options(parser)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SRC", help="folder, bucket or file of images or volumes")
    parser.add_argument("--recipe", required=True, metavar="NAME", help="such as ct-superpatches, or module:function")
    parser.add_argument("--out", required=True, metavar="URL", help="where the dataset is published")
    add_set_option(parser)
    parser.add_argument("--name", help="name of the dataset; default: the recipe's")
    parser.add_argument("--modality", choices=[str(m) for m in Modality], help="modality of files whose header does not state it")
    parser.add_argument("--test-fraction", type=float, default=0.0, metavar="F", help="share of patients held out (default 0)")
    parser.add_argument("--label", choices=[FOLDER], help="take the nearest folder above a file as its label (not a hidden one)")
    parser.add_argument("--labels", metavar="FILE.csv", help="table with a column path, relative to SRC or to SRC's parent")
    parser.add_argument("--label-column", metavar="COLUMN", help="column of labels in --labels")
    parser.add_argument(
        "--patient-column", metavar="COLUMN", help="column of patients in --labels; all files of a patient are in the same split"
    )
    parser.add_argument(
        "--missing-values",
        metavar="WORDS",
        help="cells of --labels that mean no value, with commas between (default: blank, NaN, NA, None, NULL and the like)",
    )
    parser.add_argument("--split-by", choices=["patient", "file"], default="patient", help="what --test-fraction is a share of")
    parser.add_argument(
        "--include-label-maps", action="store_true", help="read segmentations as images too; by default they are ignored"
    )
    _add_privacy(parser)
    _add_common(parser)
    parser.add_argument(
        "--append",
        action="store_true",
        help="if --out is published and files were added, changed or removed: publish a version with what is there now",
    )
    planned = "say what will be kept and refused, bytes, time, memory and requests, from a small sample; write nothing"
    parser.add_argument("--plan", action="store_true", help=planned)
    add_price_options(parser, ["cpu_hour", "request", "gb_month"])
    entry_point.add_examples(
        parser,
        [
            "crossdim prepare ~/xray --recipe xray-pseudo3d:tiny --label folder --test-fraction 0.2 --out data/xr",
            "crossdim prepare s3://lab/ct --recipe ct-superpatches --out s3://lab/ct-1mm --ray-address auto --append",
        ],
        RECIPE_NAMES,
    )
    parser.set_defaults(verb=prepare, load_recipe=_load_recipe)


def _add_privacy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("privacy", "patients and UIDs are always hashed with a secret key")
    group.add_argument(
        "--salt-file",
        metavar="FILE",
        help="the secret key, 16 random bytes or more (default: .crossdim-salt in the first SRC)",
    )
    group.add_argument(
        "--source-names",
        choices=["hashed", "relative"],
        help="how inputs are called in the dataset (default: hashed in a SRC with DICOM, relative paths in others)",
    )
    group.add_argument(
        "--name-map",
        metavar="FILE",
        help="where the table of hashed names goes, which is not published (default: beside the key)",
    )
    group.add_argument(
        "--previews",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="small pictures and technical header fields of some refused and ignored files, in previews.json and the page",
    )
    group.add_argument(
        "--burned-in",
        action=AppendSetting,
        dest="set",
        path="read.burned_in",
        choices=["keep", "refuse"],
        help="inputs whose DICOM header says that text is burned into their pixels; short for --set read.burned_in=...",
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder or URL of a published dataset")
    add_version_option(parser)
    _add_common(parser)
    entry_point.add_examples(
        parser,
        ["crossdim verify data/xr", "crossdim verify s3://lab/ct-1mm --json --endpoint-url http://store.local:9000"],
    )
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
    begun, prices = measure_usage(), read_prices(arguments)
    from crossdim.pipelines.recipes import default_name, resolve

    recipe = resolve(arguments.recipe, arguments.set)
    name = arguments.name or default_name(arguments.recipe)
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise UsageError(f"--name becomes part of object names: letters, digits, - and _; found {name!r}")
    from crossdim.pipelines.jobs.preparation import Preparation
    from crossdim.pipelines.jobs.prepare import prepare as run
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
        described = _describe_dataset(
            order.out, None if outcome.already_published else provenance, outcome.inputs if arguments.previews else None
        )
    sentence = _format_result(outcome, arguments.out, described=described)
    entry_point.print_result(_build_document(outcome), sentence, as_json=arguments.json)
    return entry_point.QUARANTINED if outcome.manifest.num_quarantined else entry_point.DONE


def _plan(order: Preparation, open_session: OpenSession, begun: Usage, prices: Mapping[str, float], *, may_use_ray: bool) -> int:
    """Print the plan of a preparation."""
    from crossdim.pipelines.estimate.arithmetic import estimate_job
    from crossdim.pipelines.estimate.job import plan_job
    from crossdim.pipelines.estimate.text import build_document, build_figures, format_plan

    job = plan_job(order, open_session, begun)
    columns, figures = build_figures(job, estimate_job(job, may_use_ray=may_use_ray), prices)
    document = build_document(job, columns, figures)
    entry_point.print_result(document, format_plan(job, columns, figures), as_json=order.quiet)
    return entry_point.DONE


def _record_provenance(arguments: argparse.Namespace) -> dict[str, Any]:
    """Record how a dataset is made; paths of sources and tables, which may hold names of patients, are not written down."""
    files = {arguments.labels: "LABELS", arguments.salt_file: "KEY", arguments.name_map: "NAMES", arguments.config: "CONFIG"}
    hidden = dict.fromkeys(arguments.sources, "SRC") | {path: name for path, name in files.items() if path}
    return record_provenance(PACKAGES, hidden)


def _describe_dataset(out: Bucket, provenance: dict[str, Any] | None, inputs: SourceInputs | None) -> bool:
    """Write page, card, provenance and previews beside the manifest of a dataset, which is published without them, too.

    Args:
        out: the dataset.
        provenance: of one that has just been published; None for one that was there, whose page is written if it has none.
        inputs: of one that has just been published, for previews; None for none.

    Returns:
        Whether the page is there.
    """
    from crossdim.pipelines.show.card import CARD, PROVENANCE, build_card
    from crossdim.pipelines.show.page import PAGE, build_page
    from crossdim.pipelines.show.summary import read_tables

    try:
        if provenance is None and out.exists(PAGE):
            return True
        tables = read_tables(out)
        ended = provenance and provenance | {"ended": format_time()}
        if ended:
            out.put(PROVENANCE, json.dumps(ended, indent=1, sort_keys=True).encode())
            out.put(CARD, build_card(tables, ended))
        if inputs:
            _look_at_sources(out, tables, inputs)
        out.put(PAGE, build_page(out, tables))
    except CrossdimError as error:
        _LOG.warning("%s has no page: %s; crossdim show --html makes one", out.where(""), error)
        return False
    return True


def _look_at_sources(out: Bucket, tables: Tables, inputs: SourceInputs) -> None:
    """Write what is seen of refused files and of values before any stage; the page is made without it, too."""
    from crossdim.pipelines.show.preview_record import write_previews
    from crossdim.pipelines.show.previews import look_at_sources

    try:
        write_previews(out, look_at_sources(tables, inputs))
    except (CrossdimError, MemoryError) as error:  # of a decoder that the system ended: the dataset is published all the same
        _LOG.warning("the page has no pictures of what was refused, and no values before clipping: %s", error)


def _build_document(outcome: PrepareResult) -> dict[str, object]:
    files = outcome.manifest.files
    return {
        "samples": outcome.manifest.num_samples,
        "files": asdict(files) if files else None,
        "quarantined": outcome.manifest.num_quarantined,
        "quarantined_inputs": outcome.manifest.num_quarantined,
        "quarantined_files": files.quarantined if files else None,
        "quarantined_by_rule": outcome.quarantined,
        "ignored": outcome.ignored,
        "ignored_by_format": outcome.ignored_formats,
        "images_not_read": {name: one.num_files for name, one in outcome.unread.items()},
        "parts": {name: part.samples for name, part in outcome.parts.items()},
        "patients": {name: part.patients for name, part in outcome.parts.items()},
        "notes": list(outcome.notes),
        "objects": len(outcome.manifest.objects),
        "bytes": outcome.num_bytes,
        "seconds": round(outcome.seconds, 2),
        "already_published": outcome.already_published,
        "version": outcome.version,
        "changes": outcome.changes,
        "samples_reused": outcome.num_reused,
        "manifest_digest": outcome.manifest.digest,
    }


def _format_result(outcome: PrepareResult, out: str, *, described: bool) -> str:
    from crossdim.pipelines.jobs.unread import describe_unread
    from crossdim.pipelines.show.page import PAGE

    manifest, out = outcome.manifest, format_location(out)
    size = f"{count(manifest.num_samples, 'sample')}, {count(len(manifest.objects), 'object')}, {outcome.num_bytes / 1e6:.1f} MB"
    quarantined = count(manifest.num_quarantined, "input")
    version = f", version {outcome.version}" if outcome.version > 1 else ""
    if outcome.already_published:
        lines = [f"{out}{version} is already published: {size}, {quarantined} quarantined"]
    else:
        lines = [f"published {out}{version}: {size}, in {outcome.seconds:.1f} s"]
    if outcome.changes:
        lines.append(f"{outcome.changes}; {count(outcome.num_reused, 'sample')} of version {outcome.version - 1} taken over")
    if files := manifest.files:
        outcomes = f"{files.used} used, {files.quarantined} quarantined, {files.ignored} ignored"
        lines.append(f"files: {files.total} = {outcomes}")
    if outcome.quarantined:
        of_files = f" ({count(files.quarantined, 'file')})" if files else ""
        lines.append(
            f"quarantined {quarantined}{of_files}: {_format_counts(outcome.quarantined)}; reasons are in {out}/quarantine"
        )
    if outcome.ignored:
        formats = _format_counts(outcome.ignored_formats)
        lines.append(f"ignored by rule: {_format_counts(outcome.ignored)}; by format: {formats}; each is listed in {out}/ignored")
    lines += map(printable, outcome.notes)
    if outcome.unread:
        lines.append(describe_unread(outcome.unread))
    if not outcome.already_published:
        lines.append(f"next: crossdim verify {shlex.quote(out)}")
    if described:
        lines.append(f"look at it: {out}/{PAGE}")
    return "\n".join(lines)


def _format_counts(counts: Mapping[str, int]) -> str:
    """Counts by name, the largest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


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
