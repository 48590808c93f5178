"""Settings and what they mean: as lists, and as a schema that accepts what the reader of settings accepts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import jsonschema
import pytest
import yaml

from crossdim.foundation.setting_list import format_table, list_settings
from crossdim.foundation.setting_meanings import read_meanings
from crossdim.foundation.setting_schema import build_settings_schema
from crossdim.foundation.settings import to_document
from crossdim.foundation.yaml_text import format_value, write_yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part.

    Attributes:
        side (voxels): side of a box, which may
            be long. Of three axes.
    """

    side: int = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Larger(Part):
    """A part with more.

    Attributes:
        edge: ``pad`` fills up; ``drop`` leaves out.
    """

    kind: ClassVar[str] = "larger"
    edge: Literal["pad", "drop"] = "pad"


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """Everything.

    Attributes:
        part: of a family.
        group: of settings.
        rate: speed.
    """

    part: Part = field(default_factory=Larger)
    group: Larger | None = None
    rate: float | None = None
    sides: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()


FAMILIES = {Part: {"larger": Larger}}


def test_a_meaning_is_read_with_its_unit_and_those_of_base_classes() -> None:
    found = read_meanings(Larger)
    assert found["side"].text == "side of a box, which may be long. Of three axes."
    assert (found["side"].line, found["side"].unit) == ("side of a box, which may be long", "voxels")
    assert (found["edge"].text, found["edge"].unit) == ("pad fills up; drop leaves out.", "")


def test_every_setting_is_listed_with_its_path_and_type() -> None:
    found = {one.path: one for one in list_settings(Whole(), FAMILIES)}
    assert list(found) == ["part", "part.side", "part.edge", "group", "rate", "sides", "names"]
    assert (found["part"].value, found["part"].type) == ("larger", "larger")
    assert (found["part.side"].value, found["part.side"].meaning.unit) == (8, "voxels")
    types = {path: found[path].type for path in ("part.edge", "rate", "sides", "names", "group")}
    assert types == {
        "part.edge": "pad | drop",
        "rate": "float or null",
        "sides": "2 x int",
        "names": "list of text",
        "group": "larger or null",
    }


def test_the_columns_of_a_table_are_aligned() -> None:
    assert format_table([["a", "bb", "c"], ["aaa", "b", "cc"]], "lrl") == ["a    bb  c", "aaa   b  cc"]


def test_the_schema_accepts_a_document_and_refuses_what_the_reader_refuses() -> None:
    schema = build_settings_schema(Whole, FAMILIES, Whole())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    check.validate(to_document(Whole()))
    assert schema["properties"]["sides"]["default"] == [1, 2]
    assert schema["properties"]["rate"]["description"] == "speed."
    for wrong in ({"rat": 1}, {"rate": "fast"}, {"sides": [1]}, {"sides": [1, 2, 3]}, {"part": {"kind": "x"}}, {"names": [1]}):
        with pytest.raises(jsonschema.ValidationError):
            check.validate(wrong)


@pytest.mark.parametrize("value", ["2:16", "yes", "1e-3", "a: b", "null", "ü", "#", 1e-5, 1e22, None, True, [1, [2.5, "x"]], {}])
def test_values_are_read_back_as_they_were_written(value: object) -> None:
    assert yaml.safe_load(f"a: {format_value(value)}")["a"] == value


def test_comments_stand_behind_their_values() -> None:
    text = write_yaml({"a": 1, "b": {"c": "x", "d": [1, 2]}}, {"a": "one", "b.d": "two"})
    assert text == "a: 1         # one\nb:\n  c: x\n  d: [1, 2]  # two"
    assert yaml.safe_load(text) == {"a": 1, "b": {"c": "x", "d": [1, 2]}}
