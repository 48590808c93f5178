"""Where credentials come from, in which order, and that no secret is shown."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import crossdim.pipelines.cli
from crossdim.foundation import entry_point
from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.foundation.storage_arguments import (
    add_store_options,
    build_bucket,
    open_bucket,
    open_weighted_bucket,
    parse_store_options,
)
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.training.data.range_reader import FsspecRangeReader, ObstoreRangeReader, open_range_reader

FILE = """
[default]
aws_access_key_id = AKIA
aws_secret_access_key = hunter2
[other]
aws_access_key_id=B
aws_secret_access_key=C=
"""


def parsed(*arguments: str) -> argparse.Namespace:
    parser = entry_point.Parser(prog="crossdim")
    add_store_options(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def credentials(tmp_path, monkeypatch) -> Path:
    """A file as AWS's tools write it, and no profile chosen."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    path = tmp_path / "lab credentials"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def test_keys_of_a_file_travel_with_the_bucket(credentials, caplog):
    """A worker on another machine has no such file."""
    found = build_bucket("s3://lab", parsed("--credentials-file", str(credentials))).options

    assert (found.access_key, found.secret_key, found.session_token) == ("AKIA", "hunter2", None)
    assert found.filesystem_arguments("s3")["secret"] == "hunter2"
    assert "hunter2" not in repr(found)
    assert caplog.records == []


def test_the_profile_in_the_environment_chooses_the_section(credentials, monkeypatch):
    """As it does for AWS's own tools; and temporary credentials have a token."""
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert parse_store_options(parsed("--credentials-file", str(credentials))).secret_key == "C="
    credentials.write_text("[only]\naws_access_key_id=a\naws_secret_access_key=b\naws_session_token=t%2F%\n")
    monkeypatch.delenv("AWS_PROFILE")
    assert parse_store_options(parsed("--credentials-file", str(credentials))).session_token == "t%2F%"


def test_a_home_folder_is_understood(credentials, monkeypatch):
    """``--credentials-file=~/x`` is not expanded by a shell."""
    monkeypatch.setenv("HOME", str(credentials.parent))
    assert parse_store_options(parsed("--credentials-file=~/lab credentials")).access_key == "AKIA"


def test_a_file_that_others_may_read_is_told(credentials, caplog):
    """It is used, with a line that says how to mend it."""
    credentials.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        parse_store_options(parsed("--credentials-file", str(credentials)))
    assert "chmod 600" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hunter2", "form of ~/.aws/credentials"),
        (b"[default]\nhunter2", "form of ~/.aws/credentials"),
        (b"\xff\xfehunter2", "form of ~/.aws/credentials"),
        (b"[default]\naws_access_key_id=hunter2\n", "needs aws_access_key_id and aws_secret_access_key"),
        (b"[default]\naws_access_key_id=hunter2\naws_secret_access_key=\n", "needs aws_access_key_id and aws_secret_access_key"),
        (b"[a]\nx=hunter2\n[b]\n", r"no section \[default\]"),
        (b"", r"no section \[default\]"),
        (b"#" * (1 << 21), "form of ~/.aws/credentials"),
    ],
)
def test_a_file_without_credentials_is_refused_and_not_quoted(credentials, content, said):
    """What stands in it may be a secret."""
    credentials.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        parse_store_options(parsed("--credentials-file", str(credentials)))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", ["pipe", "/dev/zero", ""])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name, link):
    """Nobody writes into the pipe, and the device has no end."""
    place = tmp_path / name  # an absolute name stays what it is
    if name == "pipe":
        os.mkfifo(place)
    if link:
        (tmp_path / "link").symlink_to(place)
        place = tmp_path / "link"
    with pytest.raises(StorageError, match=rf"^--credentials-file {place} cannot be read: .*; name a regular file"):
        parse_store_options(parsed("--credentials-file", str(place)))


def test_a_link_to_a_file_of_credentials_is_followed(tmp_path, credentials):
    """As dotfile managers and mounted secrets make them."""
    (tmp_path / "link").symlink_to(credentials)
    assert parse_store_options(parsed("--credentials-file", str(tmp_path / "link"))).access_key == "AKIA"


