"""Encoder files: no number of one changes unseen, none runs a program, and older ones still load."""

from __future__ import annotations

import io
import logging
import random
from pathlib import Path

import pytest
import torch

from storage_schema.errors import CrossdimError, RunError, StorageError
from training.backbones import build_encoder, encoder_bytes, load_encoder
from training.backbones.base import EncoderSpec
from training.backbones.strided import StridedSettings
from training.torch_file import tensor_hash

OLD = Path(__file__).parents[1] / "golden" / "version_1" / "run" / "encoder.pt"
SPEC = EncoderSpec.of(StridedSettings())
SEED = 20261126


@pytest.fixture(scope="module")
def file() -> bytes:
    torch.manual_seed(0)
    return encoder_bytes(build_encoder(SPEC).state_dict(), SPEC)


def _document(data: bytes) -> dict[str, object]:
    found: dict[str, object] = torch.load(io.BytesIO(data), weights_only=True)
    return found


def _stored(document: object) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return io.BytesIO(buffer.getvalue())


def test_what_is_saved_is_loaded(file: bytes) -> None:
    encoder, spec = load_encoder(io.BytesIO(file))
    weights = _document(file)["weights"]
    assert isinstance(weights, dict)
    assert (spec, encoder.training) == (SPEC, False)
    assert encoder.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("age", ["new", "old"])
def test_no_flipped_bit_changes_a_weight_unseen(age: str, file: bytes) -> None:
    """``torch.load`` alone takes most of them: it looks at no checksum. An older file has those of its archive."""
    file = OLD.read_bytes() if age == "old" else file
    encoder, written = load_encoder(io.BytesIO(file))
    chance, weights = random.Random(SEED), encoder.state_dict()
    refused = 0
    for bit in chance.sample(range(8 * len(file)), 300):
        changed = bytearray(file)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found, spec = load_encoder(io.BytesIO(bytes(changed)))
        except CrossdimError:
            refused += 1
            continue
        assert spec == written
        assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())
    assert refused > 150


def test_a_weight_that_was_changed_by_a_program_is_named(file: bytes) -> None:
    """The archive is sound; only the hash of the tensor tells."""
    document = _document(file)
    weights = document["weights"]
    assert isinstance(weights, dict)
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1e-6
    with pytest.raises(StorageError, match=f"1 of {len(weights)} tensors have not the hash .*{name}"):
        load_encoder(_stored(document))


def test_a_spec_that_was_changed_is_refused(file: bytes) -> None:
    document = _document(file)
    spec = document["spec"]
    assert isinstance(spec, dict)
    spec["normalisation"] = "none"
    with pytest.raises(StorageError, match="its spec or the list of its hashes"):
        load_encoder(_stored(document))


def test_the_hash_of_a_tensor_knows_type_shape_and_sign() -> None:
    numbers = torch.tensor([0.0, -0.0, 1.0, 2.0])
    several = [numbers, numbers.double(), numbers.reshape(2, 2), numbers.flip(0), numbers.abs(), numbers.bfloat16()]
    assert len({tensor_hash(tensor) for tensor in several}) == len(several)
    assert tensor_hash(numbers.reshape(2, 2).t()) == tensor_hash(numbers.reshape(2, 2).t().contiguous())
    assert tensor_hash(torch.tensor(3.0)) != tensor_hash(torch.tensor([3.0]))


def test_an_older_file_is_loaded_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_encoder(OLD)
    assert "before encoders had hashes" in caplog.text


class _Program:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    "document",
    [
        *([], 7, {}, {"weights": {}}, {"spec": {}, "weights": {}, "sha256": {}, "more": 1}, {"spec": {}, "weights": {}}),
        *({"spec": [], "weights": {}}, {"spec": {}, "weights": {"a": 3}}, {"spec": {"a": {1, 2}}, "weights": {}, "sha256": 1}),
        {"spec": SPEC.document() | {"backbone": "none"}, "weights": {}},
        {"spec": SPEC.document() | {"settings": {"width": "wide"}}, "weights": {}},
        {"spec": SPEC.document(), "weights": {"a": torch.zeros(2)}},
    ],
)
def test_what_holds_no_encoder_is_a_sentence(document: object) -> None:
    with pytest.raises(RunError, match=r"encoder: |unknown backbone"):
        load_encoder(_stored(document))


@pytest.mark.parametrize("data", [b"", b"PK", b"\0" * 1000, b"\x80\x02}q\x00."])
def test_what_is_no_file_of_pytorch_is_a_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "encoder.pt").write_bytes(data)
    with pytest.raises(StorageError, match=r"encoder\.pt: is no whole file of PyTorch"):
        load_encoder(tmp_path / "encoder.pt")


def test_a_program_in_it_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError, match="holds data alone"):
        load_encoder(_stored({"spec": _Program(), "weights": {}}))
    assert capsys.readouterr().out == ""
