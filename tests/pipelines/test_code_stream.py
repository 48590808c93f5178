"""Headers of compressed images: what they promise must be what DICOM says, before a codec allocates or decodes anything."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import jpeg_ls
import numpy as np
import openjpeg
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from crossdim.pipelines.readers import dicom_header, dicom_image, raster
from crossdim.pipelines.readers.code_stream import FrameHeader, check_code_streams
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.code_streams import COMPRESSED, ENCAPSULATED, LOSSLESS, compressed, frame_of, phantom, saved, with_frame


def read(data: bytes) -> np.ndarray:
    return dicom_image.decode(RawItem(uri="x", files=(data,))).array[0]


def rule_of(data: bytes, decode=dicom_image.decode) -> tuple[str, str]:
    with pytest.raises(SampleError) as caught:
        decode(RawItem(uri="x", files=(data,)))
    return caught.value.rule, caught.value.reason


def promised_family(bits: int = 16, **other: int) -> FrameHeader:
    return FrameHeader(**{"rows": 48, "columns": 64, "samples": 1, "bits": bits} | other)


def bits_of(syntax: UID) -> int:
    return 8 if syntax == JPEGBaseline8Bit else 16


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda uid: uid.keyword)
def test_every_syntax_is_read(syntax):
    found = read(compressed(syntax)).astype(int)

    assert np.abs(found - phantom().astype(int)).max() <= (0 if syntax in LOSSLESS else 15)


SIZES = [{"rows": 47}, {"columns": 65}, {"rows": 60000, "columns": 60000}]
SAID_OTHERWISE = [
    pytest.param(syntax, other, id=f"{syntax.keyword}-{'-'.join(f'{name}{value}' for name, value in other.items())}")
    for syntax in ENCAPSULATED
    for other in [{"samples": 3}, {"bits": 7}, *SIZES]
]


@pytest.mark.parametrize(("syntax", "other"), SAID_OTHERWISE)
def test_a_stream_that_says_something_else_than_dicom_is_refused(syntax, other):
    data = pydicom.dcmread(io.BytesIO(compressed(syntax))).PixelData
    check_code_streams(data, syntax, promised_family(bits_of(syntax)))
    with pytest.raises(SampleError, match=r"code_stream"):
        check_code_streams(data, syntax, promised_family(**{"bits": bits_of(syntax)} | other))


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["L", "RGB"]), st.booleans())
def test_jpeg_headers_are_those_that_pillow_wrote(height, width, mode, progressive):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "JPEG", progressive=progressive)
    header = FrameHeader(rows=height, columns=width, samples=len(mode), bits=8)

    check_code_streams(encapsulate([buffer.getvalue()]), JPEGBaseline8Bit, header)


@given(st.integers(16, 40), st.integers(16, 40), st.sampled_from(["u1", "u2"]), st.integers(0, 3))
def test_jpeg_ls_headers_are_those_that_charls_wrote(height, width, dtype, lossy):
    stream = bytes(jpeg_ls.encode_array(phantom(height, width, dtype), lossy_error=lossy))
    info = jpeg_ls.decode_pixel_data(stream)[1]
    header = FrameHeader(rows=info["height"], columns=info["width"], samples=info["components"], bits=info["bits_per_sample"])

    check_code_streams(encapsulate([stream]), JPEGLSLossless, header)


@pytest.mark.parametrize("jp2", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (17, 130), (300, 40), (30, 20, 3)])
def test_jpeg_2000_headers_are_those_that_openjpeg_reads(shape, jp2):
    image = np.random.default_rng(0).integers(0, 255, shape).astype("u1")
    buffer = io.BytesIO()
    tiles = {"tile_size": (64, 64)} if shape[0] == 300 else {}
    Image.fromarray(image).save(buffer, "JPEG2000", no_jp2=not jp2, **tiles)
    found = openjpeg.get_parameters(buffer.getvalue())
    header = FrameHeader(
        rows=found["rows"], columns=found["columns"], samples=found["samples_per_pixel"], bits=found["precision"]
    )

    check_code_streams(encapsulate([buffer.getvalue()]), JPEG2000Lossless, header)


def test_real_streams_are_all_sound(real_data):
    """Of pydicom's test files and of scanners: none is refused that its codec reads."""
    names = ("d2n_j2k", "d2n_jpegll", "d2n_jpegls", "d2n_rle", "ct_body_j2k")
    files = [path for name in names for path in (real_data / "dicom_series" / name).rglob("*.dcm")]
    files += list((real_data / "dicom_single").glob("*.dcm"))
    checked = 0
    for path in files:
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            header = FrameHeader(
                rows=dataset.Rows, columns=dataset.Columns, samples=dataset.SamplesPerPixel, bits=dataset.BitsAllocated
            )
            check_code_streams(dataset.PixelData, dataset.file_meta.TransferSyntaxUID, header)
            checked += 1

    assert checked >= 40


