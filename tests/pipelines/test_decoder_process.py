"""The decoder process: whatever a codec does there ends as a refusal of its own input, and the next input is read."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossdim.pipelines import decoder_process
from crossdim.pipelines.decoder_process import client, limits, requests
from crossdim.pipelines.decoder_process.limits import Limits, compute_limits
from crossdim.pipelines.decoder_process.messages import SHARED_BYTES, Channel, NotAMessage, create_shared_memory
from crossdim.pipelines.quarantine import apply_steps
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.stages.resize import Fit, FitStage
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import CrossdimError, SampleError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality
from tests.pipelines.corpora import nifti_bytes

pytestmark = pytest.mark.integration


ITEM = RawItem(uri="x", files=(b"pixels",), modality=Modality.CT, label="sick", patient="p")


@pytest.fixture
def misbehaving(monkeypatch):
    """Decoders of ``tests/pipelines/decoder_server.py``, in a process that ends with the test."""
    client.discard()
    monkeypatch.setattr(client, "SERVER", "tests.pipelines.decoder_server")
    yield
    client.discard()


def refusal(decoder: str) -> SampleError:
    with pytest.raises(SampleError) as caught:
        decoder_process.decode(decoder, ITEM)
    return caught.value


def sound() -> dict[str, object]:
    return decoder_process.decode("sound", ITEM).extra


def processes_of(group: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[3]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def left_of(group: int) -> list[int]:
    """Processes of a session that do not end within 20 seconds."""
    deadline = time.monotonic() + 20
    while processes_of(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_of(group)


@pytest.mark.parametrize(
    ("decoder", "rule", "says"),
    [
        ("abort", "decoder_died", "SIGABRT"),
        ("segfault", "decoder_died", "SIGSEGV"),
        ("exit", "decoder_died", "exit code 7"),
        ("panic", "decoder_died", "panic"),
        ("memory_in_python", "decoder_memory", "1,024 MiB"),
        ("nonsense", "AttributeError", "shape"),
        ("warned", "codec_warning", "Corrupt JPEG data: premature end of data segment"),
    ],
)
def test_what_a_codec_does_ends_as_one_refusal_and_the_next_input_is_read(misbehaving, decoder, rule, says):
    sound()
    first, second = refusal(decoder), refusal(decoder)

    assert (first.rule, first.reason) == (second.rule, second.reason)
    assert first.rule == rule
    if rule != "AttributeError":
        assert says in first.reason
    assert sound()["pid"] != os.getpid()


def test_native_code_gets_no_more_memory_than_the_limit(misbehaving):
    assert refusal("memory_in_native_code").reason.endswith("0 GiB were given")


def test_a_codec_that_does_not_come_to_an_end_is_ended(misbehaving, monkeypatch):
    monkeypatch.setattr(limits, "BASE_CPU_S", 1)
    monkeypatch.setattr(limits, "WALL_PER_CPU", 4)

    for decoder in ("busy", "waiting"):
        begun = time.monotonic()
        assert refusal(decoder).rule == "decoder_slow"
        assert time.monotonic() - begun < 20
    assert sound()["seen"] == 1


def test_harm_that_one_input_leaves_behind_is_not_laid_to_the_next(misbehaving):
    """A used process that dies says nothing about the input: it is asked of a new one."""
    decoder_process.decode("poisonous", ITEM)

    assert sound()["seen"] == 1


def test_a_process_that_died_at_rest_has_not_taken_the_next_input(misbehaving):
    for data in (b"first", b"second"):
        decoder_process.decode("dies_later", ITEM)
        time.sleep(0.5)
        assert bytes(decoder_process.decode("sound", replace(ITEM, files=(data,))).array) == data

    decoder_process.decode("dies_later", ITEM)
    time.sleep(0.5)
    assert "SIGABRT" in refusal("abort").reason


def test_a_process_that_does_not_start_is_said_and_not_tried_for_ever(misbehaving, monkeypatch):
    monkeypatch.setattr(client, "SERVER", "tests.pipelines.no_such_server")

    with pytest.raises(CrossdimError, match="does not start"):
        decoder_process.decode("sound", ITEM)


def test_a_decoder_that_the_system_kills_is_no_fault_of_the_input(misbehaving):
    with pytest.raises(MemoryError, match="memory is short"):
        decoder_process.decode("killed", ITEM)
    assert sound()["seen"] == 1


def test_a_decoder_process_is_used_again(misbehaving):
    assert [sound()["seen"] for _ in range(3)] == [1, 2, 3]
    assert len({sound()["pid"] for _ in range(3)}) == 1


def test_an_interrupted_request_leaves_no_answer_to_the_next(misbehaving, monkeypatch):
    sound()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(requests, "_read_sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decoder_process.decode("sound", replace(ITEM, files=(b"another",)))

    assert bytes(decoder_process.decode("sound", ITEM).array) == b"pixels"


def test_a_supervisor_that_was_killed_is_started_again(misbehaving):
    sound()
    assert client._running is not None
    client._running[1]._process.kill()
    client._running[1]._process.wait()

    assert sound()["seen"] == 1


def test_no_process_is_left_when_its_owner_is_killed():
    """The owner gets SIGKILL while its decoder is at work; supervisor and decoder end within seconds."""
    program = (
        "from tests.pipelines.test_decoder_process import ITEM, client, decoder_process\n"
        "client.SERVER = 'tests.pipelines.decoder_server'\n"
        "decoder_process.decode('sound', ITEM)\n"
        "print(client._running[1]._process.pid, flush=True)\n"
        "decoder_process.decode('waiting', ITEM)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        group = int(owner.stdout.readline())
        assert len(processes_of(group)) == 2
        owner.send_signal(signal.SIGKILL)

    assert left_of(group) == []


def test_the_decoder_process_holds_no_secret_of_its_owner(misbehaving, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    pid = sound()["pid"]

    assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_limits_grow_with_what_is_promised():
    small, large = (compute_limits(replace(ITEM, num_values=n), volume=True) for n in (0, 10**8))

    assert small == Limits(memory_bytes=2**30 + 3 * 6)
    assert large == Limits(memory_bytes=2**30 + 3 * 6 + 16 * 10**8, cpu_seconds=45)


def test_samples_and_facts_are_those_of_the_decoder_itself(real_data):
    """Held to the same functions in this process: every field, and every pixel, of pictures and volumes."""
    names = ("xray2d/0578e08b.png", "micro2d/BloodImage_00005.jpg", "dicom_single/jpeg_2000.dcm", "mr/seg3d_mr.nii.gz")
    for name, decoder in zip(names, ("png", "jpeg", "dicom", "nifti"), strict=True):
        data = (real_data / name).read_bytes()
        item = RawItem(uri=name, files=(data,), label="l", num_values=10**7)
        ours, theirs = decoder_process.decode(decoder, item), READERS[decoder].decode(item)

        assert np.array_equal(ours.array, theirs.array)
        assert ours.array.dtype == theirs.array.dtype
        assert replace(ours, array=theirs.array) == theirs
        read = data.__getitem__
        info = decoder_process.probe(name, len(data), lambda n, read=read: read(slice(n)), ReadRules())
        assert info == probe(name, len(data), lambda n, read=read: read(slice(n)), ReadRules())


def here(decoder: str, item: RawItem, stages: Sequence[Stage]) -> Sample:
    """What the decoder process does, in this process."""
    return reduce(lambda sample, stage: stage(sample), stages, READERS[decoder].decode(item))


def same(ours: Sample, theirs: Sample) -> bool:
    return (ours.array.dtype, ours.array.tobytes()) == (theirs.array.dtype, theirs.array.tobytes()) and (
        replace(ours, array=theirs.array) == theirs
    )


SMALL = FitStage(config=Fit(max_side=100), spec=Pseudo3D())


@pytest.mark.parametrize("spec", [Pseudo3D(), Pseudo3D(window=3, stride=3, layout="window", channel_mode="keep")])
@pytest.mark.parametrize("max_side", [64, 100, 10_000])
def test_images_come_back_fitted_and_no_larger(real_data, monkeypatch, spec, max_side):
    """Held to the same functions in this process; the bytes that travel back are those of the fitted image."""
    sizes = []

    def noted(message):
        sizes.append(message.num_bytes)
        return read_sample(message)

    read_sample = requests._read_sample
    monkeypatch.setattr(requests, "_read_sample", noted)
    stages = (FitStage(config=Fit(max_side=max_side), spec=spec),)
    names = ("xray2d/0578e08b.png", "micro2d/BloodImage_00005.jpg", "dicom_single/jpeg_2000.dcm")
    for name, decoder in zip(names, ("png", "jpeg", "dicom"), strict=True):
        item = RawItem(uri=name, files=((real_data / name).read_bytes(),), label="l", num_values=10**7)
        found = decoder_process.decode(decoder, item, stages)

        assert same(found, here(decoder, item, stages))
        assert sizes.pop() == found.array.nbytes


def png(pixels: np.ndarray) -> RawItem:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return RawItem(uri="x", files=(buffer.getvalue(),), num_values=pixels.size)


NOISE = np.random.default_rng(0).integers(0, 255, (50, 33), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "config", "stage", "rule"),
    [
        (NOISE[:2], Fit(max_side=64), "fit", "too_small"),
        (NOISE, Fit(max_side=64, crop="refuse"), "fit", "does_not_tile"),
        (np.zeros_like(NOISE), Fit(max_side=1), "decode", "constant"),
    ],
)
def test_refusals_name_the_stage_that_gave_them(pixels, config, stage, rule):
    """The rows of quarantine are those of the same steps in one process."""
    recipe = replace(resolve("xray-pseudo3d"), fit=config)
    found, expected = (
        apply_steps("x", png(pixels), recipe.steps(partial(decode, "png", stages=recipe.decoder_stages)))
        for decode in (decoder_process.decode, here)
    )
    alone = apply_steps("x", png(pixels), [("decode", READERS["png"].decode), ("fit", recipe.decoder_stages[0])])

    assert (found.stage, found.rule) == (stage, rule)
    assert found == alone
    assert found.reason == expected.reason


def test_what_a_codec_warns_of_goes_before_what_a_stage_refuses(misbehaving):
    """As where each had a process of its own; and a stage refuses as itself."""
    for decoder, stage, rule in (("warned", "decode", "codec_warning"), ("sound", "fit", "too_small")):
        found = apply_steps("x", ITEM, [("decode", partial(decoder_process.decode, decoder, stages=(SMALL,)))])
        assert (found.stage, found.rule) == (stage, rule)


def test_fitting_needs_no_more_memory_than_decoding_is_allowed(monkeypatch):
    """Shrunk by one pixel, which holds the most in floating point; next to nothing is left of what any input may take."""
    monkeypatch.setattr(limits, "BASE_MEMORY", 32 << 20)
    item = png(np.random.default_rng(0).integers(0, 4096, (3000, 3000), np.uint16))
    fitted = decoder_process.decode("png", item, (FitStage(config=Fit(max_side=2999), spec=Pseudo3D()),))

    assert fitted.array.shape == (1, 2996, 2996)


def test_the_mask_of_what_lies_outside_travels_too():
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    volume[1, 2] = np.nan
    item = RawItem(uri="x", files=(nifti_bytes(volume, (1, 1, 1)),), num_values=volume.size)
    ours, theirs = decoder_process.decode("nifti", item), READERS["nifti"].decode(item)

    assert theirs.outside is not None
    assert np.array_equal(ours.outside, theirs.outside)
    assert np.array_equal(ours.array, theirs.array)


@pytest.mark.parametrize("num_bytes", [1, SHARED_BYTES, SHARED_BYTES + 1, 3 * SHARED_BYTES])
def test_files_of_every_size_arrive_whole(misbehaving, num_bytes):
    """Through the memory that is used again, and in memory of their own."""
    data = np.random.default_rng(num_bytes).bytes(num_bytes)
    found = [decoder_process.decode("sound", replace(ITEM, files=(one,))).array for one in (data, data[::-1])]

    assert [array.tobytes() for array in found] == [data, data[::-1]]


def channels() -> tuple[Channel, Channel]:
    """Both sides of a connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there, back = create_shared_memory(), create_shared_memory()
    pair = Channel.of(ours, there, back), Channel.of(theirs, back, there)
    os.close(there)
    os.close(back)
    return pair


