"""Checks before anything starts that a run fits its data, its folder and its workers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc
import torch

from crossdim.foundation.bars import write_lines
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import holds_dataset, read_manifest
from crossdim.foundation.output import check_not_nested, check_outside
from crossdim.storage_schema.errors import DocumentError, Problem, RunError, UsageError
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.config.device_choice import CPU, Device, choose_execution, describe_choice, describe_kept, keep_recorded
from crossdim.training.config.execution import AUTO
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.engine.execution import check_execution
from crossdim.training.launch.worker import Source, build_identity, build_order
from crossdim.training.methods.base import Method, MethodConfig
from crossdim.training.network_limits import limit_parts
from crossdim.training.run_dir.differences import describe_differences
from crossdim.training.run_dir.output_check import check_run_folder, holds_run
from crossdim.training.run_dir.run_identity import read_identity

#: Seen with PyTorch 2.13 and oneDNN: NaN in the weight gradient of a 64-channel 3x3x3 convolution on a 2x4x4 map, now and then.
BF16_ON_CPU = "bf16 needs --gpu: on a CPU gradients of small 3D convolutions come out as NaN now and then"

#: Parameters and buffers of a network, at most: far more than any has, few enough to be counted in seconds.
MAX_TENSORS = 20_000
#: Labels of a dataset that a message names.
MAX_LABELS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidatedRun:
    """A run that may start.

    Attributes:
        config: with nothing left to the devices.
        identity: what makes it the run that it is.
        damage: where the folder's configuration is not what was written, a sentence on it; it is to be written anew.
        choices: sentences on what was chosen for its data and devices, or kept although devices would choose otherwise.
    """

    config: Pretraining
    identity: dict[str, Any]
    damage: str | None
    choices: tuple[str, ...]


class FindDevices(Protocol):
    """Finds the devices that a run may use, one of each kind."""

    def __call__(self, *, needed: bool) -> Sequence[Device]:
        """Find them; an answer that takes time is given only if it is needed."""


def find_cpu(*, needed: bool) -> Sequence[Device]:
    """The device of a run without GPUs."""
    return (CPU,)


def validate_run(
    config: Pretraining,
    sources: Sequence[Source],
    run: Bucket,
    world: int,
    *,
    use_gpu: bool,
    find_devices: FindDevices = find_cpu,
) -> ValidatedRun:
    """Check that a run fits its data, its folder and its workers, and choose what it leaves to its devices.

    Args:
        config: of the run.
        sources: its datasets.
        run: its folder.
        world: the most workers; 0 to train in this process.
        use_gpu: whether each worker has a GPU.
        find_devices: finds those that the run may use, one of each kind; called after all other checks.

    Returns:
        The run's configuration and identity, and whether the configuration in its folder is damaged.

    Raises:
        UsageError: if the folder holds other files, or is a dataset of the run or in one; if the network is too large; or
            naming everything that does not fit data, workers and machine.
        RunError: if another run is in the folder, with the differences.
    """
    check_outside(run, [source.bucket for source in sources])
    check_not_nested(run, "dataset", holds_dataset)
    check_not_nested(run, "run", holds_run)
    check_run_folder(run)
    before = read_identity(run)
    datasets = [source.open() for source in begin_sources(sources, before.identity if before else {})]
    weights = [source.weight for source in sources]
    recorded = before.identity["config"] if before else {}
    asked_method = keep_recorded(config.method, recorded.get("method", {}))
    config = replace(config, method=_complete_method(asked_method, datasets, use_gpu=use_gpu))
    problems = _find_problems(config, datasets, weights, world)
    asked = keep_recorded(config.compute, recorded.get("compute", {}))
    if asked.precision == "bf16" and not use_gpu:
        remedy = "use fp32" if before is None else "this run was started with it: go on with --gpu"
        problems.append(Problem(loc="compute.precision", message=f"{BF16_ON_CPU}; {remedy}"))
    if problems:
        raise UsageError(str(DocumentError(f"the run does not fit its data ({config.method.kind})", problems)))
    method = _build_on_meta(config)
    check_execution(config.compute, method)
    if world == 0 and not use_gpu:
        _check_memory(method)
    devices = find_devices(needed=AUTO in (asked.precision, asked.compiled))
    chosen = choose_execution(asked, devices)
    config = replace(config, compute=chosen)
    mine = build_identity(config, datasets, weights)
    if before is not None and before.identity != mine:
        raise RunError(
            f"{run.where('')} holds another run: {describe_differences(before.identity, mine)}. Give what it was started with "
            "(without --recipe, --set and --steps its own settings are taken), or choose another --out"
        )
    if before is not None:
        write_lines(_describe_earlier_versions(datasets))
        choices = [describe_kept(chosen, devices)]
    else:
        classes, rendering = _describe_classes(asked_method, config.method), _describe_rendering(asked_method, config.method)
        choices = [classes, describe_choice(asked, chosen, devices), rendering]
    return ValidatedRun(
        config=config, identity=mine, damage=before.damage if before else None, choices=tuple(filter(None, choices))
    )


def _find_problems(
    config: Pretraining, datasets: Sequence[PublishedDataset], weights: Sequence[float], world: int
) -> list[Problem]:
    """Everything in which a run does not fit its data and workers."""
    problems = _find_data_problems(config, datasets) + _find_world_problems(config, datasets, weights, world)
    problems += _find_label_problems(config.method, datasets)
    return problems + (_find_joint_problems(config, datasets) if config.mixing.mode == "joint" else [])


def begin_sources(sources: Sequence[Source], identity: Mapping[str, Any]) -> list[Source]:
    """The datasets of a run, each with the version that the run began with, unless another is asked for.

    Args:
        sources: as they are named now.
        identity: of the run in the folder; empty if it begins.

    Returns:
        The datasets, in the same order.
    """
    begun = identity.get("datasets", [])
    if len(begun) != len(sources):
        return list(sources)
    return [
        source if source.manifest else replace(source, manifest=str(dataset.get("manifest", "")))
        for source, dataset in zip(sources, begun, strict=True)
    ]


def _describe_earlier_versions(datasets: Sequence[PublishedDataset]) -> list[str]:
    """A sentence for each dataset to which something was added since the run began."""
    return [
        f"{dataset.bucket.where('')} has a newer version; this run goes on with the one that it began with"
        for dataset in datasets
        if read_manifest(dataset.bucket).digest != dataset.manifest.digest
    ]


def _list_labels(datasets: Sequence[PublishedDataset]) -> tuple[str, ...]:
    """All labels of the samples that are trained on, sorted."""
    found = {label for dataset in datasets for label in pc.unique(dataset.table["label"]).to_pylist()}
    return tuple(sorted(found - {None}))


def _complete_method(asked: MethodConfig, datasets: Sequence[PublishedDataset], *, use_gpu: bool) -> MethodConfig:
    """The settings of a method, with what they leave to the datasets and to the devices."""
    geometries = frozenset(filter(None, (dataset.pseudo3d for dataset in datasets)))
    return asked.with_labels(_list_labels(datasets)).for_devices(geometries, use_gpu=use_gpu)


def _describe_rendering(asked: MethodConfig, chosen: MethodConfig) -> str:
    """Say that views are rendered on the GPU, if that was chosen; empty otherwise."""
    if getattr(asked, "render", None) == AUTO and getattr(chosen, "render", None) == "device":
        return "views are rendered on the GPU; to change it: --set method.render=workers"
    return ""


def _describe_classes(asked: MethodConfig, chosen: MethodConfig) -> str:
    """Which classes were taken from the datasets; empty if none were."""
    names = chosen.label_names()
    if names == asked.label_names():
        return ""
    more = f" and {len(names) - MAX_LABELS} more" if len(names) > MAX_LABELS else ""
    shown = f"{', '.join(map(printable, names[:MAX_LABELS]))}{more}"
    return f"{len(names)} classes, all labels of the datasets: {shown}; --set method.classes names some"


def _build_on_meta(config: Pretraining) -> Method:
    """Build the method without memory for its weights."""
    try:
        with torch.device("meta"), limit_parts(MAX_TENSORS):
            return config.method.build()
    except (RuntimeError, ArithmeticError, TypeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{config.method.kind}: no network can be built of these settings: {reason}; make it smaller") from error


def _check_memory(method: Method) -> None:
    """Check that weights and their gradients fit into this machine."""
    numbers = sum(parameter.numel() for parameter in method.parameters())
    needed = 2 * sum(parameter.nbytes for parameter in method.parameters())
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        found = f"{numbers:,} parameters and their gradients take {needed / 1e9:,.1f} GB of memory"
        raise UsageError(f"{found}; this machine has {present / 1e9:,.1f} GB: make the network smaller")


def _find_data_problems(config: Pretraining, datasets: Sequence[PublishedDataset]) -> list[Problem]:
    problems = []
    seen: dict[Presentation, str] = {}
    for dataset in datasets:
        presentation, url = dataset.manifest.presentation, dataset.bucket.where("")
        if presentation not in config.method.accepts:
            known = ", ".join(sorted(config.method.accepts))
            problems.append(Problem(loc=url, message=f"holds {presentation}; {config.method.kind} accepts {known}"))
        if dataset.pseudo3d and not dataset.pseudo3d.reversible:
            problems.append(
                Problem(loc=url, message="its pseudo-3D view cannot be folded back exactly; prepare it with stride = window")
            )
        first = seen.setdefault(presentation, url)
        theirs = next(c.pseudo3d for c in datasets if c.bucket.where("") == first)
        if theirs != dataset.pseudo3d:
            problems.append(Problem(loc=url, message=f"has another pseudo-3D geometry than {first}"))
    return problems


def _find_label_problems(method: MethodConfig, datasets: Sequence[PublishedDataset]) -> list[Problem]:
    """Check that datasets have samples of the classes that a method learns from: without any it would run, and learn nothing."""
    if not method.learns_from_labels:
        return []
    classes = method.label_names()
    wanted = (
        f"no sample of the classes {', '.join(classes)}" if classes else f"fewer than two labels, and {method.kind} learns them"
    )
    counts = [Counter(dataset.column("label")) for dataset in datasets]
    problems = []
    for dataset, found in zip(datasets, counts, strict=True):
        if not found.keys() & set(classes):
            labels = ", ".join(f"{label} ({number})" for label, number in found.most_common(MAX_LABELS) if label is not None)
            has = f"its labels are {labels}" if labels else "it has no labels: prepare it with --label folder or --labels"
            problems.append(Problem(loc=dataset.bucket.where(""), message=f"has {wanted}; {has}"))
    if missing := [name for name in classes if not any(found[name] for found in counts)]:
        problems.append(Problem(loc="method.classes", message=f"no dataset has a sample of {', '.join(missing)}"))
    return problems


def _find_joint_problems(config: Pretraining, datasets: Sequence[PublishedDataset]) -> list[Problem]:
    """Check that views of one sample of each dataset have equal names and shapes, as they share a tensor."""
    shapes = [
        {
            name: view.shape
            for name, view in config.method.draw(
                read_sample(dataset, 0, open_range_reader(dataset.bucket)), dataset.pseudo3d, np.random.default_rng(0)
            ).items()
        }
        for dataset in datasets
    ]
    return [
        Problem(
            loc=dataset.bucket.where(""), message=f"mixing joint needs views alike; its views are {shape}, the first {shapes[0]}"
        )
        for dataset, shape in zip(datasets, shapes, strict=True)
        if shape != shapes[0]
    ]


def _find_world_problems(
    config: Pretraining, datasets: Sequence[PublishedDataset], weights: Sequence[float], world: int
) -> list[Problem]:
    world, needed, parts = max(1, world), config.method.min_rank_batch, config.compute.accumulate
    if world > config.global_batch:
        found = f"{world} workers share a global_batch of {config.global_batch}: some would never have a sample"
        return [Problem(loc="workers", message=f"{found}; at most {config.global_batch} workers, or a larger global_batch")]
    order = build_order(config, datasets, weights)
    if config.compute.sync_bn:  # statistics are computed over all workers' samples together
        if not config.mixing.smallest_batch(order, config.global_batch, world):
            message = f"{world} workers leave one without a sample of a dataset; synchronised batch norm needs one of each"
            return [Problem(loc="workers", message=message)]
        world = 1
    least = config.mixing.smallest_batch(order, config.global_batch, world) // parts
    if least >= needed:
        return []
    cut = f", in {parts} parts," if parts > 1 else ""
    shown_datasets, shown_workers = (
        f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in ((len(datasets), "dataset"), (world, "worker"))
    )
    found = f"global_batch {config.global_batch} over {shown_datasets} and {shown_workers}{cut}"
    wanted = f"{config.method.kind} needs {needed} for batch norm"
    return [Problem(loc="workers", message=f"{found} leaves a worker {least} samples of one dataset at a time; {wanted}")]
