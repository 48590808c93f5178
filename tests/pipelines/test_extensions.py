"""A reader, a stage and a recipe of another package, from the command line to the published dataset."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.pipelines import cli, decoder_process, extensions
from crossdim.pipelines.decoder_process import client
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.readers.registry import READERS, promised_family
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.stages.registry import STAGES
from crossdim.storage_schema.errors import SampleError, UsageError
from tests.pipelines.corpora import blob, nifti_bytes, picture

pytestmark = pytest.mark.integration


OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture(autouse=True)
def my_lab(tmp_path, monkeypatch) -> Iterator[Path]:
    """The package ``my_lab``, as it lies in a folder of the user's; nothing of it is left behind."""
    folder = tmp_path / "home"
    shutil.copytree(OUTSIDE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    readers, stages, loaded = dict(READERS), dict(STAGES), list(extensions._loaded)
    yield folder
    for table, before in ((READERS, readers), (STAGES, stages)):
        table.clear()
        table.update(before)
    extensions._loaded[:] = loaded
    client.discard()


def flat_bytes(pixels: np.ndarray) -> bytes:
    return b"LABFLAT1" + np.array(pixels.shape, "<u4").tobytes() + pixels.tobytes()


def solid_bytes(voxels: np.ndarray, modality: str = "CT", patient: str = "") -> bytes:
    header = np.array(voxels.shape, "<u4").tobytes() + np.float32(2).tobytes() + modality.encode()
    return b"LABSOLID" + header + patient.encode().ljust(8, b"\0") + voxels.astype("<i2").tobytes()


def run(capsys, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = cli.main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def rows(dataset: Path, role: str) -> list[dict[str, Any]]:
    return pq.read_table(dataset / role).to_pylist()


def test_images_of_another_packages_format_are_counted_planned_read_and_published(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for number in range(3):
        (raw / f"{number}.flat").write_bytes(flat_bytes(picture(number)))
    (raw / "by_content").write_bytes(flat_bytes(picture(7)))
    (raw / "cut.flat").write_bytes(flat_bytes(picture(8))[:-1])
    (raw / "other.flat").write_bytes(b"something else")
    Image.fromarray(picture(9)).save(raw / "ours.png")

    code, answer = run(capsys, "prepare", raw, "--recipe", "my_lab.recipes:flat_images", "--out", out)

    assert code == 3
    assert answer["files"] == {"total": 7, "used": 5, "quarantined": 2, "ignored": 0}
    assert answer["quarantined_by_rule"] == {"truncated": 1, "wrong_format": 1}
    assert {row["source_uri"] for row in rows(out, "catalog")} == {"0.flat", "1.flat", "2.flat", "by_content", "ours.png"}
    assert json.loads((out / "manifest.json").read_text())["name"] == "flat_images"
    assert run(capsys, "verify", out)[0] == 0
    assert run(capsys, "prepare", raw, "--recipe", "my_lab.recipes:flat_images", "--out", out)[1]["already_published"]


def test_volumes_of_another_packages_format_are_published_beside_ours(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "ct").mkdir(parents=True)
    (raw / "ct" / "a.solid").write_bytes(solid_bytes(blob((40, 40, 40), 1), patient="doe"))
    (raw / "ct" / "mr.solid").write_bytes(solid_bytes(blob((40, 40, 40), 2), "MR"))
    (raw / "ct" / "b.nii").write_bytes(nifti_bytes(blob((50, 50, 50), 3), (2.0, 2.0, 2.0)))
    (raw / "ct" / "p.flat").write_bytes(flat_bytes(picture(1)))

    code, answer = run(capsys, "prepare", raw, "--recipe", "my_lab.recipes:ct", "--out", out)

    assert code == 3
    assert answer["files"] == {"total": 4, "used": 2, "quarantined": 1, "ignored": 1}
    catalog = {row["source_uri"]: row for row in rows(out, "catalog")}
    assert set(catalog) == {"ct/a.solid", "ct/b.nii"}
    assert catalog["ct/a.solid"]["modality"] == "CT"
    assert "doe" not in catalog["ct/a.solid"]["patient"], "patients of other readers are hashed too"
    assert catalog["ct/a.solid"]["patient"] != catalog["ct/a.solid"]["source_sha256"][:16]
    (refused,) = rows(out, "quarantine")
    assert (refused["uri"], refused["stage"], refused["rule"]) == ("ct/mr.solid", "modality", "modality")
    (ignored,) = rows(out, "ignored")
    assert (ignored["format"], ignored["rule"]) == ("labflat", "not_for_recipe")
    assert "dicom, labsolid, metaimage, nifti, nrrd, numpy volume" in ignored["reason"]
    assert run(capsys, "verify", out)[0] == 0


def test_a_stage_of_another_package_runs_in_the_decoder_process_and_is_recorded(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    pixels = picture(1, 48, 48)
    Image.fromarray(pixels).save(raw / "a.png")
    line = [
        "prepare",
        raw,
        "--recipe",
        "my_lab.recipes:negatives",
        "--set",
        "white=250",
        "--set",
        "fit.max_side=48",
        "--out",
        out,
    ]

    assert run(capsys, *line)[0] == 0

    assert json.loads((out / "manifest.json").read_text())["preprocessing"]["negative"] == {"white": 250}
    (row,) = rows(out, "catalog")
    data = (out / row["object"]).read_bytes()[row["offset"] : row["offset"] + row["length"]]
    stored = np.frombuffer(data, np.uint8)[-48 * 48 :].reshape(48, 48)
    assert np.array_equal(stored, (250 - pixels).astype(np.uint8))
    recipe = resolve("my_lab.recipes:negatives")
    assert [stage.name for stage in recipe.decoder_stages] == ["negative", "fit"]


def test_a_running_decoder_process_learns_of_readers_that_are_loaded_later():
    sound = flat_bytes(picture(1))
    with pytest.raises(SampleError):  # starts a process that knows our readers alone
        decoder_process.decode("png", RawItem(uri="x", files=(sound,)))
    first = client._running

    extensions.load_extension("my_lab.recipes")

    assert np.array_equal(decoder_process.decode("labflat", RawItem(uri="x", files=(sound,))).array[0], picture(1))
    assert client._running is not first
    assert promised_family("x.flat") == "labflat"


@pytest.mark.ray
def test_workers_of_ray_import_the_package_too(tmp_path, capsys, my_lab):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    (raw / "a.flat").write_bytes(flat_bytes(picture(1)))

    assert run(capsys, "prepare", raw, "--recipe", "my_lab.recipes:negatives", "--out", out, "--no-local")[0] == 0
    assert [row["source_uri"] for row in rows(out, "catalog")] == ["a.flat"]
    assert run(capsys, "verify", out)[0] == 0


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("my_lab.recipes:negativs", "unknown function of my_lab.recipes 'negativs'; did you mean negatives"),
        ("my_lab.recipes:no_recipe", "returns str; a recipe is an ImageRecipe or a VolumeRecipe"),
        ("my_lab.nowhere:negatives", "unknown recipe.*one of your own is module:function, and there is no module my_lab.nowhere"),
        ("xray-pseudo3d:tny", "did you mean xray-pseudo3d:tiny"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(name, answer):
    with pytest.raises(UsageError, match=answer):
        resolve(name)


def test_an_error_inside_of_the_package_is_told(my_lab):
    (my_lab / "broken_lab.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(UsageError, match="module broken_lab cannot be imported: No module named 'a_package_that_is_not_there'"):
        resolve("broken_lab:recipe")


def test_two_readers_of_one_name_are_refused(my_lab):
    (my_lab / "second_lab.py").write_text(
        "from dataclasses import replace\nfrom my_lab import flat\nREADERS = (replace(flat.READER, name='png'),)\n"
    )
    with pytest.raises(UsageError, match="two readers named 'png'"):
        resolve("second_lab:recipe")


@pytest.mark.parametrize(("table", "member"), [("READERS", "flat.READER"), ("STAGES", "negative.NegativeStage")])
def test_a_table_without_its_comma_is_told(my_lab, table, member):
    (my_lab / "third_lab.py").write_text(f"from my_lab import flat, negative\n{table} = ({member})\n")
    sys.modules.pop("third_lab", None)
    with pytest.raises(UsageError, match=f"third_lab.{table} is of type .*; expected a tuple or a list"):
        resolve("third_lab:recipe")