def test_a_document_longer_than_a_datagram_arrives():
    ours, theirs = channels()
    lengths = list(range(20_000))
    ours.send({"lengths": lengths}, [b"abc", b"de"])
    with ours.connection, theirs.connection, theirs.receive() as message:
        assert message.document == {"lengths": lengths}
        assert message.read(3, 2) == b"de"


@pytest.mark.parametrize(
    "kind", [("|O", (2,)), ("<f8", (3,)), ("<f8", (-2,)), ("<f8", (0,)), ("<f8", (2, 2)), ("<u2", (1,))], ids=str
)
def test_arrays_that_are_not_in_the_bytes_are_refused(kind):
    """Neither objects nor memory behind the bytes: the decoder has read what others wrote, and is not believed."""
    ours, theirs = channels()
    ours.send({}, [bytes(16)])
    with ours.connection, theirs.connection, theirs.receive() as message, pytest.raises((NotAMessage, ValueError)):
        message.arrays((np.dtype(kind[0]), kind[1]))


@pytest.mark.parametrize(
    "datagram",
    [
        b"x",
        struct.pack("<QQQ", 1 << 40, 2, 0) + b"{}",
        struct.pack("<QQQ", 0, 9, 0) + b"{}",
        struct.pack("<QQQ", 0, 0, 1 << 40),
        struct.pack("<QQQ", 0, 4, 0) + b"[{}]",
        struct.pack("<QQQ", 0, 2, 0) + b"{]",
        struct.pack("<QQQ", 0, 0, 8),
    ],
)
@pytest.mark.parametrize("with_file", [False, True])
def test_what_is_no_message_is_told_from_one(datagram, with_file):
    ours, theirs = channels()
    descriptor = os.memfd_create("x")
    socket.send_fds(ours.connection, [datagram], [descriptor] if with_file else [])
    os.close(descriptor)
    with ours.connection, theirs.connection, pytest.raises(NotAMessage), theirs.receive():
        pass


def test_memory_cannot_be_shrunk_below_its_reader():
    """Reading behind the end of a file ends a process; the receiver holds the size before it maps."""
    ours, theirs = channels()
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 2 * SHARED_BYTES)
    socket.send_fds(ours.connection, [struct.pack("<QQQ", 2 * SHARED_BYTES, 2, 0) + b"{}"], [descriptor])
    with ours.connection, theirs.connection, theirs.receive() as message:
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        assert message.read(SHARED_BYTES, 4) == bytes(4)
    os.close(descriptor)
