"""Pseudonyms: HMAC-SHA256 with kinds kept apart, and nothing that tells the key."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.pseudonym import MIN_KEY_BYTES, PseudonymKey
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Split
from tests.training.published import images

KEYS = st.binary(min_size=MIN_KEY_BYTES, max_size=200).map(PseudonymKey)


@given(KEYS, st.text())
def test_a_patient_is_the_hmac_that_the_specification_states(key, identifier):
    """RFC 2104 written out: the inner and the outer hash over the padded key."""
    secret = key.secret if len(key.secret) <= 64 else hashlib.sha256(key.secret).digest()
    padded = secret.ljust(64, b"\0")
    message = f"patient:{identifier}".encode("utf-8", "surrogateescape")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + message).digest()

    assert key.patient(identifier) == hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner).hexdigest()[:16]


def test_openssl_gives_the_same_hash():
    key = PseudonymKey(b"sixteen or more bytes")
    line = ["openssl", "dgst", "-sha256", "-hmac", "sixteen or more bytes"]
    try:
        found = subprocess.run(line, input=b"patient:4711193", capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("openssl is not installed")

    assert key.patient("4711193") == found.decode().split()[-1][:16]


@given(KEYS, KEYS, st.text(max_size=20), st.text(max_size=20))
def test_equal_things_have_equal_pseudonyms_and_others_do_not(key, other, first, second):
    for kind in ("patient", "uid", "name"):
        assert (getattr(key, kind)(first) == getattr(key, kind)(second)) == (first == second)
    assert len({key.patient(first), key.uid(first), key.name(first).removeprefix("hashed:")[:16]}) == 3
    same = key.secret.ljust(64, b"\0") == other.secret.ljust(64, b"\0")  # HMAC pads keys with zeros
    assert (key.patient(first) == other.patient(first)) == same


@given(KEYS)
def test_a_key_is_named_and_not_told(key):
    assert key.key_id != key.patient("")
    assert key.secret.hex() not in repr(key)
    assert repr(key) == "PseudonymKey()"


def test_names_that_are_not_utf8_have_pseudonyms_too():
    key = PseudonymKey(bytes(16))

    assert key.name("M\udcfcller.png") != key.name("Müller.png")


@pytest.mark.parametrize("length", [0, 1, MIN_KEY_BYTES - 1])
def test_a_key_that_could_be_guessed_is_refused(length):
    with pytest.raises(UsageError, match=f"at least {MIN_KEY_BYTES} bytes; found {length}"):
        PseudonymKey(bytes(length))


def test_a_split_keeps_patients_together_or_divides_files():
    """One patient's samples are in one part; by file they are drawn one by one, by content."""
    samples = [replace(sample, patient="p") for sample in images(60)]
    by_patient, by_file = (
        [SplitRule(test_fraction=0.5, by=by).part_of(sample) for sample in samples] for by in ("patient", "file")
    )

    assert len(set(by_patient)) == 1
    assert 15 < by_file.count(Split.TEST) < 45
    assert by_file == [SplitRule(test_fraction=0.5).part_of(replace(sample, patient=None)) for sample in samples]


@pytest.mark.parametrize(
    "rule", [{"test_fraction": 1.0}, {"test_fraction": -0.1}, {"test_fraction": float("nan")}, {"by": "day"}]
)
def test_a_split_that_cannot_be_is_refused(rule):
    with pytest.raises(UsageError):
        SplitRule(**rule)
