"""The verbs of training: ``pretrain``, ``status``, ``evaluate``, ``study``. Nothing heavy is imported until a verb runs."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossdim.foundation import signals
from crossdim.foundation.config_options import AppendSetting, add_config_options, add_set_option
from crossdim.foundation.entry_point import DONE, Parser, add_examples, print_result
from crossdim.foundation.entry_point import main as run_verb
from crossdim.foundation.location import format_location, hide_secrets
from crossdim.foundation.plan_table import add_price_options, read_prices
from crossdim.foundation.storage_arguments import add_store_options, open_bucket, open_weighted_bucket
from crossdim.foundation.usage import measure_usage
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training import run_verbs
from crossdim.training.chosen_steps import NONE, parse_checkpoint_choice, parse_chosen_steps
from crossdim.training.dataset_options import add_data_version_option, check_distinct, find_manifests, find_versions, refuse_runs
from crossdim.training.option_values import (
    parse_baseline_count,
    parse_checkpoint_interval,
    parse_fold_count,
    parse_seconds,
    parse_thread_count,
    parse_worker_range,
)
from crossdim.training.recipe_names import RECIPE_NAMES
from crossdim.training.split_choice import AUTO, SPLIT_CHOICES
from crossdim.training.study_subjects import STUDY_SUBJECTS
from crossdim.training.tracker_names import TRACKER_NAMES

if TYPE_CHECKING:
    from crossdim.foundation.bucket import Bucket
    from crossdim.foundation.settings import Families
    from crossdim.training.config.pretraining import Pretraining
    from crossdim.training.engine.monitor import Monitoring
    from crossdim.training.launch.worker import Source
    from crossdim.training.run_dir.checkpoint import Saving

#: Steps after which a run draws pictures.
PICTURES_AT = "0%,10%,50%,100%"


def _pretrain(arguments: argparse.Namespace) -> int:
    signals.tell_written(written=False)
    started, begun = time.monotonic(), measure_usage()
    prices = read_prices(arguments)
    if "gpu_hour" in prices and not arguments.gpu:
        raise UsageError("--price-gpu-hour needs --gpu; without it no GPU is used")
    run = open_bucket(arguments.out, arguments)  # before torch is imported, which takes seconds
    datasets = [open_weighted_bucket(text, arguments) for text in arguments.data]
    from crossdim.training.config.pretraining import apply_overrides
    from crossdim.training.extensions import load_extensions
    from crossdim.training.launch.driver import pretrain, read_saved_config
    from crossdim.training.launch.workers import Workers
    from crossdim.training.recipes import recipe
    from crossdim.training.recipes.provenance import record_run

    load_extensions(arguments.extension)
    config = recipe(arguments.recipe) if arguments.recipe else read_saved_config(run)
    config = apply_overrides(config, arguments.set)
    sources = _build_sources(datasets, arguments)
    least, most = arguments.workers
    workers = Workers(
        least=least,
        most=most,
        use_gpu=arguments.gpu,
        address=arguments.ray_address,
        quiet=arguments.json,
        resize_every_s=arguments.resize_every,
    )
    monitoring = _build_monitoring(arguments)
    saving = _build_saving(arguments, config.steps)
    pictures_at = arguments.pictures_at.resolve(config.steps, "--pictures-at")
    if arguments.plan:
        from crossdim.training.launch.planning import plan_run

        document, table = plan_run(config, sources, run, workers, saving, arguments.threads, prices, begun)
        print_result(document, table, as_json=arguments.json)
        return DONE
    provenance = record_run(arguments.recipe, config, use_gpu=arguments.gpu)
    before = pretrain(
        config,
        sources,
        run,
        workers,
        saving,
        arguments.threads,
        provenance,
        pictures_at,
        tuple(arguments.track),
        monitoring,
        force=arguments.force,
    )
    if before < config.steps:
        from crossdim.training.show.page import renew_pages

        renew_pages(run)
    seconds, urls = time.monotonic() - started, [dataset.url for dataset, _ in datasets]
    document = {"out": hide_secrets(run.url), "steps": config.steps, "resumed_at": before, "seconds": round(seconds, 1)}
    how = "was already done" if before >= config.steps else f"trained from step {before} to {config.steps} in {seconds:.0f} s"
    print_result(
        document,
        f"{run.where('')} {how}. Next: crossdim evaluate {shlex.join([run.where(''), '--data', *map(format_location, urls)])}",
        as_json=arguments.json,
    )
    return DONE


def _build_monitoring(arguments: argparse.Namespace) -> Monitoring:
    from crossdim.training.engine.monitor import Monitoring

    try:
        return Monitoring(every=arguments.monitor_every, stop_on_collapse=arguments.stop_on_collapse)
    except RunError as error:
        raise UsageError(f"--monitor-every, --stop-on-collapse: {error}") from None


def _load_recipe(arguments: argparse.Namespace) -> tuple[Pretraining, Families]:
    from crossdim.training.config.pretraining import FAMILIES
    from crossdim.training.extensions import load_extensions
    from crossdim.training.recipes import recipe

    load_extensions(getattr(arguments, "extension", []))
    return recipe(arguments.recipe), FAMILIES


def _build_saving(arguments: argparse.Namespace, steps: int) -> Saving:
    from crossdim.training.run_dir.checkpoint import Saving

    every, every_s = arguments.checkpoint_every
    try:
        at = arguments.keep_at.resolve(steps, "--keep-at")
        return Saving(every=every, every_s=every_s, last=arguments.keep, for_good=arguments.keep_every, at=at)
    except RunError as error:
        raise UsageError(f"--keep, --keep-every: {error}") from None


def _build_sources(datasets: Sequence[tuple[Bucket, float]], arguments: argparse.Namespace) -> list[Source]:
    """The datasets of a run with weights and versions; each may be named once."""
    from crossdim.training.launch.worker import Source

    buckets = [dataset for dataset, _ in datasets]
    refuse_runs(buckets)
    manifests = find_manifests(buckets, find_versions(buckets, arguments.data_version))
    sources = [
        Source(bucket=dataset, weight=weight, manifest=manifest)
        for (dataset, weight), manifest in zip(datasets, manifests, strict=True)
    ]
    _check_datasets(sources)
    return sources


def _check_datasets(sources: Sequence[Source]) -> None:
    from crossdim.training.data.mixture import integer_weights

    check_distinct([source.bucket for source in sources], "name each dataset once, with a weight as in {url}:2")
    try:
        integer_weights([source.weight for source in sources])
    except RunError as error:
        raise UsageError(f"--data URL:WEIGHT: {error}") from None


def _evaluate(arguments: argparse.Namespace) -> int:
    signals.tell_written(written=False)  # before the end
    run = open_bucket(arguments.run, arguments)
    datasets = [open_bucket(url, arguments) for url in arguments.data]
    refuse_runs(datasets)
    check_distinct(datasets, "name each dataset once")
    versions = find_versions(datasets, arguments.data_version)
    from crossdim.training.evaluation import evaluate
    from crossdim.training.extensions import load_extensions

    load_extensions(arguments.extension)
    document, sentence = evaluate(
        run,
        datasets,
        folds=arguments.folds,
        baselines=arguments.baselines,
        quiet=arguments.json,
        checkpoints=arguments.checkpoints,
        versions=versions,
        split=arguments.split,
    )
    print_result(document, sentence, as_json=arguments.json)
    return DONE


def _study(arguments: argparse.Namespace) -> int:
    out = open_bucket(arguments.out, arguments)
    datasets, others = ([open_bucket(url, arguments) for url in urls] for urls in (arguments.data, arguments.eval_data))
    refuse_runs([*datasets, *others])
    check_distinct(datasets, "name each dataset once")
    versions = find_versions([*datasets, *others], arguments.data_version)
    from crossdim.training.config.pretraining import apply_overrides
    from crossdim.training.launch.worker import Source
    from crossdim.training.launch.workers import Workers
    from crossdim.training.recipes import recipe
    from crossdim.training.studies import study
    from crossdim.training.studies.run import StudyConfig, run_study

    config = apply_overrides(recipe(arguments.recipe), arguments.set)
    sources, eval_sources = (
        tuple(
            Source(bucket=found, weight=1.0, manifest=manifest)
            for found, manifest in zip(buckets, find_manifests(buckets, versions), strict=True)
        )
        for buckets in (datasets, others)
    )
    workers = Workers(least=0, most=0, use_gpu=arguments.gpu, address=None, quiet=arguments.json)
    study_config = StudyConfig(
        sources=sources,
        eval_sources=eval_sources,
        out=out,
        seeds=arguments.seeds,
        folds=arguments.folds,
        weak=arguments.weak,
        workers=workers,
        threads=arguments.threads,
    )
    document, table = run_study(study(arguments.study, config), study_config)
    print_result(document, f"{table}\ntable: {out.where('study.md')}", as_json=arguments.json)
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = Parser(prog="crossdim", description="Pretrain encoders on published datasets, and prove what they are worth.")
    add_verbs(parser.add_subparsers(required=True, metavar="VERB"))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Add the verbs of training."""
    _add_pretrain(verbs)
    run_verbs.add_status(verbs)
    run_verbs.add_runs(verbs)
    _add_evaluate(verbs)
    _add_study(verbs)