@pytest.mark.parametrize("syntax", ENCAPSULATED, ids=lambda uid: uid.keyword)
def test_a_cut_stream_is_refused_wherever_it_is_cut(syntax):
    """Codecs of JPEG and JPEG 2000 give pixels of what is left."""
    frame = frame_of(compressed(syntax)).rstrip(b"\0")
    for end in range(2, len(frame) - 4, 97):
        rule, _ = rule_of(with_frame(compressed(syntax), frame[:end]))
        assert rule in ("code_stream", "damaged"), end


@given(st.sampled_from(ENCAPSULATED), st.binary(max_size=400), st.integers(0, 4000), st.booleans())
def test_nothing_but_a_refusal_comes_out_of_any_bytes(syntax, data, where, whole):
    frame = frame_of(compressed(syntax))
    damaged = data if whole else frame[: where % len(frame)] + data + frame[where % len(frame) :]
    with contextlib.suppress(SampleError):
        check_code_streams(encapsulate([damaged or b"\0\0"]), syntax, promised_family(bits_of(syntax)))


def test_jpeg_2000_with_a_tile_grid_that_goes_on_for_ever_is_refused():
    frame = bytearray(frame_of(compressed(JPEG2000Lossless)))
    for side in (0, 1):  # none, and 3,072 tiles where the stream has one
        frame[24:32] = struct.pack(">II", side, side)
        damaged = with_frame(compressed(JPEG2000Lossless), bytes(frame))
        assert rule_of(damaged)[0] in ("code_stream", "damaged", "constant")


def tiled() -> tuple[bytes, list[bytes], bytes]:
    """A JPEG 2000 code stream of 2 x 2 tiles: its main header, its tile parts and its end marker."""
    stream = saved(phantom(128, 128, "u1"), "JPEG2000", no_jp2=True, tile_size=(64, 64), irreversible=False)
    start = offset = stream.index(b"\xff\x90\0\x0a")
    parts = []
    while stream[offset : offset + 2] == b"\xff\x90":
        (length,) = struct.unpack_from(">I", stream, offset + 6)
        parts.append(stream[offset : offset + length])
        offset += length
    return stream[:start], parts, stream[offset:]


def part_of(part: bytes, number: int, stated: int) -> bytes:
    """The tile part under another number, of another number of parts."""
    return part[:10] + bytes([number, stated]) + part[12:]


TILED = FrameHeader(rows=128, columns=128, samples=1, bits=8)


@pytest.mark.parametrize("stated", [0, 1])
def test_jpeg_2000_with_all_of_its_tiles_is_read_in_any_order(stated):
    head, parts, end = tiled()
    assert len(parts) == 4
    stream = head + b"".join(part_of(part, 0, stated) for part in reversed(parts)) + end

    check_code_streams(encapsulate([stream]), JPEG2000Lossless, TILED)


@pytest.mark.parametrize("kept", [(), (0,), (0, 1, 2), (1, 2, 3), (0, 0, 0, 0), (0, 1, 2, 3, 3)])
def test_jpeg_2000_with_tiles_missing_or_twice_is_refused(kept):
    """OpenJPEG gives an image of such a stream, grey where a tile is absent."""
    head, parts, end = tiled()

    with pytest.raises(SampleError, match=r"tile.*code_stream"):
        check_code_streams(encapsulate([head + b"".join(parts[n] for n in kept) + end]), JPEG2000Lossless, TILED)


@pytest.mark.parametrize(("number", "stated"), [(0, 2), (1, 0), (1, 2)])
def test_jpeg_2000_with_parts_of_a_tile_missing_is_refused(number, stated):
    head, parts, end = tiled()
    stream = head + b"".join(parts[:3]) + part_of(parts[3], number, stated) + end

    with pytest.raises(SampleError, match=r"holds 1 of 2 parts of tile 3.*code_stream"):
        check_code_streams(encapsulate([stream]), JPEG2000Lossless, TILED)


