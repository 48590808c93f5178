"""``prepare --plan``: what it says is held against the preparation that it speaks of, and it writes nothing."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.plan_table import Figure, format_figures
from crossdim.pipelines.estimate import sample
from crossdim.pipelines.estimate.arithmetic import schedule
from crossdim.pipelines.estimate.choice import order_for_sampling
from crossdim.pipelines.jobs.items import Item
from crossdim.storage_schema.vocabulary import Modality
from tests.pipelines.corpora import write_images, write_volumes

IMAGES = ("--recipe", "xray-pseudo3d:tiny", "--label", "folder", "--set", "shard.max_samples=5")
VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", "--set", "patches_per_shard=8")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "raw", 23)
    (tmp_path / "raw" / "well" / "empty.png").touch()
    return tmp_path / "raw"


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    write_volumes(tmp_path / "raw")
    return tmp_path / "raw"


def _prepare(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["prepare", *words, "--local", "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def _value(plan: dict[str, Any], key: str) -> Any:
    found = plan["figures"][key]["value"]
    return next(iter(found.values())) if isinstance(found, dict) else found


def _tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files and folders below, with contents and the times of their last change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ctime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(("kind", "options"), [("images", IMAGES), ("volumes", VOLUMES)])
def test_nothing_is_written_anywhere(
    kind: str,
    options: tuple[str, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in the output, not in the sources (where a secret key would be made), and nothing is left of the sample."""
    source: Path = request.getfixturevalue(kind)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = _tree(tmp_path)
    plan = _prepare(capsys, str(source), *options, "--out", str(tmp_path / "out"), "--plan")
    assert plan["sample"]["inputs"] == plan["inputs"]["kept"] > 0
    after = _tree(tmp_path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"temporary"}


def test_a_plan_of_images_is_what_is_then_published(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(images), *IMAGES, "--out", str(tmp_path / "out"))
    plan, actual = _prepare(capsys, *words, "--plan"), _prepare(capsys, *words, code=3)
    assert plan["files"] == {"total": 27, "kept": 25, "refused": 1, "ignored": 1}
    assert plan["files"]["total"] == actual["files"]["total"]
    assert plan["files"]["ignored"] == actual["files"]["ignored"]
    assert plan["refused_by_rule"]["empty"]["first"] == "well/empty.png"
    assert plan["ignored_by_rule"]["not_an_image"]["files"] == actual["ignored"]["not_an_image"] == 1
    both = plan["refused_by_rule"] | plan["sample"]["refused_by_rule"]
    assert {rule: one["inputs"] for rule, one in both.items()} == actual["quarantined_by_rule"]
    assert "the PNG ends after" in both["truncated"]["reason"]
    assert (_value(plan, "samples"), _value(plan, "objects")) == (actual["samples"], actual["objects"])
    assert _value(plan, "bytes") == pytest.approx(actual["bytes"], rel=0.02)
    assert plan["tasks"] == 5


def test_a_plan_of_volumes_is_what_is_then_published(volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(volumes), *VOLUMES, "--source-names", "relative", "--out", str(tmp_path / "out"))
    plan, actual = _prepare(capsys, *words, "--plan"), _prepare(capsys, *words, code=3)
    assert (plan["files"]["kept"], plan["files"]["total"]) == (28, actual["files"]["total"])
    assert plan["sample"]["refused_by_rule"].keys() == actual["quarantined_by_rule"].keys() == {"gzip"}
    assert _value(plan, "samples") == actual["samples"]
    assert _value(plan, "bytes") == pytest.approx(actual["bytes"], rel=0.05)
    (bank,) = (tmp_path / "out" / "superpatches").rglob("zarr.json")
    absent = json.loads(bank.read_text())["shape"][0] // 8 - sum(path.is_file() for path in (bank.parent / "c").rglob("*"))
    assert _value(plan, "objects") == actual["objects"] + absent  # shards in which no sample is are not written