def _add_pretrain(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = verbs.add_parser("pretrain", help="start a run, or go on with the one that is in --out")
    verb.set_defaults(verb=_pretrain, load_recipe=_load_recipe)
    named = "such as cdssl-p3d:tiny, or module:function of your own; may be left out to resume"
    verb.add_argument("--recipe", metavar="NAME", help=named)
    _add_extension(verb)
    verb.add_argument(
        "--data", metavar="URL[:WEIGHT]", nargs="+", required=True, help="published datasets and their share of a batch"
    )
    add_data_version_option(verb)
    verb.add_argument("--out", metavar="URL", required=True, help="folder of the run")
    _add_steps(verb, "optimizer steps")
    add_set_option(verb)
    spread = "Ray Train workers; MIN:MAX is elastic; 0 trains in this process without Ray"
    verb.add_argument("--workers", type=parse_worker_range, default="1", metavar="N|MIN:MAX", help=spread)
    verb.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    verb.add_argument(
        "--threads", type=parse_thread_count, default=2, metavar="N", help="threads per worker that read samples and draw views"
    )
    spacing = "steps between checkpoints, or seconds: 100 or 30s"
    verb.add_argument("--checkpoint-every", type=parse_checkpoint_interval, default="100", metavar="N|Ns", help=spacing)
    verb.add_argument("--keep", type=int, default=3, metavar="N", help="number of newest checkpoints to keep")
    verb.add_argument("--keep-every", type=int, metavar="K", help="also keep the checkpoints of every K-th step")
    stay = "checkpoints after these steps are written and stay for good, for crossdim evaluate --checkpoints: such as 25%%,50%%"
    verb.add_argument("--keep-at", type=parse_chosen_steps, default=NONE, metavar="STEP|P%,...", help=stay)
    drawn = "after these steps views and restorations of a few samples are drawn for the page of the run"
    drawn += f", or {NONE} (default: {PICTURES_AT.replace('%', '%%')})"
    verb.add_argument("--pictures-at", type=parse_chosen_steps, default=PICTURES_AT, metavar="STEP|P%,...", help=drawn)
    tracked = f"also send the numbers of TensorBoard to {' or '.join(TRACKER_NAMES)}; pictures stay in the folder of the run"
    verb.add_argument("--track", choices=TRACKER_NAMES, nargs="+", default=[], metavar="TRACKER", help=tracked)
    monitored = "steps between measurements of the features of a fixed batch; 0 for none"
    verb.add_argument("--monitor-every", type=int, default=50, metavar="N", help=monitored)
    verb.add_argument("--stop-on-collapse", action="store_true", help="end, with exit code 4, when those features collapse")
    taken = "go on with the run although another process of this machine trains it; that process ends at its next checkpoint"
    verb.add_argument("--force", action="store_true", help=taken)
    looks = "seconds between checks for more workers, in an elastic run"
    verb.add_argument("--resize-every", type=parse_seconds, default=60.0, metavar="S", help=looks)
    measured = "say hours, memory, bytes and requests, from a few steps in this process; start and write nothing"
    verb.add_argument("--plan", action="store_true", help=measured)
    add_price_options(verb, ["gpu_hour", "cpu_hour", "request"])
    verb.add_argument("--ray-address", metavar="ADDRESS", help="of a running cluster; otherwise Ray starts here")
    verb.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    add_config_options(verb)
    add_store_options(verb)
    add_examples(
        verb,
        [
            "crossdim pretrain --recipe cdssl-p3d:tiny --data data/xr data/ct --out runs/first --workers 0 --steps 200",
            "crossdim pretrain --recipe cdssl-p3d --data s3://lab/ct:0.5 s3://lab/xr:0.5 --out s3://lab/a --workers 2:16 --gpu "
            "--track wandb",
        ],
        RECIPE_NAMES,
    )


def _add_steps(verb: Parser, about: str) -> None:
    verb.add_argument(
        "--steps", action=AppendSetting, dest="set", path="steps", type=int, metavar="N", help=f"{about}; short for --set steps=N"
    )


def _add_extension(verb: Parser) -> None:
    about = "module with methods or backbones of your own that a run uses; repeatable"
    verb.add_argument("--extension", metavar="MODULE", action="append", default=[], help=about)


def _add_evaluate(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = verbs.add_parser("evaluate", help="probe a run's encoder beside untrained baselines; write report.html into the run")
    verb.set_defaults(verb=_evaluate)
    verb.add_argument("run", metavar="RUN", help="folder of the run")
    verb.add_argument("--data", metavar="URL", nargs="+", required=True, help="published datasets; labelled ones are probed")
    add_data_version_option(verb)
    verb.add_argument(
        "--folds",
        type=parse_fold_count,
        default=5,
        metavar="N",
        help="parts of the cross-validation; all samples of a patient are in the same part",
    )
    probed = "samples that are probed; auto: those held out of datasets whose labels the encoder was trained on, all of others"
    verb.add_argument("--split", choices=SPLIT_CHOICES, default=AUTO, help=f"{probed} (default: {AUTO})")
    verb.add_argument("--baselines", type=parse_baseline_count, default=3, metavar="N", help="untrained encoders to compare with")
    also = "probe these checkpoints as well, for curves over the steps: all that are kept, or those of some steps"
    verb.add_argument("--checkpoints", type=parse_checkpoint_choice, metavar="all|STEP|P%,...", help=also)
    _add_extension(verb)
    verb.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    add_config_options(verb)
    add_store_options(verb)
    add_examples(
        verb,
        [
            "crossdim evaluate runs/first --data data/xr --checkpoints all",
            "crossdim evaluate s3://lab/a --data s3://lab/xr s3://lab/ct --baselines 5",
        ],
    )


def _add_study(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = verbs.add_parser("study", help="pretrain several arms with several seeds, and put them into one table")
    verb.set_defaults(verb=_study, load_recipe=_load_recipe)
    verb.add_argument("study", metavar="STUDY", help="; ".join(f"{name}: {about}" for name, about in STUDY_SUBJECTS.items()))
    verb.add_argument("--recipe", metavar="NAME", required=True, help="the recipe that all arms are based on")
    verb.add_argument("--data", metavar="URL", nargs="+", required=True, help="published datasets; labelled ones are probed")
    verb.add_argument("--out", metavar="URL", required=True, help="folder of the study; the same command resumes")
    verb.add_argument(
        "--eval-data", metavar="URL", nargs="+", default=[], help="published datasets that arms are only evaluated on"
    )
    add_data_version_option(verb)
    verb.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each arm")
    _add_steps(verb, "optimizer steps of each run")
    add_set_option(verb)
    verb.add_argument(
        "--folds",
        type=parse_fold_count,
        default=5,
        metavar="N",
        help="parts of the cross-validation; all samples of a patient are in the same part",
    )
    verb.add_argument("--weak", action="store_true", help="probe with batch norms and one layer trainable as well; takes minutes")
    verb.add_argument("--gpu", action="store_true", help="train on the GPU of this machine")
    verb.add_argument(
        "--threads", type=parse_thread_count, default=2, metavar="N", help="threads that read samples and draw views"
    )
    verb.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    add_config_options(verb)
    add_store_options(verb)
    add_examples(
        verb,
        [
            "crossdim study four-arms --recipe cdssl-p3d:tiny --data data/xr data/ct --out studies/arms --seeds 3 --steps 400",
            "crossdim study restorers --recipe maesil:small --data data/ct --eval-data data/phantoms --out studies/restorers",
        ],
        RECIPE_NAMES,
    )


def _set_passive_threads() -> None:
    """Let idle OpenMP threads sleep: spinning, they take the processor from those that read samples (torch is not loaded yet)."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb of a command line, by default of this process; returns the exit code."""
    _set_passive_threads()
    return run_verb(build_parser, argv)
