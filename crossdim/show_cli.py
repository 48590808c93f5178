"""The verb ``show``: what a dataset or a run holds, in the terminal or as a page for a browser."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from crossdim.foundation import entry_point
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.config_options import add_config_options
from crossdim.foundation.local_files import LocalFiles
from crossdim.foundation.location import format_location, is_local, local_path
from crossdim.foundation.page.render import PAGE_HEAD_BYTES, is_page
from crossdim.foundation.storage_arguments import add_store_options, add_version_option, open_bucket
from crossdim.pipelines.scratch import WORK
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.manifest import MANIFEST_PATH
from crossdim.storage_schema.names import escape_name, printable
from crossdim.training.run_dir.layout import CONFIG

#: Tables of a dataset that may be named instead of it: what was not used is shown alone.
REFUSALS = ("quarantine", "ignored")
#: Datasets and runs that a message names.
MAX_SUGGESTIONS = 5
#: Newest steps of a run that the summary on a terminal reads: a third of a second's work. A page reads all.
MOST_STEPS = 20_000


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``show``."""
    parser = entry_point.Parser(prog="crossdim", description="What a dataset or a run holds.")
    add_verbs(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[entry_point.Parser]) -> None:
    """Add the verb ``show``."""
    verb = verbs.add_parser("show", help="what a dataset or a run holds, as text or as an HTML page")
    verb.add_argument("subject", metavar="DATASET|RUN|QUARANTINE", help="a dataset, its folder quarantine, or a run")
    add_version_option(verb)
    verb.add_argument("--html", metavar="FILE", help="write a page with pictures, which can be viewed without a network")
    serve = "show the page at this port of the loopback interface, updated while a run continues (default: a free port)"
    verb.add_argument("--serve", metavar="PORT", nargs="?", const=0, type=_parse_port, help=serve)
    names = (
        "show inputs whose names are hashed by their paths, from the table that prepare wrote beside the key; do not publish them"
    )
    verb.add_argument("--name-map", metavar="FILE", help=names)
    verb.add_argument("--json", action="store_true", help="print one JSON object")
    add_config_options(verb)
    add_store_options(verb)
    entry_point.add_examples(verb, ["crossdim show s3://lab/ct-1mm --html ct.html", "crossdim show runs/first --serve"])
    verb.set_defaults(verb=_show)


def _parse_port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"takes a port, 0 to 65535; found {text!r}")
    return int(text)


def _show(arguments: argparse.Namespace) -> int:
    if arguments.html is not None and arguments.serve is not None:
        raise UsageError("--html writes the page and --serve shows it in a browser; choose one")
    if arguments.serve is not None and arguments.json:
        raise UsageError("--serve shows a page, and --json prints a document; choose one")
    bucket = open_bucket(arguments.subject, arguments)
    target = None if arguments.html is None else _find_target(arguments.html, bucket)
    document, text, build = _open_subject(bucket, arguments, with_page=bool(target or arguments.serve is not None))
    if arguments.serve is not None:
        return _serve(build, arguments.serve)
    entry_point.print_result(document, text, as_json=arguments.json)
    if target:
        _write(target, build())
        if not arguments.json:
            entry_point.print_result({}, f"page: {arguments.html}", as_json=False)
    return entry_point.DONE


def _find_target(text: str, subject: Bucket) -> Path:
    """Where the page goes: never into what is shown, and never over a file that is no page."""
    if not text or not is_local(text):
        raise UsageError(f"--html takes a file of this machine, such as page.html; found {text!r}")
    path = Path(local_path(text))
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"--html {printable(text)[:80]}: {error.strerror}") from error
    if subject.is_local and path.resolve().is_relative_to(Path(subject.root).resolve()):
        raise UsageError(f"{path} lies inside {subject.where('')}, where nothing may be written; name a file elsewhere")
    if path.is_file() and path.stat().st_size and not is_page(path.read_bytes()[:PAGE_HEAD_BYTES]):
        raise UsageError(f"{path} is there and is no page of crossdim; name another file")
    return path


