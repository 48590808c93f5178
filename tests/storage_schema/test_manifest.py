"""The manifest: what it says of a dataset is stable to the byte, and a damaged or hostile one is refused with every fault."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import DocumentError, GeometryError
from crossdim.storage_schema.manifest import FIELDS, OBJECT_FIELDS, FileCounts, Manifest, ObjectEntry, parse_manifest
from crossdim.storage_schema.vocabulary import Presentation

GOLDEN = {version: Path(__file__).parent.parent / "golden" / f"manifest_v{version}.json" for version in (1, 2)}
#: Made by, of the line without its end, and of version 2 without its field digest:
#: sed -z 's/"digest":"[0-9a-f]*",//;s/\n$//' tests/golden/manifest_v2.json | sha256sum
GOLDEN_DIGEST = {
    1: "55c394dda47a3a91537ac95ff8109f3fa4a2909c203958d2f334e7e58d443070",
    2: "912c62cf327b7794a8f65ea1579f694da049a16ce4fa926a0fd01674487d668d",
}

MANIFEST = Manifest(
    name="ct-superpatches",
    presentation=Presentation.SUPERPATCH,
    num_samples=31,
    num_quarantined=2,
    preprocessing={"grid": {"edge": "pad", "side": 128}, "spacing_mm": [2.0, 1.0, 1.0], "window_hu": None, "note": "Größe"},
    plan_digest="1" * 64,
    objects=(
        ObjectEntry(path="superpatches/ct-iso1mm.zarr/zarr.json", size=700, sha256="2" * 64, role="bank"),
        ObjectEntry(path="catalog/part-00000.parquet", size=4096, sha256="3" * 64, role="catalog"),
        ObjectEntry(path="superpatches/ct-iso1mm.zarr/c/0/0/0", size=2**33, sha256="4" * 64, role="bank"),
    ),
    files=FileCounts(total=40, used=30, quarantined=4, ignored=6),
    patient_key_id="0123456789abcdef",
)
#: The same dataset as version 1 described it.
MANIFESTS = {1: replace(MANIFEST, files=None, patient_key_id="", version=1), 2: MANIFEST}


def broken(**changes: object) -> bytes:
    """The golden document with fields replaced; ... removes one."""
    document = MANIFEST.document() | changes
    return json.dumps({k: v for k, v in document.items() if v is not ...}).encode()


def problems(data: bytes) -> dict[str, str]:
    with pytest.raises(DocumentError) as caught:
        parse_manifest(data, "s3://lab/ct/manifest.json")
    assert "s3://lab/ct/manifest.json" in str(caught.value)
    return {p.loc: p.message for p in caught.value.problems}


def entry(**changes: object) -> list[dict[str, object]]:
    return [{"path": "images/a.tar", "size": 1, "sha256": "0" * 64, "role": "shard"} | changes]


@pytest.mark.parametrize("version", GOLDEN)
def test_the_published_bytes_are_those_of_the_golden_file(version):
    """The format is public: bytes that change here make every checkpoint refuse its data.

    Made by:  python -c "from tests.storage_schema.test_manifest import *; GOLDEN[2].write_bytes(MANIFEST.to_bytes())"
    """
    assert MANIFESTS[version].to_bytes() == GOLDEN[version].read_bytes()
    assert MANIFESTS[version].digest == GOLDEN_DIGEST[version]


@pytest.mark.parametrize("version", GOLDEN)
def test_the_golden_file_can_still_be_read(version):
    """Datasets outlive releases."""
    found = parse_manifest(GOLDEN[version].read_bytes(), "golden")

    assert found == replace(MANIFESTS[version], objects=tuple(sorted(MANIFEST.objects, key=lambda o: o.path)))
    assert found.digest == GOLDEN_DIGEST[version]
    assert [o.path for o in found.with_role("catalog")] == ["catalog/part-00000.parquet"]


def test_the_order_of_objects_does_not_change_the_bytes():
    """Tasks finish in any order."""
    assert replace(MANIFEST, objects=MANIFEST.objects[::-1]).to_bytes() == MANIFEST.to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 32},
        {"name": "b"},
        {"preprocessing": {}},
        {"objects": ()},
        {"plan_digest": "5" * 64},
        {"patient_key_id": ""},
    ],
)
def test_every_fact_is_part_of_the_digest(change):
    """Two datasets with equal digests must hold equal bytes."""
    assert replace(MANIFEST, **change).digest != MANIFEST.digest


def test_preprocessing_has_a_digest_of_its_own():
    """A checkpoint refuses data that was prepared otherwise, but not data with more samples."""
    assert replace(MANIFEST, num_samples=99).preprocessing_digest == MANIFEST.preprocessing_digest
    assert replace(MANIFEST, preprocessing={"a": 1}).preprocessing_digest != MANIFEST.preprocessing_digest


def test_all_problems_are_listed_at_once():
    """One run of verify, one list of faults."""
    data = broken(
        name=...,
        version=99,
        num_samples=-1,
        num_quarantined=True,
        presentation="hologram",
        plan_digest="XYZ",
        extra=1,
        objects=[*entry(size="1", sha256="0" * 63), {"path": "b.tar", "size": 1, "sha256": "0" * 64}, "c.tar"],
    )
    found = problems(data)

    assert set(found) == {
        "name", "version", "num_samples", "num_quarantined", "presentation", "plan_digest", "extra",
        "objects[0].size", "objects[0].sha256", "objects[1].role", "objects[2]",
    }  # fmt: skip
    assert found["presentation"] == "found 'hologram'; expected 'image' or 'pseudo3d' or 'superpatch'"
    assert found["extra"] == "is not a field"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_required(name):
    """No field has a default: an old reader and a new writer must not guess differently."""
    assert problems(broken(**{name: ...}))[name] == "is missing"


@pytest.mark.parametrize("name", OBJECT_FIELDS)
def test_every_field_of_an_object_is_required(name):
    """As above."""
    assert problems(broken(objects=[{k: v for k, v in entry()[0].items() if k != name}]))[f"objects[0].{name}"] == "is missing"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x.tar",
        "a/../../x",
        "a/..",
        "..",
        "C:\\x",
        "a\\b",
        "file:///x",
        "s3://x/y",
        "a//b",
        "./a",
        "a/./b",
        "a/",
        "",
        None,
        7,
    ],
)
def test_paths_that_leave_the_dataset_are_refused(path):
    """A manifest comes from a stranger; deleting, copying or reading by it must stay inside. Paths have one spelling."""
    assert "objects[0].path" in problems(broken(objects=entry(path=path)))


@pytest.mark.parametrize("path", ["weights.pth", "a/b.PKL", "x.npz", "m.pickle", "c.tar.joblib"])
def test_objects_that_could_run_code_are_refused(path):
    """Pickles are neither written nor read, whatever lists them."""
    assert "run code" in problems(broken(objects=entry(path=path)))["objects[0].path"]


def test_one_path_twice_is_refused():
    """Which of the two hashes would be the right one?"""
    assert problems(broken(objects=entry() + entry(size=2)))["objects"] == "path 'images/a.tar' stands twice"


def test_files_that_are_not_accounted_for_are_refused():
    """A file that is in no count was lost without a word; nobody may publish or read such a statement."""
    assert "used, quarantined and ignored are [30, 4, 6]" in problems(broken(num_files=41))["num_files"]
    with pytest.raises(GeometryError, match="41 files are not 30 used"):
        FileCounts(total=41, used=30, quarantined=4, ignored=6)


@pytest.mark.parametrize("field", ["num_files", "patient_key_id", "digest"])
def test_a_field_of_version_2_is_not_one_of_version_1(field):
    """Each version has its own fields: a manifest that mixes them was written by nobody."""
    assert problems(broken(version=1))[field] == "is not a field"


def test_no_bit_of_a_manifest_changes_unseen():
    """All of them: what is still read has the digest, and so the values, of what was written."""
    data, read = GOLDEN[2].read_bytes(), []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(DocumentError):
            read.append(parse_manifest(bytes(changed), "changed"))
    assert {found.digest for found in read} <= {GOLDEN_DIGEST[2]}


def test_a_manifest_that_was_edited_is_refused():
    """Every value of it is plausible: only the digest tells."""
    assert "was 912c62" in problems(broken(num_samples=32))["digest"]


def test_a_preprocessing_digest_that_was_copied_from_elsewhere_is_refused():
    """Trainers compare digests only, so the digest must belong to what stands beside it."""
    assert "does not belong" in problems(broken(preprocessing_digest="6" * 64))["preprocessing_digest"]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_document_is_refused_in_words(data):
    """Half an upload, somebody's picture, or an attack on the parser's stack."""
    assert list(problems(data)) == ["document"]


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity", '"\\ud800"'])
def test_values_without_canonical_bytes_are_refused_in_words(text):
    """Python reads them, but no digest can be taken of them, so nothing could be held against it."""
    data = broken(preprocessing={"a": "@"}).replace(b'"@"', text.encode())

    assert "not JSON" in problems(data)["document"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(st.sampled_from([*FIELDS, "objects[0]", *(f"objects[0].{name}" for name in OBJECT_FIELDS)]), JSON)
def test_any_value_in_any_place_is_read_or_refused_in_words(place, value):
    """A document from outside never ends in a traceback."""
    document = json.loads(GOLDEN[2].read_bytes())
    head, _, tail = place.partition("[0]")
    if not tail:
        document[head] = [value] if "[0]" in place else value
    else:
        document[head][0][tail[1:]] = value
    with contextlib.suppress(DocumentError):
        assert parse_manifest(json.dumps(document).encode(), "generated").to_bytes()