@pytest.mark.filterwarnings("ignore")  # of pydicom, about headers of its own test files
def test_files_of_pydicom_have_sound_streams():
    checked = 0
    for path in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm")):
        dataset = pydicom.dcmread(path, force=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID") if "PixelData" in dataset else None
        if path.stem == "JPEG2000-embedded-sequence-delimiter":  # a delimiter in its pixels: pydicom cannot read it either
            continue
        if not syntax or not syntax.is_encapsulated or int(dataset.get("NumberOfFrames", 1)) != 1:
            continue
        samples, bits = dataset.SamplesPerPixel, dataset.BitsAllocated
        header = FrameHeader(rows=dataset.Rows, columns=dataset.Columns, samples=samples, bits=bits)
        check_code_streams(dataset.PixelData, syntax, header)
        checked += 1

    assert checked >= 30


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.keyword)
def test_more_frames_than_the_header_says_are_refused(syntax):
    frame = frame_of(compressed(syntax))
    with pytest.raises(SampleError, match="frame_count"):
        check_code_streams(encapsulate([frame, frame]), syntax, promised_family())


def test_what_gdcm_only_warns_of_is_refused():
    """Bytes too many before the end marker: pixels are shifted, gdcm writes a line to standard error and gives them out."""
    frame = frame_of(compressed(JPEGLosslessSV1)).rstrip(b"\0")
    damaged = with_frame(compressed(JPEGLosslessSV1), frame[:-2] + b"\x12\x34\x56" + frame[-2:])
    from crossdim.pipelines import decoder_process

    with pytest.raises(SampleError, match=r"Corrupt JPEG data.*codec_warning"):
        decoder_process.decode("dicom", RawItem(uri="x", files=(damaged,)))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_of_a_sound_jpeg_are_those_of_pillow(mode, subsampling, progressive):
    image = Image.fromarray(np.dstack([phantom(75, 101, "u1")] * 3)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", subsampling=subsampling, progressive=progressive, exif=_turned())
    found = raster.decode(RawItem(uri="x", files=(buffer.getvalue(),))).array
    expected = np.asarray(Image.open(buffer).convert("L" if mode == "L" else "RGB"))

    assert np.array_equal(found, np.rot90(np.atleast_3d(expected), -1).transpose(2, 0, 1))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_a_jpeg_with_rows_missing_or_bytes_too_many_is_refused():
    """The library fills up with grey and only warns; Pillow drops the warning."""
    sound = saved(phantom(64, 64, "u1"), "JPEG", restart_marker_rows=1)
    scan = sound.index(b"\xff\xda") + 20
    first, second = sound.index(b"\xff\xd0"), sound.index(b"\xff\xd1")
    damaged = {
        "a row of blocks less": sound[:first] + sound[second:],
        "bytes in between": sound[:scan] + b"\x00\x17\x2a" * 5 + sound[scan:],
        "no end": sound[:-2] + b"\xff\xd9"[:0],
        "half": sound[: len(sound) // 2] + b"\xff\xd9",
    }
    for what, data in damaged.items():
        assert rule_of(data, raster.decode)[0] == "damaged", what


@pytest.mark.integration
def test_a_deflated_bomb_is_stopped_at_what_its_header_promises():
    """1 GB of zeros in 1 MB, behind a header of 48 x 64 pixels."""
    data = compressed(DeflatedExplicitVRLittleEndian)
    meta = data[: 132 + 12 + int.from_bytes(data[140:144], "little")]
    dataset = zlib.decompress(data[len(meta) :], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(dataset) + b"".join(packer.compress(bytes(1 << 24)) for _ in range(16)) + packer.flush()

    assert rule_of(meta + bomb)[0] == "too_long"
    assert dicom_header.read_header(meta + bomb, ReadRules()).shape == (48, 64)


@pytest.mark.integration
def test_a_deflated_bomb_before_the_pixels_is_not_called_a_cut_file():
    """A private element of 80 MB in some 80 kB."""
    data = compressed(DeflatedExplicitVRLittleEndian)
    meta = data[: 132 + 12 + int.from_bytes(data[140:144], "little")]
    dataset = zlib.decompress(data[len(meta) :], -zlib.MAX_WBITS)
    pixels = dataset.rindex(b"\xe0\x7f\x10\x00")
    bomb = b"\x09\x70\x10\x10OB\0\0" + (80 << 20).to_bytes(4, "little") + bytes(80 << 20)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = meta + packer.compress(dataset[:pixels] + bomb + dataset[pixels:]) + packer.flush()

    assert rule_of(packed)[0] == "too_long"
    with pytest.raises(SampleError, match="more than 67,108,864 bytes before its pixels"):
        dicom_header.read_header(packed, ReadRules())


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_deflated_dataset_that_is_cut_or_changed_is_refused(share):
    data = compressed(DeflatedExplicitVRLittleEndian)
    where = int(len(data) * share)

    assert rule_of(data[:where])[0] in ("truncated", "no_pixels", "damaged")