def test_a_part_stands_for_all(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one input nothing else is known; what the plan says stays exact, and how each figure was got says so."""
    monkeypatch.setattr(sample, "BUDGET_S", 0.0)
    words = (str(images), *IMAGES, "--out", str(tmp_path / "out"))
    plan, actual = _prepare(capsys, *words, "--plan"), _prepare(capsys, *words, code=3)
    assert plan["sample"]["inputs"] == 1
    assert plan["figures"]["bytes"]["how"] == "measured on 1 of 25 inputs"
    assert _value(plan, "objects") == actual["objects"]
    assert plan["files"]["total"] == actual["files"]["total"]


@pytest.mark.integration
def test_in_a_store_nothing_is_written_and_requests_are_counted(
    images: Path, s3_bucket: Bucket, s3_client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server's own log is the count."""
    name = s3_bucket.url.removeprefix("s3://")
    for path in images.rglob("*.*"):
        s3_client.put_object(Bucket=name, Key=f"raw/{path.relative_to(images)}", Body=path.read_bytes())
    keys = tmp_path / "keys.ini"
    keys.write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    store = ("--endpoint-url", str(s3_bucket.options.endpoint_url), "--region", "us-east-1", "--credentials-file", str(keys))
    words = (f"s3://{name}/raw", *IMAGES, "--out", f"s3://{name}/out", *store)
    with _log_requests() as planned:
        plan = _prepare(capsys, *words, "--plan")
    assert {line.split()[0] for line in planned} <= {"GET", "HEAD"}
    assert all(one["Key"].startswith("raw/") for one in s3_client.list_objects_v2(Bucket=name)["Contents"])
    with _log_requests() as done:
        actual = _prepare(capsys, *words, code=3)
    assert _value(plan, "objects") == actual["objects"]
    assert _value(plan, "requests") == pytest.approx(len(done), rel=0.02)


@contextmanager
def _log_requests() -> Iterator[list[str]]:
    """The requests that the server of the tests answers meanwhile, such as ``GET /lab/raw``."""
    found: list[str] = []
    logger = logging.getLogger("werkzeug")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.extend(re.findall(r"[A-Z]+ /\S*", record.getMessage()))

    handler, level = Keep(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def test_the_table_for_people_with_prices(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", str(images), *IMAGES, "--out", str(tmp_path / "out"), "--plan", "--concurrency", "6"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "nothing was written" in text
    assert "files: 27 = 25 kept, 1 refused, 1 ignored" in text
    assert "refused, empty 1: well/empty.png: " in text
    assert "1 core" in text
    assert "6 cores" in text
    assert "measured on 25 of 25 inputs" in text
    assert "price" not in text
    assert main([*words, "--price-request", "100", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert _value(plan, "price_request") == pytest.approx(_value(plan, "requests") / 10)
    assert "price_cpu_hour" not in plan["figures"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--price-cpu-hour", "1"], 1, "--price-cpu-hour needs --plan"),
        (["--plan", "--price-request", "-1"], 1, "is no price: a number from 0 up"),
        (["--plan", "--price-gpu-hour", "1"], 1, "unrecognized arguments"),
        (["--plan", "--recipe", "mixed-superpatches:tiny"], 2, "nothing to prepare among 27 files"),
    ],
)
def test_wrong_use_is_one_sentence(
    options: list[str], code: int, message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["prepare", str(images), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out"), *options])
    except SystemExit as end:
        found = int(end.code or 0)
    assert found == code
    assert message in capsys.readouterr().err


def test_what_is_published_needs_no_plan(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", str(images), *IMAGES, "--out", str(tmp_path / "out"), "--local"]
    assert main(words) == 3
    assert main([*words, "--plan"]) == 1
    assert "is published already, so there is nothing to plan" in capsys.readouterr().err


def _item(decoder: str, values: int) -> Item:
    return Item(uri=f"{decoder}{values}", files=(), decoder=decoder, modality=Modality.CT, num_values=values)


def test_the_first_inputs_of_the_order_are_of_every_kind_and_size() -> None:
    items = [_item("png", value) for value in range(64)] + [_item("jpeg", value) for value in range(32)]
    order, kinds = order_for_sampling(items)
    assert kinds == 2
    assert sorted(one.uri for one in order) == sorted(one.uri for one in items)
    assert {one.decoder for one in order[:2]} == {"png", "jpeg"}
    assert [sum(one.decoder == kind for one in order[:12]) for kind in ("png", "jpeg")] == [8, 4]
    assert sorted(one.num_values for one in order[:12] if one.decoder == "png") == list(range(0, 64, 8))


def test_tasks_are_begun_by_the_first_free_core() -> None:
    """By hand: one core 3 + 1 + 1 + 2; two: the second does 1 + 1 + 2 beside the 3."""
    assert schedule([3, 1, 1, 2], 1) == 7
    assert schedule([3, 1, 1, 2], 2) == 4
    assert schedule([3, 1, 1, 2], 8) == 3


def test_a_value_for_all_columns_stands_in_the_first() -> None:
    figures = [
        Figure(key="a", name="one for all", values=(1.0,), show="{:g}".format, how="counted"),
        Figure(key="b", name="each", values=(1.0, 22.0), show="{:g}".format, how="measured"),
    ]
    assert format_figures(["1 core", "2 cores"], figures) == [
        "             1 core  2 cores  how",
        "one for all       1           counted",
        "each              1       22  measured",
    ]
