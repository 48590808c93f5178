"""Runs a small sample of a plan's inputs through the code of real tasks, and publishes it into a temporary folder."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import to_document
from crossdim.foundation.usage import Usage, measure_peak_bytes, measure_usage
from crossdim.pipelines.estimate.choice import measure_size, order_for_sampling, weigh
from crossdim.pipelines.estimate.counting import CountingBucket
from crossdim.pipelines.jobs.items import Item, Task
from crossdim.pipelines.jobs.plan_volumes import pack_volumes
from crossdim.pipelines.jobs.recipe import Recipe, VolumeRecipe
from crossdim.pipelines.jobs.source_inputs import SourceInputs
from crossdim.pipelines.jobs.task import TaskContext, run_task
from crossdim.pipelines.markers import Marker, marker_path, parse_marker
from crossdim.pipelines.publish import Bank, ManifestHeader, publish
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.show.page import PAGE, build_page
from crossdim.pipelines.show.preview_record import write_previews
from crossdim.pipelines.show.previews import look_at_sources
from crossdim.pipelines.show.summary import read_tables
from crossdim.storage_schema.digest import canonical_json

#: Seconds of the whole sample; the first inputs, one of each kind, and publishing may take longer. Ours.
BUDGET_S = 10.0
#: Values that are read and made in it at most, which bounds its folder to about a gigabyte. Ours.
MOST_VALUES = 2**29
#: A batch takes this share of the time that is left, so that later ones correct what was expected of the first.
SHARE = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Tasks that were run together: their markers, the weight of their inputs, and what they took."""

    tasks: tuple[Task, ...]
    markers: tuple[Marker, ...]
    weight: int
    used: Usage

    @property
    def items(self) -> list[Item]:
        """Their inputs."""
        return [item for task in self.tasks for item in task.items]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRun:
    """What was measured.

    Attributes:
        items: that were run.
        files: of them.
        weight: of ``items``, as :func:`choice.weigh` weighs them.
        size: of ``items``, as :func:`choice.measure_size` measures them.
        refused: of them, with rule and reason.
        samples: that were made of them.
        object_bytes: of the shards.
        catalog_bytes: of the catalog; 0 if there are no samples.
        reads: requests for their files.
        timed: number of inputs that the times are of: without the first, which start the decoder.
        seconds_per_weight: of the timed inputs.
        finish: what publishing and the page took.
        finish_requests: that publishing and the page took.
        peak_bytes: of this process and its decoder.
        largest_task_bytes: of the objects of one task.
        most_boxes: of volumes in one task.
        largest_values: of one input.
    """

    items: int
    files: int
    weight: int
    size: int
    refused: tuple[Quarantined, ...]
    samples: int
    object_bytes: int
    catalog_bytes: int
    reads: int
    timed: int
    seconds_per_weight: Usage
    finish: Usage
    finish_requests: int
    peak_bytes: int
    largest_task_bytes: int
    most_boxes: int
    largest_values: int


def run_sample(items: Sequence[Item], context: TaskContext, patient_key_id: str) -> SampleRun:
    """Run some of the inputs and publish them, in a temporary folder that is removed afterwards.

    Args:
        items: of the plan; as many are run as the time allows.
        context: of the preparation; nothing is written at its output.
        patient_key_id: of the key that patients are hashed with.

    Returns:
        What was measured.
    """
    with tempfile.TemporaryDirectory(prefix="crossdim-plan-") as folder:
        reads = Counter[str]()
        sources = tuple(CountingBucket.wrap(source, reads) for source in context.sources)
        inside = replace(context, sources=sources, out=Bucket(folder))
        batches = _run_batches(items, inside)
        return _summarise(batches, inside, patient_key_id, reads.total())


def _run_batches(items: Sequence[Item], context: TaskContext) -> list[Batch]:
    """Run batches until the time is used up: first one input of each kind, then as many as should fit."""
    order, kinds = order_for_sampling(items)
    end = time.monotonic() + BUDGET_S
    runner = _Runner(context)
    batches = [runner.run(order[:kinds])]
    rest = order[kinds:]
    while rest:
        left_weight = MOST_VALUES - sum(batch.weight for batch in batches)
        chosen = _choose(rest, context.recipe, batches[-1], end - time.monotonic(), left_weight)
        if not chosen:
            break
        batches.append(runner.run(rest[:chosen]))
        rest = rest[chosen:]
    return batches


def _choose(rest: Sequence[Item], recipe: Recipe, last: Batch, left_s: float, left_weight: int) -> int:
    """How many of the next inputs should fit into a share of the time; 0 if not even the first fits into all of it."""
    per_weight = last.used.wall_s / last.weight
    weight, number = 0, 0
    for item in rest:
        weight += weigh(item, recipe)
        if weight * per_weight > left_s * (SHARE if number else 1) or weight > left_weight:
            break
        number += 1
    return number


