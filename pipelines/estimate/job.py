"""Lists, scans and plans as ``prepare`` does, and measures a sample; nothing is written at the output or in a source."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from crossdim.foundation.cluster import has_session
from crossdim.foundation.manifest_file import find_manifest
from crossdim.foundation.usage import Usage, measure_usage
from crossdim.pipelines.estimate.counting import PAGE, CountingBucket
from crossdim.pipelines.estimate.sample import SampleRun, run_sample
from crossdim.pipelines.jobs.engine import OpenSession
from crossdim.pipelines.jobs.inputs import check_inputs
from crossdim.pipelines.jobs.output import check_free
from crossdim.pipelines.jobs.planning import Planned, find_labels, scan_and_plan
from crossdim.pipelines.jobs.preparation import Preparation
from crossdim.pipelines.jobs.task import TaskContext
from crossdim.pipelines.markers import list_marker_paths
from crossdim.pipelines.sources.listing import list_sources
from crossdim.pipelines.sources.overlap import check_apart, check_links_apart
from crossdim.storage_schema.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """A preparation, planned and sampled.

    Attributes:
        num_files: listed.
        done: tasks of an unfinished preparation that are written already.
        is_local: whether ``prepare`` would work in its process, without Ray.
        before: what the command took up to the sample.
        scan_s: seconds of it for scanning and planning.
        scan_requests: for listing and scanning; of a scan on Ray one for each file.
        has_trial_key: whether inputs are in the order of names that were hashed with a key which is not stored: the key that
            ``prepare`` will make packs them in another order.
    """

    preparation: Preparation
    planned: Planned
    num_files: int
    done: int
    is_local: bool
    before: Usage
    scan_s: float
    scan_requests: int
    has_trial_key: bool
    sample: SampleRun


def plan_job(preparation: Preparation, open_session: OpenSession, begun: Usage) -> PlannedJob:
    """Plan a preparation and measure a sample of it.

    Args:
        preparation: what is asked for.
        open_session: opens what the scan is done in.
        begun: seconds so far when the command began.

    Returns:
        The plan and what was measured.

    Raises:
        StorageError: as ``prepare``, of what is wrong with the sources.
        UsageError: as ``prepare``; also if a dataset is published at the output already.
    """
    out = preparation.out
    check_apart(out, preparation.sources)
    preparation.pseudonyms.check(out)
    if find_manifest(out) is not None:
        raise UsageError(
            f"{out.where('')} is published already, so there is nothing to plan: --plan is of a whole preparation, "
            "not of what --append adds; name another --out"
        )
    check_free(out)
    listed, files = list_sources(preparation.sources)
    check_links_apart(out, preparation.sources)
    labels = find_labels(preparation, listed, files)
    check_inputs(out, preparation.settings(), listed, files)
    requests = Counter[str]()
    sources = tuple(CountingBucket.wrap(source, requests) for source in listed)
    with open_session(num_files=len(files), num_bytes=sum(file.size for file in files)):
        is_local, scan_begun = not has_session(), measure_usage()
        planned = scan_and_plan(preparation, sources, files, labels, store_key=False)
    before = measure_usage()
    context = TaskContext(
        sources=listed,
        out=out,
        recipe=preparation.recipe,
        name=preparation.name,
        split=preparation.split,
        plan_digest=planned.plan.digest,
    )
    items = [item for task in planned.plan.tasks for item in task.items]
    pages = sum(math.ceil(sum(file.source == number for file in files) / PAGE) for number in range(len(listed)))
    return PlannedJob(
        preparation=preparation,
        planned=planned,
        num_files=len(files),
        done=len(list_marker_paths(out)),
        is_local=is_local,
        before=before - begun,
        scan_s=before.wall_s - scan_begun.wall_s,
        scan_requests=pages + (requests.total() if is_local else len(files)),
        has_trial_key=planned.names.key is not None and preparation.pseudonyms.find_key(listed[0]) is None,
        sample=run_sample(items, context, planned.names.key_id),
    )
