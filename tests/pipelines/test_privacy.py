"""What identifies a patient is in no published byte: names, ids, dates, UIDs, paths, and texts in the wrong place."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import stat
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crossdim import show_cli as show
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs import prepare
from crossdim.pipelines.scratch import DRIVERS
from crossdim.storage_schema.pseudonym import PseudonymKey
from tests.pipelines.identified import OTHER_PATIENT_ID, PATIENT_ID, PLANTED_TAGS, found_in, needles, write_identified

RECIPES = {
    "images": ("--recipe", "xray-pseudo3d:tiny"),
    "volumes": ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16"),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "PLANTFOLDER_source"
    write_identified(folder)
    return folder


@pytest.fixture(scope="module")
def published(raw, tmp_path_factory) -> dict[str, Path]:
    """Both datasets."""
    folder = tmp_path_factory.mktemp("published")
    for name, recipe in RECIPES.items():
        assert main(["prepare", str(raw), *recipe, "--out", str(folder / name), "--json"]) == 3
    return {name: folder / name for name in RECIPES}


def rows(dataset: Path, table: str) -> list[dict]:
    return pq.read_table(dataset / table).to_pylist()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.integration
def test_no_planted_text_is_in_a_published_byte(published, name):
    """Scratch, which records where files lie, is gone by then."""
    assert not (published[name] / "_work").exists()
    assert rows(published[name], "catalog")
    assert len(rows(published[name], "quarantine")) > 5
    assert found_in(published[name], needles()) == []


@pytest.mark.integration
def test_the_search_finds_what_is_there(raw):
    """A guard for the guard."""
    found = found_in(raw, needles())

    assert {text for text in needles() if any(one.startswith(f"{text} in") for one in found)} == set(needles())


@pytest.mark.parametrize("name", RECIPES)
def test_a_seven_digit_id_is_found_with_the_key_and_not_without(published, raw, name):
    """Every id near the planted one, hashed in the ways that need no key; all ten million are tried by the slow test below."""
    text = json.dumps([rows(published[name], table) for table in ("catalog", "quarantine")])
    told = set(re.findall(r"[0-9a-f]{16}", (published[name] / "manifest.json").read_text() + text))
    told |= {row["patient"] for row in rows(published[name], "catalog")}
    key = PseudonymKey((raw / ".crossdim-salt").read_bytes())

    assert {key.patient(PATIENT_ID), key.patient(OTHER_PATIENT_ID)} <= told
    for number in range(int(PATIENT_ID) - 50_000, int(PATIENT_ID) + 50_000):
        for message in (b"patient:%07d" % number, b"%07d" % number):
            digest = hashlib.sha256(message).hexdigest()
            assert digest[:16] not in told, number


@pytest.mark.slow
def test_none_of_ten_million_ids_is_found_without_the_key(published):
    told = {row["patient"] for name in RECIPES for row in rows(published[name], "catalog")}
    for number in range(10**7):
        assert hashlib.sha256(b"patient:%07d" % number).hexdigest()[:16] not in told, number


def test_the_table_of_names_leads_back_and_is_its_owners_alone(published, raw):
    """It lies beside the raw data and not in the dataset; neither it nor the key counts as an input."""
    places = sorted(raw.glob(".crossdim-names-*.csv"))
    tables = [list(csv.DictReader(place.read_text().splitlines())) for place in places]
    known = {row[column] for table in tables for row in table for column in ("name", "series")}
    inputs = [path for path in raw.rglob("*") if not path.is_dir() and not path.name.startswith(".crossdim-")]

    manifests = [json.loads((dataset / "manifest.json").read_bytes()) for dataset in published.values()]
    assert {place.name for place in places} == {f".crossdim-names-{one['plan_digest'][:16]}.csv" for one in manifests}
    assert all({raw / row["path"] for row in table} == set(inputs) for table in tables)
    assert {stat.S_IMODE(place.stat().st_mode) for place in (*places, raw / ".crossdim-salt")} == {0o600}
    for dataset in published.values():
        assert {row["source_uri"] for row in rows(dataset, "catalog")} <= known
        assert {row["uri"] for table in ("quarantine", "ignored") for row in rows(dataset, table)} <= known
        assert json.loads((dataset / "manifest.json").read_bytes())["num_files"] == len(inputs)


def test_the_owner_sees_refused_files_by_their_paths(published, raw, tmp_path, capsys):
    """With the table of names of the same preparation, and only then."""
    digest = json.loads((published["volumes"] / "manifest.json").read_bytes())["plan_digest"][:16]
    table = raw / f".crossdim-names-{digest}.csv"
    quarantined = {row["uri"] for row in rows(published["volumes"], "quarantine")}
    line = ["show", str(published["volumes"] / "quarantine")]
    capsys.readouterr()
    assert show.main(line) == 0
    assert "PLANT" not in capsys.readouterr().out
    assert show.main([*line, "--name-map", str(table), "--html", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "not to be published" in page
    assert not any(name in page or name in told for name in quarantined)
    paths = {row["path"] for row in csv.DictReader(table.read_text().splitlines()) if row["name"] in quarantined}
    assert paths
    assert all(path in page for path in paths)
    (tmp_path / "other.csv").write_text("path,name\na.dcm,0123456789abcdef\n")
    assert show.main([*line, "--name-map", str(tmp_path / "other.csv")]) == 1
    assert "none of its 1 name is in this dataset" in capsys.readouterr().err
    assert show.main([*line, "--name-map", str(raw / ".crossdim-salt")]) == 1
    assert "is no table of names" in capsys.readouterr().err


def test_a_preparation_without_a_sample_records_no_path(raw, tmp_path, capsys):
    """The terminal of the owner shows paths; ``crossdim status`` shows the record of the failure to whoever reads the dataset."""
    line = ["prepare", str(raw), *RECIPES["volumes"], "--set", "superpatch.min_foreground=1", "--out", str(tmp_path / "out")]
    assert main([*line, "--local"]) == 2
    assert "PLANT" in capsys.readouterr().err
    [record] = (tmp_path / "out" / DRIVERS).glob("*.json")
    assert b"no input became a sample" in record.read_bytes()
    assert b"PLANT" not in record.read_bytes()


def test_two_patients_of_one_series_uid_are_two_volumes_with_their_annotation(published, raw):
    """An anonymiser that gives everybody the same UIDs does not make one volume of two people."""
    key = PseudonymKey((raw / ".crossdim-salt").read_bytes())
    found = {row["patient"]: row for row in rows(published["volumes"], "catalog") if row["modality"] == "CT"}
    sources = {row["source_uri"] for row in rows(published["volumes"], "catalog") if row["patient"] in found}

    assert {key.patient(PATIENT_ID), key.patient(OTHER_PATIENT_ID)} <= found.keys()
    assert len(sources) >= 2
    assert found[key.patient(OTHER_PATIENT_ID)]["burned_in_annotation"] is True
    assert all(uri.startswith("hashed:") for uri in sources)


@pytest.mark.integration
def test_the_same_key_gives_the_same_bytes_and_another_key_is_refused(published, raw, tmp_path, capsys):
    line = ["prepare", str(raw), *RECIPES["images"], "--json"]
    (tmp_path / "salt").write_bytes((raw / ".crossdim-salt").read_bytes())
    (tmp_path / "other").write_bytes(b"another secret key")
    named = ["--name-map", str(tmp_path / "names.csv")]

    assert main([*line, *named, "--salt-file", str(tmp_path / "salt"), "--out", str(tmp_path / "again")]) == 3
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (published["images"] / "manifest.json").read_bytes()
    capsys.readouterr()
    assert main([*line, *named, "--salt-file", str(tmp_path / "other"), "--out", str(tmp_path / "again")]) == 2
    assert "secret key" in capsys.readouterr().err
    assert main([*line, *named, "--salt-file", str(tmp_path / "other"), "--out", str(tmp_path / "new")]) == 3
    first, second = (
        {row["patient"] for row in rows(tmp_path / out, "catalog") if row["burned_in_annotation"]} for out in ("again", "new")
    )
    assert first
    assert not first & second


@pytest.mark.integration
def test_an_interrupted_preparation_goes_on_with_its_own_key_alone(raw, tmp_path, monkeypatch, capsys):
    """Rows under two keys would hold two hashes of one patient. What is left meanwhile is its owner's alone."""
    (tmp_path / "salt").write_bytes(b"the first secret key")
    (tmp_path / "other").write_bytes(b"another secret key")
    line = ["prepare", str(raw), *RECIPES["images"], "--out", str(tmp_path / "out"), "--name-map", str(tmp_path / "m"), "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "run_each", lambda documents, work, **_: map(work, documents[:2]))
        assert main([*line, "--salt-file", str(tmp_path / "salt")]) == 2
    left = [path for path in (tmp_path / "out" / "_work").rglob("*") if path.is_file()]
    capsys.readouterr()

    assert len(left) == 5  # of inputs, plan, process and two tasks
    assert {stat.S_IMODE(path.stat().st_mode) for path in left} == {0o600}
    assert main([*line, "--salt-file", str(tmp_path / "other")]) == 2
    assert "secret key" in capsys.readouterr().err
    assert main([*line, "--salt-file", str(tmp_path / "salt")]) == 3


def test_names_stay_paths_where_that_is_asked_for_but_uids_do_not(raw, tmp_path):
    shutil.copytree(raw / f"PLANTFOLDER_{PATIENT_ID}", tmp_path / "raw" / "sub")
    line = ["prepare", str(tmp_path / "raw"), *RECIPES["volumes"], "--source-names", "relative", "--json"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    uris = {row["source_uri"] for row in rows(tmp_path / "out", "catalog")}

    assert all(re.fullmatch(r"sub#[0-9a-f]{16}", uri) for uri in uris)
    assert found_in(tmp_path / "out", [PLANTED_TAGS["SeriesInstanceUID"], PLANTED_TAGS["StudyInstanceUID"], PATIENT_ID]) == []


def test_inputs_with_burned_in_text_can_be_refused(raw, tmp_path, capsys):
    line = ["prepare", str(raw), *RECIPES["volumes"], "--out", str(tmp_path / "out"), "--burned-in", "refuse", "--json"]
    assert main(line) == 3
    refused = [row for row in rows(tmp_path / "out", "quarantine") if row["rule"] == "burned_in"]

    assert [row["num_files"] for row in refused] == [12]
    assert not any(row["burned_in_annotation"] for row in rows(tmp_path / "out", "catalog"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["quarantined_by_rule"]["burned_in"] == 1
