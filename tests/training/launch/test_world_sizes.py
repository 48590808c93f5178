"""A run on several workers is the run on one: in its losses too where batch norm is synchronised, or where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from crossdim.foundation.bucket import Bucket
from crossdim.training.config.execution import Execution
from crossdim.training.config.optimizers import Sgd
from crossdim.training.config.pretraining import read_config
from crossdim.training.data.dataset import open_dataset
from crossdim.training.data.loader import Loading, step_batches
from crossdim.training.engine.control import StopControl
from crossdim.training.engine.loop import Schedule, fit
from crossdim.training.engine.train_state import TrainState
from crossdim.training.launch.worker import DatasetViews, Job, Source, build_order, train
from crossdim.training.recipes import maesil
from crossdim.training.recipes.cdssl_p3d import tiny
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.metrics import read_metrics
from tests.ranks import run_on_ranks
from tests.training.records import Records

pytestmark = pytest.mark.integration

STEPS = 3

CPU = torch.device("cpu")


def _job(out: str, data: tuple[str, ...], *, sync_bn: bool) -> Job:
    config = replace(tiny(), steps=STEPS, global_batch=14, compute=Execution(sync_bn=sync_bn, channels_last=False))
    sources = tuple(Source(bucket=Bucket(url), weight=1.0) for url in data)
    return Job(config=config.document(), sources=sources, run=Bucket(out), saving=Saving(every=STEPS))


def _process(rank: int, world: int, folder: str, data: tuple[str, ...], sync_bn: bool) -> None:
    train(_job(f"{folder}/two", data, sync_bn=sync_bn), rank, world, torch.device("cpu"), StopControl())


@pytest.mark.parametrize("sync_bn", [True, False])
def test_two_workers_with_uneven_shares(sync_bn: bool, image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """Seven samples of each dataset: three on one rank, four on the other."""
    data = (image_data.url, volume_data.url)
    train(_job(str(tmp_path / "one"), data, sync_bn=sync_bn), 0, 1, torch.device("cpu"), StopControl())
    run_on_ranks(2, _process, str(tmp_path), data, sync_bn)
    one, two = (read_metrics(Bucket(str(tmp_path / run))) for run in ("one", "two"))
    for name in ("samples", "counts", "lr", "voxels"):
        assert [record[name] for record in two] == [record[name] for record in one]
    # The first step starts from equal weights; later ones carry rounding on.
    tolerance = {"abs": 1e-5} if sync_bn else {"abs": 0.3}
    assert two[0]["terms"] == pytest.approx(one[0]["terms"], **tolerance)
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-3) or not sync_bn
    if sync_bn:
        assert [record["loss"] for record in two] == pytest.approx([record["loss"] for record in one], abs=5e-3)
    else:
        assert two[0]["loss"] != pytest.approx(one[0]["loss"], abs=1e-5)


#: Global batches, images and superpatches by turns: of 5, rank 0 of 3 has none of the dataset that gives 2; of 2, none at all.
BATCHES = (5, 2)
LONG = 6


def _uneven(out: str, data: tuple[str, ...], global_batch: int) -> Job:
    """MAESIL with a small rate and without clipping, so that rounding stays as small as it is."""
    config = replace(maesil.tiny(), steps=LONG, global_batch=global_batch, optimizer=Sgd(lr=1e-3), clip_norm=None)
    sources = tuple(Source(bucket=Bucket(url), weight=1.0) for url in data)
    return Job(config=config.document(), sources=sources, run=Bucket(out), saving=Saving(every=LONG))


def _static(job: Job, *, static: bool) -> list[float]:
    """Losses of a run of one dataset, with what DDP was told of its steps."""
    config, datasets = read_config(job.config, "the test"), [open_dataset(source.bucket) for source in job.sources]
    state, records = TrainState.build(config, CPU), Records()
    order, size = build_order(config, datasets, [1.0]), config.global_batch
    loading = Loading(order=order, global_batch=size, rank=dist.get_rank(), world=dist.get_world_size())
    batches = step_batches(loading, datasets, DatasetViews(config, datasets), 0, LONG * size)
    state = state.distribute(static=static)
    assert isinstance(state.module, DistributedDataParallel)
    assert state.module.static_graph is static
    fit(state, batches, Schedule.from_config(config), [records])
    return [record.loss for record in records.found]


def _several(rank: int, world: int, folder: str, data: tuple[str, ...]) -> None:
    for batch in BATCHES:
        train(_uneven(f"{folder}/{batch}-on-{world}", data, batch), rank, world, CPU, StopControl())
    train(_uneven(f"{folder}/one-dataset-on-{world}", data[:1], 5), rank, world, CPU, StopControl())
    losses = {static: _static(_uneven("", data[:1], 5), static=static) for static in (True, False)}
    torch.save(losses, f"{folder}/static-{world}-{rank}.pt")


@pytest.fixture(scope="module")
def runs(image_data: Bucket, volume_data: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs on one, two and three workers."""
    folder, data = tmp_path_factory.mktemp("runs"), (image_data.url, volume_data.url)
    for batch in BATCHES:
        train(_uneven(str(folder / f"{batch}-on-1"), data, batch), 0, 1, CPU, StopControl())
    train(_uneven(str(folder / "one-dataset-on-1"), data[:1], 5), 0, 1, CPU, StopControl())
    for world in (2, 3):
        run_on_ranks(world, _several, str(folder), data)
    return folder


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", [*map(str, BATCHES), "one-dataset"])
def test_workers_without_a_sample_of_a_dataset_train_the_same_run(name: str, world: int, runs: Path) -> None:
    """Also those that have none at all: two samples over three workers is what launch refuses, and right all the same."""
    one, several = (read_metrics(Bucket(str(runs / f"{name}-on-{number}"))) for number in (1, world))
    assert len(one) == LONG
    for expected, found in zip(one, several, strict=True):
        assert [found[field] for field in ("samples", "counts", "voxels", "lr")] == [
            expected[field] for field in ("samples", "counts", "voxels", "lr")
        ]
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert found["terms"] == pytest.approx(expected["terms"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    assert len({record["loss"] for record in one}) == LONG


@pytest.mark.parametrize("world", [2, 3])
def test_what_ddp_knows_of_the_graph_changes_no_loss(world: int, runs: Path) -> None:
    """A run of one dataset is trained with a static graph, one of several is not."""
    logged = [record["loss"] for record in read_metrics(Bucket(str(runs / f"one-dataset-on-{world}")))]
    for rank in range(world):
        losses = torch.load(runs / f"static-{world}-{rank}.pt", weights_only=True)
        assert losses[True] == losses[False] == logged
