"""Encoder files: no number of one changes unseen, none runs a program, and older ones still load."""

from __future__ import annotations

import io
import logging
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import CrossdimError, RunError, StorageError
from crossdim.training import backbones
from crossdim.training.backbones import build_encoder, load_encoder, serialise_encoder
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.backbones.strided import StridedSettings
from crossdim.training.backbones.vit3d import ViT3DSettings
from crossdim.training.torch_file import tensor_hash, tensor_hashes

OLD = Path(__file__).parents[2] / "golden" / "version_1" / "run" / "encoder.pt"
SPEC = EncoderSpec.of(StridedSettings())
SEED = 20261126


@pytest.fixture(scope="module")
def file() -> bytes:
    torch.manual_seed(0)
    return serialise_encoder(build_encoder(SPEC).state_dict(), SPEC)


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
@pytest.mark.integration
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


class _Bytes:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (bytearray, (2**20,))


def test_bytes_by_their_number_alone_are_refused() -> None:
    """``weights_only`` would take as many as the file says."""
    with pytest.raises(StorageError, match="holds a bytearray"):
        load_encoder(_stored({"spec": _Bytes(), "weights": {}}))


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


def _resealed(file: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> io.BytesIO:
    """An encoder file that somebody changed and gave the right hashes."""
    document: dict[str, Any] = _document(file)
    change(document["spec"], document["weights"])
    hashes = {"spec": digest(document["spec"]), "weights": tensor_hashes(document["weights"])}
    return _stored(document | {"sha256": hashes})


def _first(weights: dict[str, Any]) -> str:
    return next(name for name, value in weights.items() if value.ndim)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda spec, _, value=value: spec.update(num_features=value) for value in ("x", 10**9, -1, True, None)),
        *(lambda spec, _, value=value: spec.update(in_channels=value) for value in (7, 1.0, "1")),
        lambda spec, _: spec.update(side_multiple=3),
        lambda spec, _: spec.update(normalisation=3),
        lambda spec, _: spec.update(pseudo3d=3),
        lambda spec, _: spec.update(preprocessing_digests="x"),
        lambda spec, _: spec.update(backbone=["strided"]),
        *(lambda spec, _, value=value: spec["settings"].update(widths=value) for value in ([10**30] * 3, "abc", [-1, 2, 4])),
        lambda _, weights: weights.update({_first(weights): weights[_first(weights)] * float("nan")}),
        lambda _, weights: weights.update({_first(weights): weights[_first(weights)].double()}),
        lambda _, weights: weights.pop(_first(weights)),
        lambda _, weights: weights.update(more=torch.zeros(1)),
    ],
)
def test_a_spec_and_weights_with_right_hashes_are_held_to_the_network(change: Any, file: bytes) -> None:
    with pytest.raises(CrossdimError, match="encoder: holds no encoder that this release can build"):
        load_encoder(_resealed(file, change))


@pytest.mark.parametrize("widths", [[3000] * 4, [100_000] * 4])
def test_a_network_larger_than_its_file_is_never_built(widths: list[int], file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the meta device, on which a tensor takes no memory, is used for it."""
    stated = EncoderSpec.of(StridedSettings(widths=tuple(widths)))
    huge = _resealed(file, lambda spec, _: spec.update(stated.document()))
    monkeypatch.setattr(backbones, "build_encoder", lambda spec: pytest.fail("it was built"))
    with pytest.raises(RunError, match=r"names of weights|expected torch"):
        load_encoder(huge)


def test_a_network_of_more_layers_than_its_file_has_is_refused_while_it_is_built(file: bytes) -> None:
    deep = EncoderSpec.of(ViT3DSettings(depth=10**9))
    with pytest.raises(RunError, match="more than"):
        load_encoder(_resealed(file, lambda spec, _: spec.update(deep.document())))


def test_a_view_that_states_more_numbers_than_the_file_has_is_refused_before_it_is_hashed(file: bytes) -> None:
    document: dict[str, Any] = _document(file)
    document["weights"][_first(document["weights"])] = torch.zeros(1).expand(10**6, 10**6)
    with pytest.raises(RunError, match="its weights are not tensors"):
        load_encoder(_stored(document))


@pytest.mark.parametrize("kind", ["deflated", "twice"])
def test_a_file_that_grows_when_it_is_read_is_refused(kind: str, file: bytes) -> None:
    """Compressed, or with one member listed many times: sizes that the file does not have."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as members, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in members.namelist():
            data = bytes(2**20) if name.endswith("data/0") else members.read(name)
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED)
        if kind == "twice":
            archive.filelist += archive.filelist * 2
    with pytest.raises(StorageError, match="is compressed" if kind == "deflated" else "its members state"):
        load_encoder(io.BytesIO(packed.getvalue()))
