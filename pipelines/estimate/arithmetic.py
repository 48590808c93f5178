"""From a planned and sampled preparation to what the whole of it will take."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossdim.pipelines.estimate.choice import measure_size, weigh
from crossdim.pipelines.estimate.counting import PAGE
from crossdim.pipelines.estimate.job import PlannedJob
from crossdim.pipelines.jobs.plan import Plan
from crossdim.pipelines.jobs.recipe import ImageRecipe, VolumeRecipe
from crossdim.pipelines.jobs.scan import GROUP
from crossdim.pipelines.publish import ROWS_PER_PART, build_table_objects
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, IGNORED_SCHEMA, QUARANTINE_SCHEMA

#: Largest number of cores in the table, unless ``--concurrency`` names one.
MOST_CORES = 64
#: Seconds that Ray takes to start and to stop on one machine, about.
RAY_S = 10.0
#: Requests of a preparation at its output besides those that are measured or follow from the plan: looks, records, card. Of the
#: record of its process the first write counts; one more every ten seconds is little beside the rest.
FIXED_REQUESTS = 34
#: Memory of a task of images in bytes, for a byte of its shard: the samples, their members, the tar twice while it is finished.
COPIES_OF_SHARD = 3
#: Memory of a task of volumes in bytes, for a voxel of the boxes that wait for their shard: waiting, packed, compressed.
BYTES_PER_WAITING_VOXEL = 5
#: Memory of a task and its decoder for a value of the largest input, see the README of pipelines.
BYTES_PER_PIXEL, BYTES_PER_VOXEL = 6, 21


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a preparation takes.

    Attributes:
        objects_are_exact: whether the number of objects follows from the plan; else it is the largest possible.
        cores: at a time, for which ``wall_s`` and ``peak_bytes`` are.
    """

    samples: float
    num_bytes: float
    objects: int
    objects_are_exact: bool
    requests: float
    cpu_s: float
    cores: tuple[int, ...]
    wall_s: tuple[float, ...]
    peak_bytes: tuple[float, ...]


def estimate_job(job: PlannedJob, *, may_use_ray: bool = True) -> Estimate:
    """Extrapolate from the sample to the whole preparation.

    Args:
        job: planned and sampled.
        may_use_ray: whether numbers of cores are shown that need Ray.

    Returns:
        The estimate.
    """
    plan, recipe, sample = job.planned.plan, job.preparation.recipe, job.sample
    items = [item for task in plan.tasks for item in task.items]
    task_weights = [sum(weigh(item, recipe) for item in task.items) for task in plan.tasks]
    total_weight = sum(task_weights)
    per_size = sum(measure_size(item, recipe) for item in items) / max(1, sample.size)
    samples = sample.samples * (len(items) / sample.items if isinstance(recipe, ImageRecipe) else per_size)
    object_bytes = sample.object_bytes * per_size
    tables, table_bytes = _measure_tables(plan, samples, sample.samples, sample.catalog_bytes)
    shards = plan.num_shards if isinstance(recipe, VolumeRecipe) else len(plan.tasks)
    objects = shards + tables + isinstance(recipe, VolumeRecipe)
    files = sum(len(item.files) for item in items)
    reads = sample.reads * files / sample.files
    cores = list_cores(job, may_use_ray=may_use_ray)
    seconds = [weight * sample.seconds_per_weight.wall_s for weight in task_weights]
    peak = _estimate_peak(job, object_bytes, task_weights)
    return Estimate(
        samples=samples,
        num_bytes=object_bytes + table_bytes,
        objects=objects,
        objects_are_exact=isinstance(recipe, ImageRecipe) and not job.has_trial_key,
        requests=job.scan_requests
        + reads
        + shards
        + 2 * len(plan.tasks)
        + sample.finish_requests
        + 3 * math.ceil((objects + len(plan.tasks)) / PAGE)
        + FIXED_REQUESTS,
        cpu_s=job.before.cpu_s + total_weight * sample.seconds_per_weight.cpu_s + sample.finish.cpu_s,
        cores=cores,
        wall_s=tuple(_estimate_wall(job, seconds, number) for number in cores),
        peak_bytes=tuple(peak * number for number in cores),
    )


