"""From listing to plan: what becomes of every file is decided before anything is decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.flagged_notes import FLAGGED, tell_flagged
from crossdim.pipelines.jobs.items import Naming
from crossdim.pipelines.jobs.names import NamedFile, SourceNames, make_readable
from crossdim.pipelines.jobs.plan import Plan, make_plan
from crossdim.pipelines.jobs.scan import scan_file
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.quarantine import Quarantined, apply_steps
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.recipes import RECIPES, resolve
from crossdim.pipelines.sources import reading
from crossdim.pipelines.sources.folder_names import find_modality
from crossdim.pipelines.sources.labels import Known
from crossdim.pipelines.sources.listing import list_sources
from crossdim.storage_schema.errors import GeometryError, SampleError, StorageError, UsageError
from crossdim.storage_schema.pseudonym import PseudonymKey
from crossdim.storage_schema.vocabulary import Modality
from tests.pipelines.corpora import blob, nifti_bytes, write_images, write_series, write_volumes

NAMING = Naming(
    known=lambda _: Known(), modality=lambda _: Modality.OT, names=SourceNames(key=PseudonymKey(b"a key that tests share"))
)


def scan_results_of(*folders: Path) -> list[ScanResult]:
    sources, files = list_sources([Bucket(str(folder)) for folder in folders])
    return [scan_file(file, sources, ReadRules()) for file in files]


def plan(results: list[ScanResult], recipe: str, *overrides: str) -> Plan:
    return make_plan(results, resolve(recipe, overrides), NAMING, {"name": "t"})


def ignored(made: Plan) -> Counter[str]:
    return Counter(one.rule for one in made.ignored)


def test_every_file_gets_a_result(tmp_path):
    write_volumes(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    (tmp_path / "pointer.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "answer.dcm").write_bytes(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
    found = {v.uri: (v.status, v.rule) for v in scan_results_of(tmp_path)}

    assert found[".DS_Store"] == ("ignored", "hidden")
    assert found["empty.nii.gz"] == ("refused", "empty")
    assert found["pointer.png"] == ("refused", "lfs_pointer")
    assert found["answer.dcm"] == ("refused", "error_document")
    assert sum(status == "ok" for status, _ in found.values()) == 4 + 24


def test_series_are_found_by_uid_and_not_by_folder(tmp_path):
    """Two series in one folder are two volumes; one series in two folders is one."""
    write_series(tmp_path / "a", blob((6, 12, 12), 1), "1.2.1")
    write_series(tmp_path / "b", blob((6, 12, 12), 2), "1.2.2")
    for number, path in enumerate(sorted((tmp_path / "b").iterdir())):
        if number % 2:
            path.rename(tmp_path / "a" / f"x{path.name}")
    made = plan(scan_results_of(tmp_path), "mixed-superpatches:tiny")
    items = [item for task in made.tasks for item in task.items]

    assert [(item.uri.partition("#")[0], len(item.files)) for item in items] == [("a", 6), ("a", 6)]
    assert len({item.uri for item in items}) == 2
    assert not made.refused


def test_a_series_refused_for_one_slice_names_that_file(tmp_path):
    """A scout among axial slices: by its name in the dataset, a hash where names are hashed; by its path on the terminal."""
    write_series(tmp_path / "a", blob((6, 12, 12), 1), "1.2.1")
    scout = pydicom.dcmread(next((tmp_path / "a").iterdir()))
    scout.ImageOrientationPatient, scout.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [0, -100, 0]
    scout.save_as(tmp_path / "a" / "scout.dcm")
    results = scan_results_of(tmp_path)
    (plain,) = plan(results, "mixed-superpatches:tiny").refused
    names = SourceNames(key=PseudonymKey(b"a key that tests share"), hashed=frozenset({0}))
    (hashed,) = make_plan(names.publish(results), resolve("mixed-superpatches:tiny"), replace(NAMING, names=names), {}).refused
    named = [NamedFile(path=result.uri, name=names.name_file(result), series=hashed.uri) for result in results]

    assert plain.rule == hashed.rule == "mixed_orientation"
    assert plain.reason.endswith("; at fault: a/scout.dcm")
    assert "scout" not in hashed.reason
    assert make_readable(hashed.reason, named) == plain.reason
    assert make_readable(f"the first, {hashed.uri}, is refused", named) == "the first, the series in a, is refused"


def test_a_plan_does_not_depend_on_where_the_bucket_lies(tmp_path):
    for place in ("here", "there"):
        write_images(tmp_path / place / "raw")

    assert plan(scan_results_of(tmp_path / "here" / "raw"), "xray-pseudo3d") == plan(
        scan_results_of(tmp_path / "there" / "raw"), "xray-pseudo3d"
    )


def test_recipe_and_inputs_change_the_digest(tmp_path):
    write_images(tmp_path)
    results = scan_results_of(tmp_path)
    digests = {
        plan(results, "xray-pseudo3d").digest,
        plan(results[:-1], "xray-pseudo3d").digest,
        plan(results, "xray-pseudo3d", "fit.max_side=512").digest,
        make_plan(results, resolve("xray-pseudo3d"), NAMING, {"name": "u"}).digest,
    }

    assert len(digests) == 4


def test_image_shards_are_full_by_count_or_by_bytes():
    results = [
        ScanResult(source=0, path=f"{n}", uri=f"{n:03}", size=9, status="ok", header=HeaderInfo(format="png", shape=(100, 100)))
        for n in range(25)
    ]

    assert [len(row.items) for row in plan(results, "xray-pseudo3d", "shard.max_samples=10").tasks] == [10, 10, 5]
    assert [len(row.items) for row in plan(results, "xray-pseudo3d", "shard.target_bytes=60000").tasks] == [6, 6, 6, 6, 1]


def test_facts_that_no_plan_can_use_are_a_fault_of_their_file_alone():
    def result(name: str, shape: tuple[int, ...]) -> ScanResult:
        return ScanResult(source=0, path=name, uri=name, size=9, status="ok", header=HeaderInfo(format="png", shape=shape))

    made = plan([result("a", (0, 0)), result("b", ()), result("c", (100, 100))], "xray-pseudo3d")

    assert [one.uri for one in made.refused] == ["a", "b"]
    assert [item.uri for task in made.tasks for item in task.items] == ["c"]


def test_volumes_reserve_positions_that_never_overlap():
    """A large volume has a row of its own; small ones share a shard; no two rows share one."""
    shapes = [(64, 64, 64), (64, 64, 128), (200, 200, 200), (64, 64, 64)]
    results = [
        ScanResult(
            source=0,
            path=f"{n}",
            uri=f"{n}",
            size=9,
            status="ok",
            header=HeaderInfo(format="nifti", shape=shape, spacing_mm=(2.0,) * 3),
        )
        for n, shape in enumerate(shapes)
    ]
    made = plan(results, "mixed-superpatches:tiny")

    assert [[item.boxes for item in row.items] for row in made.tasks] == [[1, 2], [64], [1]]
    assert [(row.first_shard, row.num_shards) for row in made.tasks] == [(0, 1), (1, 8), (9, 1)]
    assert made.num_shards == 10


def test_files_of_the_other_kind_are_counted_and_left_alone(tmp_path):
    write_images(tmp_path / "i")
    write_volumes(tmp_path / "v")
    results = scan_results_of(tmp_path)

    assert ignored(plan(results, "mixed-superpatches:tiny")) == {"not_an_image": 1, "not_for_recipe": 14}
    assert ignored(plan(results, "xray-pseudo3d")) == {"not_an_image": 1, "not_for_recipe": 4}


def test_a_broken_file_of_the_other_kind_is_no_refusal(tmp_path):
    """Who prepares images need not be told of cut volumes."""
    write_images(tmp_path)
    (tmp_path / "cut.nii").write_bytes(b"")
    results = scan_results_of(tmp_path)

    assert ignored(plan(results, "xray-pseudo3d"))["not_for_recipe"] == 1
    assert [one.rule for one in plan(results, "mixed-superpatches:tiny").refused] == ["empty"]


def test_several_sources_keep_their_names_apart(tmp_path):
    for name in ("ct", "mr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("x")
    _, files = list_sources([Bucket(str(tmp_path / "mr")), Bucket(str(tmp_path / "ct"))])
    _, single = list_sources([Bucket(str(tmp_path / "ct"))])
    _, file = list_sources([Bucket(str(tmp_path / "ct" / "a.txt"))])

    assert [(f.uri, f.source) for f in files] == [("ct/a.txt", 1), ("mr/a.txt", 0)]
    assert [f.uri for f in single] == [f.uri for f in file] == ["a.txt"]
    with pytest.raises(UsageError, match="two sources"):
        list_sources([Bucket(str(tmp_path / "ct")), Bucket(str(tmp_path / "ct"))])


@pytest.mark.parametrize(
    ("path", "folder", "modality"),
    [
        ("a/CT/x.nii", "raw", Modality.CT),
        ("ct/mri/x.nii", "raw", Modality.MR),
        ("x.nii", "xray2d", Modality.XR),
        ("patients/us.nii", "home", Modality.OT),
        ("contact/x.nii", "home", Modality.OT),
        ("ct/.cache/mr/x.nii", "raw", Modality.CT),
        ("derivatives/ct/x.nii", "mr", Modality.MR),
        ("@eaDir/ct/x.nii", "raw", Modality.OT),
        ("ct/x.nii", ".git", Modality.CT),
    ],
)
def test_modality_words_are_whole_folder_names_and_the_nearest_wins(path, folder, modality):
    assert find_modality(path, folder) is modality


def test_the_door_lets_pass_what_is_no_fault_of_the_input():
    def failing(error):
        def step(_):
            raise error

        return [("first", lambda value: value), ("second", step)]

    for error in (StorageError("gone"), MemoryError()):
        with pytest.raises(type(error)):
            apply_steps("u", 1, failing(error))
    assert apply_steps("u", 1, failing(SampleError("r", "why"))) == Quarantined(uri="u", stage="second", rule="r", reason="why")
    assert apply_steps("u", 1, failing(SampleError("r", "why", (2, 0))), ["a", "b", "c"]).reason == "why; at fault: c, a"
    assert apply_steps("u", 1, failing(SampleError("r", "why", (0,))), ["u"]).reason == "why"
    many = apply_steps("u", 1, failing(SampleError("r", "why", tuple(range(9)))), list("abcdefghi"))
    assert many.reason == "why; at fault: a, b, c and 6 more"
    assert apply_steps("u", 1, failing(GeometryError("g"))).rule == "geometry"
    assert apply_steps("u", 1, failing(ZeroDivisionError("z"))).rule == "ZeroDivisionError"
    assert apply_steps("u", 1, [("add", lambda value: value + 1)]) == 2


def test_an_input_that_is_gone_or_has_grown_is_a_fault_of_that_input(tmp_path):
    with pytest.raises(SampleError, match="missing"):
        reading.read_whole(Bucket(str(tmp_path)), "nothing", 3)
    (tmp_path / "grown").write_bytes(b"1234")
    with pytest.raises(SampleError, match="changed"):
        reading.read_whole(Bucket(str(tmp_path)), "grown", 3)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_say_what_training_reads_from_a_manifest(name):
    recipe = resolve(name)
    document = recipe.preprocessing()

    assert ("pseudo3d" in document) != ("superpatch" in document)
    assert recipe.steps(lambda raw: raw)[0][0] == "decode"


def test_unknown_recipes_and_settings_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean xray-pseudo3d"):
        resolve("xray-pseudo")
    with pytest.raises(UsageError, match="did you mean window"):
        resolve("xray-pseudo3d", ["pseudo3d.windw=3"])
    assert resolve("xray-pseudo3d", ["pseudo3d.window=8", "pseudo3d.stride=8"]).pseudo3d.window == 8


def test_a_recipe_for_ct_refuses_other_modalities_and_says_how_to_insist(tmp_path):
    recipe = resolve("ct-superpatches")
    write_volumes(tmp_path)
    item = RawItem(uri="c", files=((tmp_path / "mr" / "c.nii").read_bytes(),), modality=Modality.MR)
    found = apply_steps("c", item, recipe.steps(READERS["nifti"].decode))

    assert isinstance(found, Quarantined)
    assert found.rule == "modality"
    assert "--modality" in found.reason


def test_another_modality_is_refused_by_the_plan_for_the_reason_that_its_sample_would_be(tmp_path):
    """A header that states one wins over what option and folder say; where none does, these decide."""
    write_volumes(tmp_path)
    for path in (tmp_path / "ct" / "series").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.Modality = "MRI"  # in no list of DICOM's, and read all the same
        dataset.save_as(path)
    recipe, results = resolve("ct-superpatches"), scan_results_of(tmp_path)
    naming = replace(NAMING, modality=lambda one: Modality.MR if one.path.startswith("mr/") else Modality.CT)
    made = make_plan(results, recipe, naming, {"name": "t"})

    assert {item.uri for task in made.tasks for item in task.items} == {"ct/a.nii.gz", "ct/b.nii"}
    assert {(one.stage, one.rule, one.num_files) for one in made.refused} == {
        ("modality", "modality", 24),
        ("modality", "modality", 1),
    }
    item = RawItem(uri="c", files=((tmp_path / "mr" / "c.nii").read_bytes(),), modality=Modality.MR)
    late = apply_steps("mr/c.nii", item, recipe.steps(READERS["nifti"].decode))
    assert late in made.refused


@pytest.mark.parametrize(
    ("stated", "rule"),
    [
        (["CT", *["MR"] * 7], "mixed_modality"),
        (["MR"] * 5 + ["PT"] * 3, "mixed_modality"),
        (["", *["MR"] * 7], None),
        (["MR", *[""] * 7], None),
        (["MR", *["MRI"] * 7], None),
    ],
)
def test_a_series_of_several_modalities_is_refused_and_one_that_some_slices_state_is_its_own(stated, rule, tmp_path):
    """Whichever slice comes first, by the plan and by the decoder alike."""
    write_series(tmp_path / "ct", blob((8, 12, 12), 1), "1.2.1")
    paths = sorted((tmp_path / "ct").iterdir())
    for path, modality in zip(paths, stated, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.Modality, dataset.RescaleIntercept = modality, 0
        dataset.save_as(path)
    naming = replace(NAMING, modality=lambda _: Modality.CT)
    made = make_plan(scan_results_of(tmp_path), resolve("mixed-superpatches:tiny"), naming, {"name": "t"})
    item = RawItem(uri="s", files=tuple(path.read_bytes() for path in paths), modality=Modality.CT)
    sample = apply_steps("s", item, [("decode", READERS["dicom-series"].decode)])

    assert [one.rule for one in made.refused] == ([rule] if rule else [])
    assert (sample.rule if isinstance(sample, Quarantined) else str(sample.modality)) == (rule or "MR")


def test_notes_that_a_user_should_look_at_are_counted_by_input():
    """Boxes of one volume are one input; notes that only tell of a rule are not in the outcome."""
    doubtful = f"first of 3 frames; {FLAGGED[0]}"
    rows = [("a", doubtful), ("a", doubtful), ("b", FLAGGED[0]), ("c", "first of 3 frames"), ("d", None), ("e", FLAGGED[2])]
    lines = tell_flagged(({"source_uri": uri, "note": note, "modality": "CT"} for uri, note in rows), None)

    assert lines == [
        f"look at {n}: {FLAGGED[which]} (their note in the catalog)" for n, which in (("2 inputs", 0), ("1 input", 2))
    ]


def test_inputs_whose_modality_nobody_named_are_counted():
    rows = [{"source_uri": uri, "note": None, "modality": modality} for uri, modality in (("a", "OT"), ("a", "OT"), ("b", "XR"))]
    assert tell_flagged(rows, None) == ["modality of 1 input is not known (OT); --modality names it"]
    assert tell_flagged(rows, Modality.XR) == ["modality of 1 input is OT by the header, which counts before --modality"]
    assert tell_flagged(rows[2:], None) == []


def test_modalities_that_only_folders_name_are_told(tmp_path, capsys):
    """A T1 below a folder called ct is windowed in HU; nobody would know why."""
    for folder in ("ct", "pet", "unnamed"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / "t1.nii").write_bytes(nifti_bytes(blob((24, 24, 24), len(folder)), (2.0, 2.0, 2.0)))
    line = ["prepare", str(tmp_path / "raw"), "--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", "--local"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "modality of 2 inputs is taken from folder names: CT 1, PT 1; --modality states another" in told
    assert "modality of 1 input is not known (OT)" in told
    assert main([*line, "--out", str(tmp_path / "mr"), "--modality", "MR"]) == 0
    assert "modality of" not in capsys.readouterr().out
