"""Which files are one series, how inputs are called in a dataset, and where its key and its table of names come from."""

from __future__ import annotations

import csv
import io
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.items import Naming
from crossdim.pipelines.jobs.names import NamedFile, SourceNames, choose_names, serialise_name_table
from crossdim.pipelines.jobs.plan import Plan, make_plan
from crossdim.pipelines.jobs.pseudonyms import PseudonymOptions
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.splits import check_patients
from crossdim.pipelines.readers.header_info import HeaderInfo, SliceHeader
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.sources.labels import Known
from crossdim.pipelines.sources.listing import NAME_MAP_PREFIX, SALT_NAME, list_sources
from crossdim.pipelines.sources.salt import load_or_create_key, read_key
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.pseudonym import PseudonymKey
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Modality

KEY = PseudonymKey(b"a key that tests share")
HASHED = SourceNames(key=KEY, hashed=frozenset({0}))
RELATIVE = SourceNames(key=KEY)


def slice_result(path: str, depth: int, **identity: object) -> ScanResult:
    header = SliceHeader(
        rows=40,
        columns=40,
        position_mm=(0.0, 0.0, 2.0 * depth),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing_mm=(2.0, 2.0),
        thickness_mm=2.0,
    )
    info = HeaderInfo(format="dicom", shape=(40, 40), spacing_mm=(2.0, 2.0), slice=header, **identity)
    return ScanResult(source=0, path=path, uri=path, size=9, status="ok", header=info)


def series(folder: str, first: int = 0, count: int = 16, **identity: object) -> list[ScanResult]:
    return [slice_result(f"{folder}/{first + depth:03d}.dcm", first + depth, **identity) for depth in range(count)]


def plan(
    results: list[ScanResult], names: SourceNames = HASHED, recipe: str = "mixed-superpatches:tiny", *overrides: str
) -> Plan:
    naming = Naming(known=lambda _: Known(), modality=lambda _: Modality.OT, names=names)
    return make_plan(names.publish(results), resolve(recipe, overrides), naming, {"name": "t"})


def inputs(made: Plan) -> list[list[str]]:
    """Paths of every input that was planned."""
    return sorted(sorted(file.path for file in item.files) for task in made.tasks for item in task.items)


def paths(*groups: list[ScanResult]) -> list[list[str]]:
    return sorted(sorted(result.path for result in group) for group in groups)


SAME = {"study": "1.2", "series": "1.2.3", "patient_id": "A"}


@pytest.mark.parametrize("names", [HASHED, RELATIVE])
@pytest.mark.parametrize(
    "other",
    [{"patient_id": "B"}, {"patient_id": None}, {"study": "1.9"}, {"series": "1.2.4"}, {"patient_id": "a"}],
    ids=str,
)
def test_files_that_differ_in_study_series_or_patient_are_two_inputs(names, other):
    """Stacked behind each other, beside each other in one folder, or at the same places: never one volume."""
    for folder, first in (("b", 16), ("a", 16), ("b", 0)):
        one, two = series("a", **SAME), series(folder, first=first, **{**SAME, **other})
        if folder == "a":
            two = [replace(result, path=f"a/x{result.path[2:]}", uri=f"a/x{result.path[2:]}") for result in two]
        made = plan([*one, *two], names)

        assert inputs(made) == paths(one, two)
        assert len({item.uri for task in made.tasks for item in task.items}) == 2


@pytest.mark.parametrize("names", [HASHED, RELATIVE])
def test_without_uids_the_folder_is_the_series_and_two_patients_in_it_are_two_inputs(names):
    none = {"study": "", "series": ""}
    one, two = series("a", patient_id="A", **none), series("a", first=16, patient_id="B", **none)
    three = series("b", patient_id="A", **none)
    made = plan([*one, *two, *three], names)

    assert inputs(made) == paths(one, two, three)
    assert len({item.uri for task in made.tasks for item in task.items}) == 3


def test_one_series_in_two_folders_is_one_input():
    one, two = series("a", **SAME), series("b", first=16, **SAME)

    assert inputs(plan([*one, *two])) == paths([*one, *two])


def test_a_plan_digest_tells_nothing_of_paths_behind_hashed_names():
    """Otherwise everybody who can guess a path could test the guess on the manifest."""
    results = HASHED.publish(series("1234567", **SAME))
    moved = [replace(result, path=f"elsewhere/{number}.dcm") for number, result in enumerate(results)]
    naming = Naming(known=lambda _: Known(), modality=lambda _: Modality.OT, names=HASHED)
    recipe = resolve("mixed-superpatches:tiny")

    assert make_plan(results, recipe, naming, {}).digest == make_plan(moved, recipe, naming, {}).digest


