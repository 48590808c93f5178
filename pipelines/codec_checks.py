"""Checks of codecs: a small image of every transfer syntax of DICOM is decoded as ``prepare`` decodes it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from crossdim.foundation.checks import CheckResult, Level, run_check
from crossdim.pipelines import codec_samples as samples
from crossdim.pipelines.codec_packages import NOT_IN_EXTRA, REINSTALL, can_import, is_installed
from crossdim.pipelines.decoder_process import decode
from crossdim.pipelines.readers.raw import RawItem
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array

#: Largest share of the range by which lossy codecs change a pixel of the samples; they were made with high quality.
LOSS = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One image to decode.

    Attributes:
        name: of the transfer syntax, short.
        syntax: its transfer syntax.
        stream: its code stream; b"" if pixels are stored as they are.
        bits: of a pixel.
        lossy: whether pixels may differ a little.
        packages: those of ``codec_packages.MODULES`` that would decode it; none if nothing optional is needed.
        all_needed: whether it takes all of the packages, and not one of them.
    """

    name: str
    syntax: UID
    stream: bytes = b""
    bits: int = 12
    lossy: bool = False
    packages: tuple[str, ...] = ()
    all_needed: bool = False


_EITHER = ("pyjpegls", "python-gdcm")
_EXTENDED = samples.JPEG.replace(b"\xff\xc0", b"\xff\xc1", 1)  # the same stream, marked as one of the extended process (SOF1)
_HT: dict[str, Any] = {"packages": ("pylibjpeg", "pylibjpeg-openjpeg"), "all_needed": True}
TRIALS = (
    Trial(name="Implicit Little Endian", syntax=ImplicitVRLittleEndian),
    Trial(name="Explicit Little Endian", syntax=ExplicitVRLittleEndian),
    Trial(name="Explicit Big Endian", syntax=ExplicitVRBigEndian),
    Trial(name="Deflated", syntax=DeflatedExplicitVRLittleEndian),
    Trial(name="RLE", syntax=RLELossless, stream=samples.RLE),
    Trial(name="JPEG Baseline", syntax=JPEGBaseline8Bit, stream=samples.JPEG, bits=8, lossy=True),
    Trial(name="JPEG Extended, 8 bits", syntax=JPEGExtended12Bit, stream=_EXTENDED, bits=8, lossy=True),
    Trial(
        name="JPEG Extended, 12 bits",
        syntax=JPEGExtended12Bit,
        stream=samples.JPEG_12_BIT,
        lossy=True,
        packages=("pylibjpeg-libjpeg",),
    ),
    Trial(name="JPEG Lossless", syntax=JPEGLossless, stream=samples.JPEG_LOSSLESS, packages=("python-gdcm",)),
    Trial(name="JPEG Lossless SV1", syntax=JPEGLosslessSV1, stream=samples.JPEG_LOSSLESS_SV1, packages=("python-gdcm",)),
    Trial(name="JPEG-LS Lossless", syntax=JPEGLSLossless, stream=samples.JPEG_LS, packages=_EITHER),
    Trial(name="JPEG-LS Near-Lossless", syntax=JPEGLSNearLossless, stream=samples.JPEG_LS_NEAR, lossy=True, packages=_EITHER),
    Trial(name="JPEG 2000 Lossless", syntax=JPEG2000Lossless, stream=samples.JPEG_2000_LOSSLESS),
    Trial(name="JPEG 2000", syntax=JPEG2000, stream=samples.JPEG_2000, lossy=True),
    Trial(name="HTJ2K Lossless", syntax=HTJ2KLossless, stream=samples.HTJ2K_LOSSLESS, **_HT),
    Trial(name="HTJ2K Lossless RPCL", syntax=HTJ2KLosslessRPCL, stream=samples.HTJ2K_LOSSLESS, **_HT),
    Trial(name="HTJ2K", syntax=HTJ2K, stream=samples.HTJ2K, lossy=True, **_HT),
)


def check_codecs() -> list[CheckResult]:
    """Decode an image of every transfer syntax."""
    return [result for trial in TRIALS for result in run_check(f"DICOM {trial.name}", partial(check_codec, trial))]


def check_codec(trial: Trial) -> list[CheckResult]:
    """Decode one image in the decoder process, and compare its pixels."""
    if trial.stream and not get_decoder(trial.syntax).is_available:
        return [_report_refusal(trial, "pydicom finds no codec")]
    try:
        pixels = decode("dicom", RawItem(uri=trial.name, files=(build_file(trial),))).array[0]
    except SampleError as error:
        return [_report_refusal(trial, str(error))]
    expected = samples.make_gradient(trial.bits).astype(int)
    difference = int(np.abs(pixels - expected).max())
    if difference > (LOSS * expected.max() if trial.lossy else 0):
        return [_fail(trial, f"decoded pixels differ by up to {difference} from the image that was encoded")]
    by = f", by {' or '.join(get_decoder(trial.syntax).available_plugins)}" if trial.stream else ""
    return [CheckResult(check=f"DICOM {trial.name}", found=f"{trial.syntax} is decoded{by}")]


def build_file(trial: Trial) -> bytes:
    """The image as a DICOM file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = trial.syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, UID("1.2.3")
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = SecondaryCaptureImageStorage, "1.2.3", "OT"
    image = samples.make_gradient(trial.bits)
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * image.itemsize
    # Lossless encoders were given cells of 16 bits.
    dataset.BitsStored = trial.bits if trial.syntax == JPEGExtended12Bit else dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.add_new("PixelData", "OB" if trial.stream else "OW", _store_pixels(trial, image))
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _store_pixels(trial: Trial, image: Array) -> bytes:
    if trial.stream:
        return encapsulate([trial.stream])
    return image.astype(">u2" if trial.syntax == ExplicitVRBigEndian else "<u2").tobytes()


def _report_refusal(trial: Trial, reason: str) -> CheckResult:
    """A warning where an optional package is not installed; a failure where what is installed does not work."""
    lacking = [name for name in trial.packages if not can_import(name)]
    if not lacking or (len(lacking) < len(trial.packages) and not trial.all_needed):
        return _fail(trial, f"{trial.syntax} is not decoded: {reason}")
    names = f" {'and' if trial.all_needed else 'or'} ".join(lacking)
    if any(is_installed(name) for name in lacking):
        return _fail(trial, f"{trial.syntax} is not decoded: {names} is installed, but cannot be imported")
    found = f"{trial.syntax} is not decoded, files are quarantined: {names} is missing"
    outside = [
        f"if its licence, the {NOT_IN_EXTRA[name]}, suits you: pip install {name}" for name in lacking if name in NOT_IN_EXTRA
    ]
    remedy = outside[0] if outside else "pip install 'crossdim[dicom]'"
    return CheckResult(check=f"DICOM {trial.name}", level=Level.WARNING, found=found, remedy=remedy)


def _fail(trial: Trial, found: str) -> CheckResult:
    remedy = f"{REINSTALL} {' '.join(trial.packages or ('pydicom', 'Pillow'))}"
    return CheckResult(check=f"DICOM {trial.name}", level=Level.FAILURE, found=found, remedy=remedy)
