"""Errors are sentences, and they survive the way from a Ray worker to the terminal."""

from __future__ import annotations

import pickle

import pytest

from crossdim.storage_schema.errors import (
    CrossdimError,
    DocumentError,
    NoSampleError,
    Problem,
    SampleError,
    describe_unknown_name,
)

TWO = [Problem(loc="a.b", message="is missing"), Problem(loc="c", message="found 1; expected str")]


def family(kind: type[CrossdimError]) -> list[type[CrossdimError]]:
    return [kind, *(member for child in kind.__subclasses__() for member in family(child))]


def example(kind: type[CrossdimError]) -> CrossdimError:
    arguments = {
        DocumentError: ("s3://b/manifest.json does not fit", TWO),
        NoSampleError: ("no input of /in became a sample", "no input became a sample"),
        SampleError: ("truncated", "a.dcm ends after 7 bytes"),
    }
    return kind(*arguments.get(kind, ("one sentence with what to do",)))


@pytest.mark.parametrize("kind", family(CrossdimError))
def test_every_error_survives_pickle(kind):
    """Unpickling calls the class with ``args``; an error that keeps its own would arrive as a TypeError about __init__."""
    error = example(kind)
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is kind
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)


def test_a_document_error_shows_every_problem_on_a_line_of_its_own():
    """The shape that people and tests rely on."""
    assert str(DocumentError("x", TWO)) == "x (2 problems)\n  a.b: is missing\n  c: found 1; expected str"
    assert str(DocumentError("x", TWO[:1])) == "x (1 problem)\n  a.b: is missing"


def test_a_sample_error_ends_with_its_rule():
    """Quarantine is counted by rule and read by reason."""
    assert str(SampleError("truncated", "a.dcm ends early")) == "a.dcm ends early [truncated]"


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    """Typing errors are most of wrong use."""
    assert (
        describe_unknown_name("verb", "prepair", ["verify", "prepare"])
        == "unknown verb 'prepair'; did you mean prepare? Known: prepare, verify"
    )
    assert "none is near" in describe_unknown_name("verb", "zzz", ["verify", "prepare"])