def list_cores(job: PlannedJob, *, may_use_ray: bool) -> tuple[int, ...]:
    """List the numbers of cores that the table shows.

    Args:
        job: with the number asked for with ``--concurrency``, if any.
        may_use_ray: whether there may be more than one.

    Returns:
        One for a job of this process; else powers of two up to the number of tasks.
    """
    if not may_use_ray:
        return (1,)
    if job.preparation.concurrency:
        return tuple(sorted({1, job.preparation.concurrency})) if job.is_local else (job.preparation.concurrency,)
    doublings = min(len(job.planned.plan.tasks), MOST_CORES) - 1
    return tuple(1 << number for number in range(max(0, doublings).bit_length() + 1))


def _measure_tables(plan: Plan, samples: float, measured: int, catalog_bytes: int) -> tuple[int, float]:
    """Number and bytes of the tables: those of refused and ignored files as they will be, the catalog by its rows."""
    empty = len(build_table_objects("catalog", (), CATALOG_SCHEMA)[0].data)
    per_row = max(0, catalog_bytes - empty) / max(1, measured)
    known = build_table_objects("quarantine", [one.row() for one in plan.refused], QUARANTINE_SCHEMA)
    known += build_table_objects("ignored", [one.row() for one in plan.ignored], IGNORED_SCHEMA)
    parts = max(1, math.ceil(samples / ROWS_PER_PART))
    return len(known) + parts, sum(len(one.data) for one in known) + parts * empty + samples * per_row


def _estimate_wall(job: PlannedJob, task_seconds: Sequence[float], cores: int) -> float:
    in_tasks, finish = schedule(task_seconds, cores), job.sample.finish.wall_s
    if job.is_local and cores == 1:
        return job.before.wall_s + in_tasks + finish
    groups = math.ceil(job.num_files / GROUP)
    scan_s = job.scan_s / min(cores, groups) if job.is_local else job.scan_s
    ray_s = RAY_S if job.is_local else 0.0
    return ray_s + job.before.wall_s - job.scan_s + scan_s + in_tasks + finish


def schedule(seconds: Iterable[float], cores: int) -> float:
    """When the last of some tasks ends, if each is begun, in order, by the first core that is free.

    Args:
        seconds: of each task.
        cores: at work.

    Returns:
        Seconds from the beginning.
    """
    free = [0.0] * cores
    for taken in seconds:
        heapq.heappush(free, heapq.heappop(free) + taken)
    return max(free)


def _estimate_peak(job: PlannedJob, object_bytes: float, task_weights: Sequence[int]) -> float:
    """Memory of a task and its decoder: as in the sample, and what the largest shard or input needs beyond it."""
    sample, recipe = job.sample, job.preparation.recipe
    largest = max(item.num_values for task in job.planned.plan.tasks for item in task.items)
    more_values = max(0, largest - sample.largest_values)
    if isinstance(recipe, VolumeRecipe):
        most = max(sum(item.boxes for item in task.items) for task in job.planned.plan.tasks)
        waiting = min(most, recipe.patches_per_shard) - min(sample.most_boxes, recipe.patches_per_shard)
        waiting_bytes = BYTES_PER_WAITING_VOXEL * max(0, waiting) * recipe.superpatch.side**3
        return sample.peak_bytes + BYTES_PER_VOXEL * more_values + waiting_bytes
    shard_bytes = object_bytes * max(task_weights) / sum(task_weights)
    more_bytes = max(0.0, shard_bytes - sample.largest_task_bytes)
    return sample.peak_bytes + COPIES_OF_SHARD * more_bytes + BYTES_PER_PIXEL * more_values
