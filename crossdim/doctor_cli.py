"""The verb ``doctor``: checks this installation and machine, a storage location and a Ray cluster, and says what to do."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from crossdim.foundation import entry_point
from crossdim.foundation.checks import Check, CheckResult, Level, run_check, run_checks
from crossdim.foundation.config_options import add_config_options
from crossdim.foundation.progress import show_stage
from crossdim.foundation.storage_arguments import add_store_options, build_bucket


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``doctor``."""
    parser = entry_point.Parser(prog="crossdim", description="Checks of an installation.")
    add_verbs(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[entry_point.Parser]) -> None:
    """Add the verb ``doctor``."""
    about = "check this installation and machine, a storage location and a Ray cluster"
    codes = "Exit code 0 without failures, though perhaps with warnings; 2 with one: some verb would fail."
    verb = verbs.add_parser("doctor", help=about, description=f"{about[0].upper()}{about[1:]}. {codes}")
    location = "a location where temporary objects are written, read, listed and deleted; nothing else there is touched"
    verb.add_argument("location", metavar="URL", nargs="?", help=location)
    verb.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster to join; each of its machines is checked")
    verb.add_argument("--json", action="store_true", help="print one JSON object")
    add_config_options(verb)
    add_store_options(verb)
    entry_point.add_examples(verb, ["crossdim doctor", "crossdim doctor s3://lab/ct-1mm --ray-address auto"])
    verb.set_defaults(verb=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    checks = _list_checks(arguments)
    with show_stage("doctor", f"checking {', '.join(name for name, _ in checks)}", quiet=arguments.json):
        results = run_checks(checks)
    if address := arguments.ray_address or os.environ.get("RAY_ADDRESS"):  # which other verbs would join, too
        # In this thread, the main one: a Ray session takes over signals.
        with show_stage("doctor", "joining the Ray cluster", quiet=arguments.json):
            results += run_check("Ray cluster", partial(_check_ray, address), _advise_ray(address))
    failures = sum(one.level is Level.FAILURE for one in results)
    warnings = sum(one.level is Level.WARNING for one in results)
    document: dict[str, object] = {"checks": [asdict(one) for one in results], "failures": failures, "warnings": warnings}
    entry_point.print_result(document, _format_results(results, failures, warnings), as_json=arguments.json)
    return entry_point.FAILED if failures else entry_point.DONE


def _list_checks(arguments: argparse.Namespace) -> list[tuple[str, Check]]:
    """Name and function of each check; the slowest first, and what a function needs is imported when it runs."""
    from crossdim.foundation.machine_checks import check_folders, check_open_files, check_shared_memory
    from crossdim.foundation.package_checks import check_packages, check_python

    checks: list[tuple[str, Check]] = [
        ("Python", check_python),
        ("packages", check_packages),
        ("PyTorch", _check_torch),
        ("DICOM", _check_codecs),
        ("shared memory", check_shared_memory),
        ("open files", check_open_files),
        ("folders", check_folders),
    ]
    if arguments.location is not None:
        bucket = build_bucket(arguments.location, arguments)  # wrong use is told as by other verbs
        from crossdim.foundation.storage_checks import check_storage

        checks.append(("storage", partial(check_storage, bucket)))
    return checks


def _check_torch() -> Sequence[CheckResult]:
    from crossdim.training.torch_check import check_torch

    return check_torch()


def _check_codecs() -> Sequence[CheckResult]:
    from crossdim.pipelines.codec_packages import check_codec_packages

    def decode() -> Sequence[CheckResult]:
        from crossdim.pipelines.codec_checks import check_codecs  # with pydicom, which imports every codec

        return check_codecs()

    return [*check_codec_packages(), *run_check("DICOM", decode, "pip install --force-reinstall 'crossdim[dicom]'")]


def _check_ray(address: str) -> Sequence[CheckResult]:
    from crossdim.foundation.ray_checks import check_ray

    return check_ray(address)


def _advise_ray(address: str) -> str:
    """What to do where no cluster can be joined."""
    if address == "auto":
        return "name the HOST:PORT of a cluster, or start one here: ray start --head"
    return f"ask the cluster itself: ray status --address {shlex.quote(address)}"


def _format_results(results: Sequence[CheckResult], failures: int, warnings: int) -> str:
    width = max(len(one.check) for one in results)
    lines = [f"{one.level:<7}  {one.check:<{width}}  {_format_finding(one)}" for one in results]
    return "\n".join([*lines, "", f"{len(results)} checks; failures: {failures}, warnings: {warnings}"])


def _format_finding(result: CheckResult) -> str:
    return f"{result.found}. Remedy: {result.remedy}" if result.remedy else result.found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