@dataclass(kw_only=False, slots=True)
class _Runner:
    """Runs batches as tasks, with numbers and shards that follow one another."""

    context: TaskContext
    tasks: list[Task] = field(default_factory=list)

    def run(self, items: Sequence[Item]) -> Batch:
        """Run the tasks of some inputs, and measure what they take."""
        before = measure_usage()
        tasks = list(self._pack(items))
        for task in tasks:
            run_task(canonical_json(to_document(task)).decode(), self.context)
        used = measure_usage() - before
        self.tasks += tasks
        paths = [marker_path(self.context.plan_digest, task.number) for task in tasks]
        return Batch(
            tasks=tuple(tasks),
            markers=tuple(parse_marker(self.context.out.read(path)) for path in paths),
            weight=sum(weigh(item, self.context.recipe) for item in items),
            used=used,
        )

    def _pack(self, items: Sequence[Item]) -> Iterable[Task]:
        recipe, number = self.context.recipe, len(self.tasks)
        shard = self.tasks[-1].first_shard + self.tasks[-1].num_shards if self.tasks else 0
        if isinstance(recipe, VolumeRecipe):
            for task in pack_volumes(sorted(items, key=lambda item: item.uri), recipe):
                yield replace(task, number=number + task.number, first_shard=shard + task.first_shard)
            return
        for place, pack in enumerate(_pack_images(items, recipe.shard.target_bytes, recipe.shard.max_samples)):
            yield Task(number=number + place, items=tuple(pack), first_shard=number + place)


def _pack_images(items: Sequence[Item], target_bytes: int, max_samples: int) -> list[list[Item]]:
    """Images in shards of at most the recipe's size, by pixels: a shard of resized images is smaller here than in the plan."""
    packs: list[list[Item]] = []
    filled = 0
    for item in items:
        if not packs or filled + item.num_values > target_bytes or len(packs[-1]) >= max_samples:
            packs.append([])
            filled = 0
        packs[-1].append(item)
        filled += item.num_values
    return packs


def _summarise(batches: Sequence[Batch], context: TaskContext, patient_key_id: str, reads: int) -> SampleRun:
    markers = [marker for batch in batches for marker in batch.markers]
    items = [item for batch in batches for item in batch.items]
    timed = batches[1:] or batches
    weight = sum(batch.weight for batch in timed)
    task_bytes = [sum(entry.size for entry in marker.objects) for marker in markers]
    tasks = [task for batch in batches for task in batch.tasks]
    published = _publish(markers, tasks, context, patient_key_id)
    return SampleRun(
        items=len(items),
        files=sum(len(item.files) for item in items),
        weight=sum(batch.weight for batch in batches),
        size=sum(measure_size(item, context.recipe) for item in items),
        refused=published.quarantine,
        samples=published.samples,
        object_bytes=sum(task_bytes),
        catalog_bytes=published.catalog_bytes,
        reads=reads,
        timed=sum(len(batch.items) for batch in timed),
        seconds_per_weight=Usage(
            wall_s=sum(batch.used.wall_s for batch in timed) / weight, cpu_s=sum(batch.used.cpu_s for batch in timed) / weight
        ),
        finish=published.used,
        finish_requests=published.requests,
        peak_bytes=measure_peak_bytes(),
        largest_task_bytes=max(task_bytes),
        most_boxes=max(sum(item.boxes for item in task.items) for task in tasks),
        largest_values=max(item.num_values for item in items),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Published:
    """The sample as it was published."""

    samples: int
    quarantine: tuple[Quarantined, ...]
    catalog_bytes: int
    used: Usage
    requests: int


def _publish(markers: Sequence[Marker], tasks: Sequence[Task], context: TaskContext, patient_key_id: str) -> _Published:
    """Publish the sample, with its page; nothing if it has no samples."""
    if not any(marker.catalog for marker in markers):
        refused = tuple(one for marker in markers for one in marker.quarantine)
        return _Published(samples=0, quarantine=refused, catalog_bytes=0, used=Usage(wall_s=0.0, cpu_s=0.0), requests=0)
    before, requests = measure_usage(), Counter[str]()
    out, recipe = CountingBucket.wrap(context.out, requests), context.recipe
    num_shards = tasks[-1].first_shard + tasks[-1].num_shards
    bank = Bank(path=context.bank_path, layout=recipe.layout, num_shards=num_shards) if isinstance(recipe, VolumeRecipe) else None
    header = ManifestHeader(
        name=context.name,
        presentation=recipe.presentation,
        preprocessing=recipe.preprocessing(),
        plan_digest=context.plan_digest,
        num_files=sum(len(item.files) for task in tasks for item in task.items),
        patient_key_id=patient_key_id,
    )
    manifest, quarantine = publish(out, header, markers, (), (), bank)
    tables = read_tables(out)
    sources = tuple(CountingBucket.wrap(source, requests) for source in context.sources)
    inputs = SourceInputs(
        sources=sources, rules=recipe.read, items=tuple(item for task in tasks for item in task.items), unplanned={}
    )
    write_previews(out, look_at_sources(tables, inputs))
    out.put(PAGE, build_page(out, tables))
    return _Published(
        samples=manifest.num_samples,
        quarantine=tuple(quarantine),
        catalog_bytes=sum(entry.size for entry in manifest.with_role("catalog")),
        used=measure_usage() - before,
        requests=requests.total(),
    )
