"""Labels and patients from tables and folders: every spelling is read as meant, or refused with all that is wrong."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.sources.folder_names import find_label
from crossdim.pipelines.sources.label_matching import match_series, match_table
from crossdim.pipelines.sources.label_table import is_missing, parse_table
from crossdim.pipelines.sources.labels import Known, Labels, LabelTable, read_labels
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.errors import SampleError, UsageError


def files_of(*paths: str, source: int = 0) -> list[SourceFile]:
    return [SourceFile(source=source, path=path, uri=path, size=9) for path in paths]


def table(text: str | bytes, label: str | None = "kind", patient: str | None = None, missing=None) -> LabelTable:
    data = text if isinstance(text, bytes) else text.encode()
    columns = [column for column in (label, patient) if column]
    parsed = parse_table(data, columns, "t.csv")
    return LabelTable(parsed=parsed, where="t.csv", label_column=label, patient_column=patient, missing=missing)


def match_files(one: LabelTable, files: list[SourceFile], folders: list[str], *roots) -> tuple[Labels, list[str]]:
    return match_table(one, files, files, folders, *roots)


def labels_of(text: str | bytes, *paths: str, **options) -> dict[str, str | None]:
    """Labels of files, by path."""
    labels, _ = match_files(table(text, **options), files_of(*paths), ["raw"])
    return {path: labels.of([(0, path)]).label for path in paths}


def message(text: str, *paths: str, **options) -> str:
    return "\n".join(match_files(table(text, **options), files_of(*paths), ["raw"])[1])


def refusal(text: str | bytes, *paths: str, **options) -> str:
    with pytest.raises(UsageError) as caught:
        match_files(table(text, **options), files_of(*(paths or ("a.png", "b.png"))), ["raw"])
    return str(caught.value)


DIALECTS = st.builds(
    dict,
    delimiter=st.sampled_from(",;\t|"),
    lineterminator=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12).map(
    lambda text: unicodedata.normalize("NFC", text.strip())
)
VALUES = WORDS.filter(lambda text: text and not is_missing(text) and not text.startswith('"'))


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8),
    dialect=DIALECTS,
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    swapped=st.booleans(),
)
@pytest.mark.integration
def test_tables_of_all_dialects_are_read_as_they_were_written(rows, dialect, encoding, swapped):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, **dialect)
    order = (1, 0) if swapped else (0, 1)
    for row in [("path", "kind"), *rows]:
        writer.writerow([row[n] for n in order])
    parsed = parse_table(stream.getvalue().encode(encoding), ["kind"], "t.csv")

    assert [(row.path, row.cells["kind"]) for row in parsed.rows] == rows
    assert not parsed.problems


def test_excels_table_is_read_with_quotes_commas_and_line_ends_in_cells():
    data = b'\xef\xbb\xbfpath,kind\r\n"a.png","effusion, left"\r\nb.png,"a\nb"\r\nc.png,none\r\nd.png,x\r\n'

    assert labels_of(data, "a.png", "b.png", "c.png", "d.png") == {
        "a.png": "effusion, left",
        "b.png": "a\nb",
        "c.png": "none",
        "d.png": "x",
    }
    assert labels_of("sep=;\r\npath;kind\r\na.png;x\r\n", "a.png") == {"a.png": "x"}
    assert labels_of("path;kind;\na.png;x;\n;;\n\n", "a.png") == {"a.png": "x"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("path,kind\n", "no rows"),
        ("path,kind\n,\n\n", "no rows"),
        ("path,kin\na.png,x\n", "did you mean kin"),
        ("path\tkin\na.png\tx\n", "did you mean kin"),
        ("file,kind\na.png,x\n", "unknown column 'path'"),
        ("path,kind,kind\na.png,x,y\n", "'kind' stands 2 times"),
        ('path,kind\na.png,"x\nb.png,y\n', "quote is not closed"),
        ("path,kind\na.png,Ödem\n".encode("latin-1"), "byte 0xD6 in line 2 is not UTF-8"),
        ("path,kind\na.png,x\n".encode("utf-16-le"), "NUL"),
        ("path,kind\na.png,x\n".encode("utf-32"), "UTF-32"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00b\xee\x9dh", "UTF-8"),
    ],
)
def test_what_is_no_table_is_refused_in_a_sentence(text, sentence):
    assert sentence in refusal(text)


def test_all_faults_of_a_table_are_told_at_once_with_their_lines():
    text = 'path,kind,who\na.png,x,1\nb.png,y\n"c\n.png",z,1,2\na.png,v,1\n,w,3\n./b.png,q,3\nb.png,r,3\nd.png, "x",4\n'
    said = refusal(text, patient="who")

    assert "6 problems" in said
    assert "line 3: has 2 cells; the header has 3" in said
    assert "line 4: has 4 cells" in said
    assert "line 7: has no path" in said
    assert "'a.png': stands there with several values of kind: 'x' in line 2, 'v' in line 6" in said
    assert "'q' in line 8, 'r' in line 9" in said
    assert "line 10: a blank stands before a quote" in said


def test_rows_that_agree_may_repeat_in_every_spelling():
    text = "path,kind,who\na.png,x,\n./a.png,x,p\nraw/a.png,,p\nraw\\a.png,x,nan\n"
    labels, _ = match_files(table(text, patient="who"), files_of("a.png"), ["raw"])

    assert labels.of([(0, "a.png")]) == Known(label="x", patient_id="p")


def test_patients_of_one_file_that_differ_are_refused_and_the_column_is_named():
    assert "several values of who: 'p' in line 2, 'q' in line 3" in refusal(
        "path,who\na.png,p\n./a.png,q\n", label=None, patient="who"
    )


@pytest.mark.parametrize("cell", ["nan", "NaN", "NA", "N/A", "None", "null", "NULL", "", "  ", "<NA>", "#N/A", "NaT"])
def test_missing_values_are_no_class_and_no_patient(cell):
    """One patient called nan would put everybody into one split."""
    text = f"path,kind,who\na.png,x,p\nb.png,{cell},{cell}\nc.png,{cell},{cell}\n"
    labels, said = match_files(table(text, patient="who"), files_of("a.png", "b.png", "c.png"), ["raw"])

    assert labels.of([(0, "b.png")]) == labels.of([(0, "c.png")]) == Known()
    assert f"2 of 3 rows have no kind ({cell.strip() or 'blank'} 2; see --missing-values)" in said
    assert any("2 of 3 rows have no who" in line for line in said)


@pytest.mark.parametrize("cell", ["none", "na", "nan1", "Nana", "0", "False", "inf"])
def test_words_that_only_look_like_missing_are_classes(cell):
    assert labels_of(f"path,kind\na.png,{cell}\n", "a.png") == {"a.png": cell}


def test_who_has_a_class_called_na_says_which_words_are_missing():
    text = "path,kind\na.png,NA\nb.png,?\nc.png,\n"

    assert labels_of(text, "a.png", "b.png", "c.png", missing=frozenset({"?"})) == {"a.png": "NA", "b.png": None, "c.png": None}


@pytest.mark.parametrize(
    "spelled", ["a/é 1.png", "./a/é 1.png", "a\\é 1.png", " a/é 1.png ", "/a//é 1.png", "raw/a/é 1.png", "a/e\u0301 1.png"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_spelling_of_a_path_names_the_file(spelled, form):
    path = unicodedata.normalize(form, "a/é 1.png")

    assert labels_of(f"path,kind\n{spelled},x\n", path, "b.png") == {path: "x", "b.png": None}


def test_absolute_paths_below_a_source_are_understood():
    labels, _ = match_files(table("path,kind\n/data/raw/a.png,x\n"), files_of("a.png"), ["raw"], [("/data/raw",)])

    assert labels.of([(0, "a.png")]).label == "x"


def test_the_exact_spelling_wins_and_a_name_for_two_files_is_refused():
    forms = [unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD")]
    both = labels_of(f"path,kind\n{forms[0]},c\n{forms[1]},d\n back\\slash.png,x\n", *forms, " back\\slash.png", "back/slash.png")

    assert both == {forms[0]: "c", forms[1]: "d", " back\\slash.png": "x", "back/slash.png": None}
    assert "names 2 inputs" in refusal(f"path,kind\n./{forms[0]},c\n", *forms)


def test_a_path_that_two_sources_hold_is_refused_until_the_source_is_named():
    files = files_of("a.png") + files_of("a.png", source=1)
    with pytest.raises(UsageError, match=r"line 2: 'a\.png' names 2 inputs: 'ct/a\.png' and 'mr/a\.png'"):
        match_files(table("path,kind\na.png,x\n"), files, ["ct", "mr"])
    labels, _ = match_files(table("path,kind\nmr/a.png,x\n"), files, ["ct", "mr"])

    assert (labels.of([(0, "a.png")]).label, labels.of([(1, "a.png")]).label) == (None, "x")


def test_a_path_that_one_source_holds_from_itself_and_from_its_parent_is_refused():
    """A source called raw that holds a folder called raw: every file keeps a path that is its alone."""
    files = ["img1.png", "raw/img1.png", "raw/img2.png"]
    for row in ("raw/img1.png", "./raw//img1.png", "raw"):
        assert "names 2 inputs" in refusal(f"path,kind\n{row},x\n", *files)
    both = labels_of("path,kind\nimg1.png,outer\nraw/raw/img1.png,inner\nraw/img2.png,other\n", *files)

    assert both == {"img1.png": "outer", "raw/img1.png": "inner", "raw/img2.png": "other"}
    rows = table("path,kind\n/data/raw/raw/img1.png,x\n")
    labels, _ = match_files(rows, files_of(*files), ["raw"], [("/data/raw",)])
    assert [labels.of([(0, path)]).label for path in files] == [None, "x", None]


def test_extensions_and_case_are_part_of_a_name():
    assert "names none of the inputs" in refusal("path,kind\nA.png,x\nb.PNG,y\n")


def test_the_nearest_row_counts():
    text = "path,kind\np1,sick\np1/s2,well\np1/s2/3.png,odd\n"

    assert labels_of(text, "p1/s1/1.png", "p1/s2/2.png", "p1/s2/3.png", "p2/1.png") == {
        "p1/s1/1.png": "sick",
        "p1/s2/2.png": "well",
        "p1/s2/3.png": "odd",
        "p2/1.png": None,
    }


def test_how_well_table_and_files_fit_is_told_with_counts_and_examples():
    said = message("path,kind\na.png,x\n b.png,y\ngone.png,z\n", "a.png", "b.png", "c.png", "d.png")

    assert "2 of 4 files named; 2 without, such as 'c.png'" in said
    assert "1 of 3 rows name no file, such as 'gone.png' in line 4" in said


def test_files_that_are_no_inputs_are_counted_only_if_they_are_named():
    files = files_of("1.2.840.5", "notes.md", "readme.txt", "a.png")
    labels, said = match_table(table("path,kind\n1.2.840.5,x\nnotes.md,y\n"), files, files[3:], ["raw"])

    assert labels.of([(0, "1.2.840.5")]).label == "x"
    assert "2 of 3 files named; 1 without, such as 'a.png'" in said


def test_values_that_mean_one_thing_and_are_spelled_as_two_are_told():
    assert "kind has '1' and '1.0', which are kept apart" in message("path,kind\na.png,1\nb.png,1.0\n", "a.png", "b.png")
    for hidden in ("\u200b", "\xad", "\u2060", "\ufeff", "\ufe0f", "\u2800"):
        assert "which are kept apart" in message(f"path,kind\na.png,A\nb.png,A{hidden}\n", "a.png", "b.png")
    assert "which are kept apart" in message("path,kind\na.png,A B\nb.png,A\xa0B\n", "a.png", "b.png")
    assert "which are kept apart" not in message("path,kind\na.png,A\nb.png,B\n", "a.png", "b.png")
    assert "kind has 'Sick' and 'sick'" in message("path,kind\na.png,Sick\nb.png,sick\n", "a.png", "b.png")


def test_a_table_that_names_no_file_or_says_nothing_of_them_is_refused():
    assert "names none of the inputs" in refusal("path,kind\nx/y.png,x\n")
    assert "no value for any of them in column 'kind'" in refusal("path,kind\na.png,nan\nb.png,\n")


def test_a_series_takes_its_label_from_its_folder_its_uid_or_all_of_its_slices():
    slices = [f"s/{n}.dcm" for n in range(4)]
    keys = [(0, path) for path in slices]
    for rows in (["s"], ["raw/s"], ["1.2.840.55.7"], slices, ["s", "s/2.dcm"], ["1.2.840.55.7", "s/2.dcm"]):
        labels, _ = match_files(table("\n".join(["path,kind", *(f"{row},x" for row in rows)])), files_of(*slices), ["raw"])
        assert labels.of(keys, "1.2.840.55.7").label == "x"
    with pytest.raises(SampleError) as caught:
        match_files(table("path,kind\ns/1.dcm,x\ns/2.dcm,y\n"), files_of(*slices), ["raw"])[0].of(keys)
    assert caught.value.rule == "label_conflict"
    assert "'x' (1), 'y' (1)" in caught.value.reason
    labels, _ = match_files(table("path,who\ns/1.dcm,x\ns,y\n", label=None, patient="who"), files_of(*slices), ["raw"])
    with pytest.raises(SampleError) as caught:
        labels.of(keys)
    assert caught.value.rule == "patient_conflict"
    assert "'x'" not in caught.value.reason


@pytest.mark.parametrize("what", ["label", "patient"])
@pytest.mark.parametrize("rows", [["s/2.dcm,x"], ["s/0.dcm,x", "s/1.dcm,x", "s/2.dcm,x"], ["s,x", "s/3.dcm,nan"]])
def test_what_a_table_says_of_some_slices_is_not_said_of_the_series(rows, what):
    """A finding in one slice, or a row that was forgotten: which it is cannot be known."""
    columns = {"label": None, "patient": "kind"} if what == "patient" else {}
    slices = [f"s/{n}.dcm" for n in range(4)]
    labels, _ = match_files(table("\n".join(["path,kind", *rows]), **columns), files_of(*slices), ["raw"])
    with pytest.raises(SampleError, match=rf"names a {what} for \d of 4 slices .* name its folder") as caught:
        labels.of([(0, path) for path in slices], "1.2.840.55.7")
    assert caught.value.rule == f"partial_{what}"


def test_a_row_of_one_copy_of_a_slice_is_enough():
    files = ["a/0.dcm", "a/1.dcm", "b/0.dcm", "b/1.dcm"]
    keys = [(0, path) for path in files]
    labels, _ = match_files(table("path,kind\na,x\n"), files_of(*files), ["raw"])

    assert labels.of(keys, places=[0, 1, 0, 1]).label == "x"
    with pytest.raises(SampleError, match="2 of 3 slices"):
        labels.of(keys, places=[0, 1, 0, 2])


def test_rows_with_the_uid_of_a_series_are_held_against_the_scan():
    rows = table("path,kind\n1.2.3.4,x\n1.2.3.5,y\n")
    labels, said = match_files(rows, files_of("a.dcm"), ["raw"])

    assert "2 rows name no file, but look like series UIDs, and wait for the scan" in said
    assert match_series(rows, labels, {"1.2.3.4", "9"}) == ["1 of 2 rows with a series UID name one of the 2 series"]
    with pytest.raises(UsageError, match="names none of the inputs"):
        match_series(rows, labels, {"9"})


def test_a_label_by_folder_is_the_nearest_folder_that_somebody_chose():
    assert find_label("sick/1.png", "raw") == "sick"
    assert find_label("1.png", "raw") == "raw"
    assert find_label("sick/.cache/small/1.png", "raw") == "sick"
    assert find_label("sick/__MACOSX/1.png", "raw") == "sick"
    assert find_label("1.png", ".data") is None
    both = Labels(by_file={(0, "a"): Known(patient_id="p")}).with_folders({(0, "a"): "sick"})
    assert both.of([(0, "a")]) == Known(label="sick", patient_id="p")


def test_labels_are_found_by_file_by_series_folder_and_below_the_sources_parent(tmp_path: Path):
    (tmp_path / "labels.csv").write_text("path,kind,who\nraw/a/1.png,sick,p1\na/2.png,well,p2\nseries,sick,\n")
    read = read_labels(Bucket(str(tmp_path / "labels.csv")), "kind", "who")
    labels, _ = match_files(read, files_of("a/1.png", "a/2.png", "series/IM1", "b/3.png"), ["raw"])

    assert labels.of([(0, "a/1.png")]) == Known(label="sick", patient_id="p1")
    assert labels.of([(0, "a/2.png")]) == Known(label="well", patient_id="p2")
    assert labels.of([(0, "series/IM1")]) == Known(label="sick")
    assert labels.of([(0, "b/3.png")]) == Known()
    with pytest.raises(UsageError, match="did you mean kind"):
        read_labels(Bucket(str(tmp_path / "labels.csv")), "kinds", None)
    with pytest.raises(UsageError, match="is a folder"):
        read_labels(Bucket(str(tmp_path)), "kind", None)
