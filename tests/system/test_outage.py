"""A store that is away for a while: range clients wait for it, and a run goes on as if nothing had been."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import UnreachableError
from crossdim.training.data.range_reader import FsspecRangeReader, ObstoreRangeReader, RangeReader
from crossdim.training.launch.driver import pretrain
from crossdim.training.launch.worker import Source
from crossdim.training.launch.workers import Workers
from crossdim.training.recipes.cdssl_p3d import tiny
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.metrics import read_metrics
from tests.system.conftest import Store
from tests.system.relay import Relay
from tests.training.published import images, publish, superpatches

pytestmark = pytest.mark.system

HERE = Workers(least=0, most=0, use_gpu=False, address=None, quiet=True)
STEPS, CHECKPOINT_EVERY = 12, 2


@pytest.fixture
def relay(s3: Store) -> Iterator[Relay]:
    assert s3.options.endpoint_url
    with Relay(int(s3.options.endpoint_url.rsplit(":", 1)[1])) as relay:
        yield relay


def _behind(relay: Relay, bucket: Bucket, patience_s: float) -> Bucket:
    """The same objects, through the relay."""
    return replace(bucket, options=replace(bucket.options, endpoint_url=relay.url, patience_s=patience_s))


@pytest.mark.parametrize("open_client", [FsspecRangeReader, ObstoreRangeReader])
def test_ranges_wait_for_a_store_that_comes_back(
    open_client: Callable[[Bucket], RangeReader], s3: Store, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut while several threads read, until all of them have noticed and a second more."""
    bucket = s3.bucket(f"outage/{uuid4().hex}")
    bucket.put("a", bytes(range(200)))
    reader = open_client(_behind(relay, bucket, 60))
    assert reader.get("a", 0, 4) == bytes(range(4))
    relay.cut()
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(reader.get, "a", offset, 4) for offset in (10, 20, 30)]
        _until(lambda: len(caplog.records) == 3)
        with pytest.raises(TimeoutError):
            found[0].result(1)
        relay.heal()
        assert [future.result(60) for future in found] == [bytes(range(n, n + 4)) for n in (10, 20, 30)]
    assert all(message.startswith(f"{bucket.url}/a does not answer") for message in caplog.messages)


@pytest.mark.parametrize("open_client", [FsspecRangeReader, ObstoreRangeReader])
def test_ranges_say_how_long_they_tried(open_client: Callable[[Bucket], RangeReader], s3: Store, relay: Relay) -> None:
    bucket = s3.bucket(f"outage/{uuid4().hex}")
    reader = open_client(_behind(relay, bucket, 1))
    relay.cut()
    with pytest.raises(UnreachableError, match=rf"{bucket.url}/a: reading failed: .*\(tried for [1-9]\d* s\)"):
        reader.get("a", 0, 4)


@pytest.mark.parametrize("away_s", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_run_outlasts_an_outage_of_its_store(
    away_s: float, s3: Store, relay: Relay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Data and run lie in the store. The run that met the outage saw the same samples and has the same losses."""
    folder = s3.bucket(f"outage/{uuid4().hex}")
    data = (folder.at("flat"), folder.at("solid"))
    publish(data[0], images(30), "flat")
    publish(data[1], superpatches(20), "solid")
    _pretrain(data, Bucket(str(tmp_path / "undisturbed")))

    run = folder.at("run")
    with ThreadPoolExecutor(1) as pool:
        outage = pool.submit(_outage, relay, run, away_s)
        _pretrain(tuple(_behind(relay, bucket, 120) for bucket in data), _behind(relay, run, 120))
        noted = outage.result()

    assert 0 < noted < STEPS
    assert any("does not answer, asking again for up to" in message for message in caplog.messages)
    expected, found = read_metrics(Bucket(str(tmp_path / "undisturbed"))), read_metrics(run)
    assert [record["step"] for record in found] == list(range(STEPS))
    for column in ("samples", "loss"):
        assert [record[column] for record in found] == [record[column] for record in expected]
    assert found[-1]["time_s"] - found[0]["time_s"] > away_s


def _pretrain(data: tuple[Bucket, ...], run: Bucket) -> None:
    config = replace(tiny(), steps=STEPS, global_batch=8)
    sources = [Source(bucket=bucket, weight=1.0) for bucket in data]
    assert pretrain(config, sources, run, HERE, Saving(every=CHECKPOINT_EVERY), threads=2) == 0


def _outage(relay: Relay, run: Bucket, away_s: float) -> int:
    """Once a step is noted in the store, take the store away for ``away_s`` seconds; how many steps were noted then."""
    _until(lambda: read_metrics(run))
    relay.cut()
    noted = len(read_metrics(run))
    threading.Event().wait(away_s)
    relay.heal()
    return noted


def _until(condition: Callable[[], object]) -> None:
    patience = threading.Event()
    for _ in range(3000):
        if condition():
            return
        patience.wait(0.02)
    pytest.fail("what was waited for did not happen within a minute")