def test_the_order_of_hashed_names_is_not_that_of_paths():
    """Positions in a bank and numbers of shards would otherwise tell the order of patients' names."""
    published = HASHED.publish(series("a", count=50, **SAME))

    assert [one.uri for one in published] == sorted(one.uri for one in published)
    assert [one.path for one in published] != sorted(one.path for one in published)


def test_one_dicom_file_hashes_the_names_of_its_whole_source_and_of_no_other():
    """A report or an export in another format beside it is called after the same patient."""
    results = [
        *series("a", count=1, **SAME),
        ScanResult(source=0, path="DOE^JANE.nii.gz", uri="x/DOE^JANE.nii.gz", size=1, status="ignored"),
        ScanResult(source=0, path="report.DOE", uri="x/report.DOE", size=1, status="ignored"),
        ScanResult(source=1, path="broken.dcm", uri="y/broken.dcm", size=1, status="refused"),
        ScanResult(source=2, path="b.png", uri="z/b.png", size=1, status="ok", header=HeaderInfo(format="png", shape=(8, 8))),
    ]
    names = choose_names(results, "by_format", has_patients=False, load_key=lambda: KEY)
    shown = [names.name_file(result) for result in results]

    assert names.hashed == {0, 1}
    assert shown[-1] == "z/b.png"
    assert [name.rpartition(".")[0].endswith("nii") for name in shown] == [False, True, False, False, False]
    assert all(name.startswith("hashed:") and "DOE" not in name for name in shown[:4])
    assert choose_names(results, "hashed", has_patients=False, load_key=lambda: KEY).hashed == {0, 1, 2}
    assert choose_names(results, "relative", has_patients=False, load_key=lambda: KEY).hashed == frozenset()


def test_no_key_is_made_where_there_is_nothing_to_hash():
    def load_key() -> PseudonymKey:
        raise AssertionError("asked for a key")

    results = [
        ScanResult(source=0, path="b.png", uri="b.png", size=1, status="ok", header=HeaderInfo(format="png", shape=(8, 8)))
    ]

    assert choose_names(results, "by_format", has_patients=False, load_key=load_key).key_id == ""
    assert choose_names(results, "by_format", has_patients=True, load_key=lambda: KEY).key_id == KEY.key_id


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")), st.text("ab"))))
def test_the_table_of_names_is_read_back_by_csv(pairs):
    files = [NamedFile(path=path, name=name) for path, name in pairs]
    table = csv.DictReader(io.StringIO(serialise_name_table(files).decode(), newline=""))

    assert [(row["path"], row["name"]) for row in table] == [(f.path, f.name) for f in sorted(files, key=lambda f: f.path)]


def test_a_burned_in_series_is_refused_whole():
    """One slice with text in it: the others without it would be a volume with a gap."""
    marked = series("a", **SAME)
    marked[5] = replace(marked[5], header=replace(marked[5].header, burned_in_annotation=True))
    kept, refused = (plan(marked, HASHED, "mixed-superpatches:tiny", f"read.burned_in={what}") for what in ("keep", "refuse"))

    assert [item.burned_in_annotation for task in kept.tasks for item in task.items] == [True]
    assert not refused.tasks
    assert [(one.rule, one.num_files) for one in refused.refused] == [("burned_in", 16)]


