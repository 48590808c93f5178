"""``pretrain --plan``: measures a few steps in this process, and says what the run will take. It starts and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.usage import Usage
from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import tell_apart
from crossdim.training.launch.devices import find_devices
from crossdim.training.launch.estimate import probe
from crossdim.training.launch.run_plan import plan_reading, plan_workers
from crossdim.training.launch.run_plan_table import build_run_document, build_run_figures, format_run_plan
from crossdim.training.launch.validate import validate_run
from crossdim.training.launch.worker import Source, build_order
from crossdim.training.launch.workers import Workers
from crossdim.training.run_dir.checkpoint import Saving


def plan_run(
    config: Pretraining,
    sources: Sequence[Source],
    run: Bucket,
    workers: Workers,
    saving: Saving,
    threads: int,
    prices: Mapping[str, float],
    begun: Usage,
) -> tuple[dict[str, Any], str]:
    """Plan a run.

    Args:
        config: of the run.
        sources: its datasets.
        run: its folder.
        workers: how it is spread.
        saving: when checkpoints are written and which stay.
        threads: of each worker that read samples and draw views.
        prices: by name.
        begun: seconds so far when the command began.

    Returns:
        The plan as JSON values, and as text.

    Raises:
        UsageError: as ``pretrain``; also if a GPU is asked for and this machine has none.
    """
    here = partial(find_devices, None, use_gpu=workers.use_gpu, joins=False)
    config = validate_run(config, sources, run, workers.most, use_gpu=workers.use_gpu, find_devices=here).config
    if workers.use_gpu and not torch.cuda.is_available():
        raise UsageError("--plan measures in this process, and this machine has no GPU; leave --gpu out, or plan on one that has")
    datasets, weights = tell_apart([source.open() for source in sources]), [source.weight for source in sources]
    device = torch.device("cuda" if workers.use_gpu else "cpu")
    found = probe(config, datasets, weights, workers.span[1], device, threads, begun)
    shares = plan_workers(config, found, count_workers(workers), saving)
    reading = plan_reading(build_order(config, datasets, weights), datasets, config.steps * config.global_batch)
    columns, figures = build_run_figures(config, found, shares, reading, saving, prices)
    document = build_run_document(config, found, shares, reading, columns, figures)
    return document, format_run_plan(columns, figures, run.where(""))


def count_workers(workers: Workers) -> list[int]:
    """List the numbers of workers of a plan: doubled from the fewest of an elastic run, or from one, up to the most."""
    least, most = workers.span
    first = 1 if least == most else least
    return sorted({min(most, first << doubled) for doubled in range(most.bit_length() + 1)})
