"""Names and links that dataset managers, archives and object stores bring, through the real command on a real local Ray."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.foundation.cluster import ray_session
from crossdim.pipelines.cli import main

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of Ray's own processes
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]

NAMES = [
    *("a b.png", "a#b.png", "a?b.png", "a%20b.png", "a:b.png", "a+b.png", "a[1].png", "a*.png", "{a}.png", "~tilde.png"),
    *("café.png", "cafe\u0301.png", "肺.png", "back\\slash.png", "new\nline.png", "UP.PNG", "trail .png", " lead.png"),
    *("x" * 240 + ".png", "a'b\".png", "a;b&c|d.png", "$(x).png", "a\x1b[2J.png", "gnp.\u202ecod.png", "\\xfc.png"),
]


@pytest.fixture(scope="module", autouse=True)
def session():
    """One Ray session for all tests of this module; the verbs join it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ray_session(num_cpus=2):
            yield


def png(number: int) -> bytes:
    """An image like no other."""
    data = io.BytesIO()
    Image.fromarray(np.roll(np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8), 7 * number)).save(data, "png")
    return data.getvalue()


def prepare(source: str, out: str, *more: str) -> int:
    return main(["prepare", source, "--recipe", "xray-pseudo3d:tiny", "--out", out, "--json", *more])


def names_in(out: Path, table: str) -> list[str]:
    return [row.get("source_uri", row.get("uri")) for row in pq.read_table(out / table).to_pylist()]


def rules_in(out: Path, table: str) -> dict[str, str]:
    return {row["uri"]: row["rule"] for row in pq.read_table(out / table).to_pylist()}


def test_every_name_of_a_file_is_read_and_written_as_it_is(tmp_path):
    """Bytes that are no UTF-8, and a name that looks like one of those written down, are escaped; nothing else is."""
    source, out = tmp_path / "src", tmp_path / "set [1] #2 %20 x"
    source.mkdir()
    for number, name in enumerate(NAMES):
        (source / name).write_bytes(png(number))
    with open(os.path.join(os.fsencode(source), b"M\xfcller.png"), "wb") as file:
        file.write(png(len(NAMES)))

    assert prepare(str(source), str(out)) == 0
    written = [name.replace("\\xfc", "\\x5cxfc") for name in NAMES] + [r"M\xfcller.png"]
    assert sorted(names_in(out, "catalog")) == sorted(written)
    assert main(["verify", str(out)]) == 0


def test_links_are_followed_and_what_they_hide_is_told(tmp_path):
    """Files of a store outside, as DataLad and DVC keep them; a link to nothing; loops."""
    source, store, out = tmp_path / "src", tmp_path / "store", tmp_path / "set"
    (source / "sub").mkdir(parents=True)
    (store / "folder").mkdir(parents=True)
    for number, place in enumerate((source / "real.png", store / "file", store / "folder" / "inner.png")):
        place.write_bytes(png(number))
    (source / "linked.png").symlink_to(store / "file")
    (source / "linked").symlink_to(store / "folder")
    (source / "again").symlink_to(store / "folder")
    (source / "dangling.png").symlink_to("nowhere")
    (source / "sub" / "up").symlink_to("..")
    os.mkfifo(source / "pipe.png")

    assert prepare(str(source), str(out)) == 3
    assert sorted(names_in(out, "catalog")) == ["again/inner.png", "linked.png", "real.png"]
    assert rules_in(out, "quarantine") == {"dangling.png": "dangling_link", "pipe.png": "special_file"}
    assert rules_in(out, "ignored") == {"linked": "repeated_link", "sub/up": "link_loop"}


@pytest.fixture
def lab(s3_client: Any) -> str:
    """A bucket on the test server."""
    name = f"lab-{uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(s3_endpoint: str) -> list[str]:
    """The options that reach it."""
    return ["--endpoint-url", s3_endpoint, "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]


def test_every_key_is_read_and_folder_markers_say_nothing(lab, store, s3_client, tmp_path):
    """From a prefix with a slash after it; a key that only begins alike is not of the source."""
    keys = [name for name in NAMES if "\n" not in name] + ["sub//double.png", "sub/./dot.png", "sub/x&y=z@.png"]
    for number, key in enumerate(keys):
        s3_client.put_object(Bucket=lab, Key=f"raw/{key}", Body=png(number))
    for key in ("raw/", "raw/sub/", "raw/none.png"):
        s3_client.put_object(Bucket=lab, Key=key, Body=b"")
    s3_client.put_object(Bucket=lab, Key="rawer/other.png", Body=png(99))

    assert prepare(f"s3://{lab}/raw/", str(tmp_path / "set"), *store) == 3
    assert sorted(names_in(tmp_path / "set", "catalog")) == sorted(key.replace("\\xfc", "\\x5cxfc") for key in keys)
    assert rules_in(tmp_path / "set", "quarantine") == {"none.png": "empty"}


def test_a_preparation_leaves_the_scratch_of_its_neighbours(lab, store, s3_client, tmp_path):
    """Of outputs that its own name would match as a pattern."""
    (tmp_path / "a.png").write_bytes(png(0))
    for key in ("out1/_work/precious", "out[1]2/_work/precious", "out/_work/precious"):
        s3_client.put_object(Bucket=lab, Key=key, Body=b"1")

    assert prepare(str(tmp_path), f"s3://{lab}/out[1]", *store) == 0
    found = [entry["Key"] for entry in s3_client.list_objects_v2(Bucket=lab)["Contents"]]
    assert Counter(key.split("/")[0] for key in found if "/_work/" in key) == {"out1": 1, "out[1]2": 1, "out": 1}
    assert "out[1]/manifest.json" in found
    assert main(["verify", f"s3://{lab}/out[1]", *store]) == 0