def test_many_preparations_at_a_time_use_one_key(tmp_path):
    found: list[PseudonymKey] = []
    threads = [threading.Thread(target=lambda: found.append(load_or_create_key(Bucket(str(tmp_path))))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({key.secret for key in found}) == 1
    assert len(found[0].secret) == 32
    assert stat.S_IMODE((tmp_path / SALT_NAME).stat().st_mode) == 0o600


def test_a_key_beside_raw_data_in_a_store_is_made_once_and_is_no_input(s3_bucket):
    source, out = s3_bucket.at("raw"), s3_bucket.at("out")
    source.put("a.png", b"1")
    keys = {PseudonymOptions().load_key(source, out).secret for _ in range(3)}
    place = PseudonymOptions().write_name_map([NamedFile(path="a", name="b")], source, out, "0" * 64)

    assert keys == {source.read(SALT_NAME)}
    assert place.url == f"{source.url}/{NAME_MAP_PREFIX}{'0' * 16}.csv"
    assert [file.path for file in list_sources([source])[1]] == ["a.png"]
    assert not out.exists()


def test_key_and_table_beside_raw_data_are_no_inputs(tmp_path):
    for name in (SALT_NAME, f"{NAME_MAP_PREFIX}0123.csv", "a.png", f"sub/{SALT_NAME}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(20))

    assert [file.path for file in list_sources([Bucket(str(tmp_path))])[1]] == ["a.png"]


def test_a_source_that_cannot_be_written_asks_for_a_salt_file(ordinary_user):
    ordinary_user.chmod(0o500)
    with pytest.raises(StorageError, match="--salt-file FILE"):
        load_or_create_key(Bucket(str(ordinary_user)))


class ReadOnly(Bucket):
    """A store that may be read alone."""

    def create(self, path: str, data: bytes, *, private: bool = False) -> bool:
        raise StorageError(f"{path}: not allowed; check credentials and rights for creating")


def test_a_store_that_may_only_be_read_asks_for_other_places(tmp_path):
    source, out = ReadOnly(str(tmp_path / "raw")), Bucket(str(tmp_path / "out"))
    (tmp_path / "raw").mkdir()
    with pytest.raises(StorageError, match="--salt-file FILE"):
        PseudonymOptions().load_key(source, out)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="--name-map FILE"):
        PseudonymOptions(name_map=Bucket(str(tmp_path / "file" / "x.csv"))).write_name_map([], source, out, "0" * 64)
    place = PseudonymOptions(name_map=Bucket(str(tmp_path / "names.csv"))).write_name_map([], source, out, "0" * 64)
    assert Path(place.url).read_text() == "path,name,series,version,sha256\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"short", "at least 16 bytes; found 5"), (bytes(70_000), "a key has at most"), (None, "is a folder")],
)
def test_what_is_no_key_is_refused(content, sentence, tmp_path):
    if content is None:
        (tmp_path / "key").mkdir()
    else:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        read_key(Bucket(str(tmp_path / "key")))


def test_a_key_that_is_not_there_is_told_with_how_to_make_one(tmp_path):
    with pytest.raises(StorageError, match="head -c 32 /dev/urandom"):
        read_key(Bucket(str(tmp_path / "key")))


def test_a_key_that_others_may_read_is_told_once(tmp_path, capsys):
    (tmp_path / "key").write_bytes(bytes(32))
    for mode, shown in ((0o600, 0), (0o644, 1)):
        (tmp_path / "key").chmod(mode)
        options = PseudonymOptions(salt_file=Bucket(str(tmp_path / "key")))
        options.check(Bucket(str(tmp_path / "out")))
        options.load_key(Bucket(str(tmp_path)), Bucket(str(tmp_path / "out")))
        assert capsys.readouterr().err.count("can be read by other users of this machine; chmod 600 it\n") == shown


@pytest.mark.parametrize("option", ["salt_file", "name_map"])
def test_neither_key_nor_table_may_lie_inside_the_dataset(option, tmp_path):
    """Also where a link leads there: whoever is given the dataset would be given them."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "file").write_bytes(bytes(32))
    for folder in ("out", "link"):
        options = PseudonymOptions(**{option: Bucket(str(tmp_path / folder / "file"))})
        with pytest.raises(UsageError, match="lies inside the dataset"):
            options.check(Bucket(str(tmp_path / "out")))


HALF = SplitRule(test_fraction=0.5)


@pytest.mark.parametrize(
    ("patients", "sentence"),
    [
        (["a"] * 20, "20 of 20 inputs"),
        (["a"], "1 of 1 inputs"),
        (["a"] * 3 + [None], "3 of 4 inputs"),
    ],
)
def test_a_share_of_one_patient_is_refused_with_what_to_do(patients, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        check_patients(patients, HALF)
    assert "--split-by file" in str(caught.value)
    assert check_patients(patients, SplitRule()) == []
    assert "by file" in check_patients(patients, SplitRule(test_fraction=0.5, by="file"))[0]


@pytest.mark.parametrize(
    ("patients", "shown"),
    [
        ([None, None], "no patient is known of 2 inputs"),
        (["a", "b", None], "no patient is known of 1 of 3 inputs"),
        (["a", None, None], "no patient is known of 2 of 3 inputs"),
        (["a", "e"], None),
    ],
)
def test_what_a_split_rests_on_is_told(patients, shown):
    notes = check_patients(patients, HALF)

    assert [shown in note for note in notes] == ([True] if shown else [])