def _open_subject(
    bucket: Bucket, arguments: argparse.Namespace, *, with_page: bool
) -> tuple[dict[str, object], str, Callable[[], bytes]]:
    """A summary of the subject as a document and as text, and the function that builds its page."""
    version, name_map = arguments.version, open_bucket(arguments.name_map, arguments) if arguments.name_map else None
    folder, _, name = bucket.url.rstrip("/").rpartition("/")
    if name in REFUSALS and folder and Bucket(folder, bucket.options).exists(MANIFEST_PATH):
        return _open_dataset(Bucket(folder, bucket.options), version, name_map, refusals_only=True, with_page=with_page)
    if bucket.exists(MANIFEST_PATH):
        return _open_dataset(bucket, version, name_map, refusals_only=False, with_page=with_page)
    if version is not None:
        raise UsageError(f"--version names a version of a dataset; {bucket.where('')} holds none that is published")
    if name_map is not None:
        raise UsageError(f"--name-map names the inputs of a dataset; {bucket.where('')} holds none that is published")
    if bucket.exists(CONFIG):
        return _open_run(bucket)
    if bucket.exists(WORK):
        raise StorageError(f"{bucket.where('')} is a dataset that is not finished: crossdim status shows how far it is")
    raise StorageError(
        f"{bucket.where('')} holds neither a published dataset ({MANIFEST_PATH}) nor a run (config.json); {_suggest(bucket)}"
    )


def _suggest(bucket: Bucket) -> str:
    """What can be shown instead: datasets and runs in a folder of this machine; a store would have to list all that is below."""
    folders: list[Path] = []
    with contextlib.suppress(OSError):  # a folder that may not be listed
        if bucket.is_local and Path(bucket.root).is_dir():
            folders = sorted(one for one in Path(bucket.root).iterdir() if one.is_dir())
    kinds = {MANIFEST_PATH: "a dataset", CONFIG: "a run"}
    found = [(one.name, kind) for one in folders for path, kind in kinds.items() if (one / path).is_file()]
    if not found:
        return "name the --out of prepare or pretrain"
    example = shlex.quote(format_location(bucket.at(escape_name(found[0][0])).url))
    shown = ", ".join(f"{printable(name)} ({kind})" for name, kind in found[:MAX_SUGGESTIONS])
    more = f" and {len(found) - MAX_SUGGESTIONS} more" if len(found) > MAX_SUGGESTIONS else ""
    return f"in it are {shown}{more}: crossdim show {example}"


def _open_dataset(
    dataset: Bucket, version: int | None, name_map: Bucket | None, *, refusals_only: bool, with_page: bool
) -> tuple[dict[str, object], str, Callable[[], bytes]]:
    from crossdim.pipelines.show.summary import read_tables, summarise
    from crossdim.pipelines.show.text import format_refusals, format_summary

    tables, names = read_tables(dataset, version), None
    if name_map is not None:
        from crossdim.pipelines.show.source_names import read_source_names, use_source_names

        names = read_source_names(name_map)
        tables = use_source_names(tables, names)
    summary, where = summarise(tables), format_location(dataset.url)
    text = format_refusals(summary, where) if refusals_only else format_summary(summary, where)

    def build() -> bytes:
        from crossdim.pipelines.show.page import build_page

        return build_page(dataset, tables, where=where, refusals_only=refusals_only, names=names)

    return asdict(summary), text, functools.cache(build) if with_page else build


def _open_run(run: Bucket) -> tuple[dict[str, object], str, Callable[[], bytes]]:
    from crossdim.training.show.facts import read_facts
    from crossdim.training.show.findings import describe_verdict, find_warnings
    from crossdim.training.show.page import build_page
    from crossdim.training.show.text import format_run

    facts = read_facts(run, time.time(), with_pictures=False, most_steps=MOST_STEPS)
    document: dict[str, object] = {
        "status": asdict(facts.status),
        "verdict": describe_verdict(facts),
        "warnings": find_warnings(facts),
        "evaluation": asdict(facts.evaluation) if facts.evaluation else None,
        "checkpoints": [asdict(one) for one in facts.of_checkpoints],
        "provenance": facts.config.provenance,
        "attempts": facts.attempts,
    }
    return document, format_run(facts), lambda: build_page(read_facts(run, time.time()))


def _write(path: Path, page: bytes) -> None:
    """Write a page, completely or not at all if it is a file and no device."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(page)
        else:
            path.parent.stat()  # a folder that is misspelt is not made
            LocalFiles().put(str(path.resolve()), page)
    except OSError as error:
        raise StorageError(f"{path}: the page cannot be written: {error.strerror}") from error


def _serve(build: Callable[[], bytes], port: int) -> int:
    from crossdim.foundation.page.serve import PageServer

    build()  # what is wrong is said before anybody opens the page
    with PageServer(build, port) as server, contextlib.suppress(KeyboardInterrupt):  # which is how it is ended
        entry_point.print_result({}, f"{server.url} shows the page until Ctrl-C", as_json=False)
        server.serve_forever()
    return entry_point.DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