def test_a_file_that_is_not_there_is_said():
    """With its name."""
    with pytest.raises(StorageError, match=r"/nowhere/keys cannot be read: No such file"):
        parse_store_options(parsed("--credentials-file", "/nowhere/keys"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--access-key", "k"], "--access-key needs --secret-key"),
        (["--secret-key", "s"], "--secret-key needs --access-key"),
        (["--access-key", "k", "--secret-key", "s", "--credentials-file", "x"], "choose one"),
        (["--access-key", "k", "--secret-key", "s", "--anonymous"], "--anonymous sends no credentials"),
        (["--credentials-file", "x", "--anonymous"], "--anonymous sends no credentials"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, said):
    """Which of two was used would otherwise be anybody's guess."""
    with pytest.raises(UsageError, match=said):
        parse_store_options(parsed(*arguments))


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "store.example.org", "//h:9000", "ftp://h", "file:///data"])
def test_an_endpoint_without_a_scheme_is_refused_with_the_form(url):
    with pytest.raises(UsageError, match=r"begins with http:// or https://, such as https:"):
        parse_store_options(parsed("--endpoint-url", url))


def test_help_says_the_order_and_warns_of_the_command_line(capsys):
    """Whatever the verb."""
    for verb in ("prepare", "verify"):
        with pytest.raises(SystemExit):
            crossdim.pipelines.cli.main([verb, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        order = [shown.index(word) for word in ("--access-key with", "--credentials-file, the env", "the profile", "the role")]
        assert order == sorted(order)
        assert "other users of this machine can see it" in shown


def test_no_document_shows_a_secret_on_a_command_line():
    """People copy command lines."""
    root = Path(__file__).parents[2]
    documents = [path for path in root.rglob("*.md") if "tests" not in path.parts and ".venv" not in path.parts]
    assert documents
    assert [str(path) for path in documents if "--secret-key " in path.read_text()] == []


@pytest.fixture
def lab(s3_endpoint: str, s3_client: Any) -> str:
    """A bucket on the test server."""
    name = f"lab-{uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=name)
    return name


def test_a_dataset_whose_name_ends_like_a_weight_is_found_in_a_store(lab, s3_endpoint, s3_client):
    """What exists decides, on S3 as among files."""
    for key in ("set/manifest.json", "other:2/manifest.json", "both:2/manifest.json", "both/manifest.json"):
        s3_client.put_object(Bucket=lab, Key=key, Body=b"")
    options = parsed("--endpoint-url", s3_endpoint, "--access-key", "k", "--secret-key", "s", "--region", "us-east-1")

    def read(text: str) -> tuple[str, float]:
        found, weight = open_weighted_bucket(f"s3://{lab}{text}", options)
        return found.url.removeprefix(f"s3://{lab}"), weight

    assert [read(text) for text in ("/set:2", "/other:2", "/set", ":0.5")] == [
        ("/set", 2.0), ("/other:2", 1.0), ("/set", 1.0), ("", 0.5)
    ]  # fmt: skip
    with pytest.raises(UsageError, match="can be read in two ways"):
        read("/both:2")
    assert (read("/both:2:1"), read("/both/:2"), read("/both:2/")) == (("/both:2", 1.0), ("/both", 2.0), ("/both:2", 1.0))


def test_a_profile_serves_every_client(lab, s3_endpoint, s3_client, tmp_path, monkeypatch):
    """Obstore by itself knows the environment only."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[mine]\naws_access_key_id=k\naws_secret_access_key=s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / ".aws" / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_client.put_object(Bucket=lab, Key="set/a", Body=b"0123456789")
    found = open_bucket(f"s3://{lab}/set", parsed("--endpoint-url", s3_endpoint))
    reader = open_range_reader(found)

    assert isinstance(reader, ObstoreRangeReader)
    assert reader.get("a", 2, 3) == b"234" == found.read_range("a", 2, 3)


@pytest.mark.parametrize("folder", ["set//one", "a/./b", "a\tb"])
def test_a_prefix_that_obstore_refuses_is_read_by_the_other_client(folder, lab, s3_endpoint, s3_client):
    """S3 allows empty names, dots and tabs in keys."""
    s3_client.put_object(Bucket=lab, Key=f"{folder}/a", Body=b"0123456789")
    options = StoreOptions(endpoint_url=s3_endpoint, access_key="k", secret_key="s", region="us-east-1")
    reader = open_range_reader(Bucket(f"s3://{lab}/{folder}", options))

    assert isinstance(reader, FsspecRangeReader)
    assert reader.get("a", 2, 3) == b"234"
