"""Checks of codecs: every sample is what it says for every codec that is here; a codec that is hidden or damaged is named."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.decoders.base import get_decoder

from crossdim.foundation.checks import Level
from crossdim.pipelines import codec_checks, codec_packages
from crossdim.pipelines.codec_checks import LOSS, TRIALS, Trial, build_file, check_codec, check_codecs
from crossdim.pipelines.codec_samples import JPEG_LS_NEAR, make_gradient
from crossdim.pipelines.readers.code_stream import FrameHeader, check_code_streams

REPOSITORY = Path(__file__).parents[2]
#: What no package of ours reads.
UNREAD = "JPEG Extended, 12 bits"
BY_NAME = {trial.name: trial for trial in TRIALS}


def test_there_is_a_sample_of_every_syntax_that_pydicom_decodes() -> None:
    known = {uid for uid in pydicom.uid.AllTransferSyntaxes if _has_decoder(uid)}
    assert {trial.syntax for trial in TRIALS} == known


def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    try:
        return bool(get_decoder(syntax))
    except NotImplementedError:
        return False


@pytest.mark.parametrize("trial", [trial for trial in TRIALS if trial.name != UNREAD], ids=lambda trial: trial.name)
def test_every_codec_that_is_here_decodes_the_sample(trial: Trial) -> None:
    expected = make_gradient(trial.bits).astype(int)
    plugins = get_decoder(trial.syntax).available_plugins if trial.stream else ("",)
    assert plugins
    for plugin in plugins:
        dataset = pydicom.dcmread(io.BytesIO(build_file(trial)))
        dataset.pixel_array_options(decoding_plugin=plugin)
        difference = np.abs(dataset.pixel_array.astype(int) - expected).max()
        assert difference <= (LOSS * expected.max() if trial.lossy else 0), plugin


def test_the_sample_that_no_codec_here_reads_is_sound() -> None:
    """As far as its headers go; libjpeg-turbo decoded it to within 1 when it was made."""
    trial = BY_NAME[UNREAD]
    pixels = pydicom.dcmread(io.BytesIO(build_file(trial))).PixelData
    (found,) = check_code_streams(pixels, trial.syntax, FrameHeader(rows=16, columns=16, samples=1, bits=16))
    assert (found.rows, found.columns, found.bits) == (16, 16, 12)


@pytest.mark.integration
def test_all_syntaxes_are_decoded_here() -> None:
    results = {one.check.removeprefix("DICOM "): one for one in check_codecs()}
    assert list(results) == list(BY_NAME)
    assert {name for name, one in results.items() if one.level is not Level.OK} == {UNREAD}
    lacking = results[UNREAD]
    assert (lacking.level, lacking.remedy) == (Level.WARNING, "if its licence, the GPL, suits you: pip install pylibjpeg-libjpeg")


@pytest.mark.integration
def test_wrong_pixels_are_a_failure() -> None:
    """A stream of another syntax of JPEG-LS, whose pixels differ by up to 3."""
    [result] = check_codec(replace(BY_NAME["JPEG-LS Lossless"], stream=JPEG_LS_NEAR))
    assert (result.level, result.found) == (
        Level.FAILURE,
        "decoded pixels differ by up to 3 from the image that was encoded",
    )
    assert result.remedy == "pip install --force-reinstall pyjpegls python-gdcm"


@pytest.mark.integration
def test_a_stream_that_a_codec_refuses_is_a_failure() -> None:
    trial = BY_NAME["JPEG 2000"]
    [result] = check_codec(replace(trial, stream=trial.stream[:100]))
    assert (result.level, "is not decoded: the compressed image" in result.found) == (Level.FAILURE, True)


def test_a_package_that_is_not_installed_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some machines read compressed DICOM."""
    monkeypatch.setattr(codec_packages, "MODULES", dict.fromkeys(codec_packages.MODULES, "no_such_module"))
    monkeypatch.setattr(codec_checks, "is_installed", lambda _: False)
    monkeypatch.setattr(type(get_decoder(pydicom.uid.HTJ2K)), "is_available", False)
    [of_all] = check_codec(BY_NAME["HTJ2K"])
    [of_any] = check_codec(BY_NAME["JPEG-LS Lossless"])
    assert (of_all.level, of_all.remedy) == (Level.WARNING, "pip install 'crossdim[dicom]'")
    assert of_all.found.endswith("files are quarantined: pylibjpeg and pylibjpeg-openjpeg is missing")
    assert of_any.found.endswith("files are quarantined: pyjpegls or python-gdcm is missing")


def _run_with_broken(module: str, folder: Path) -> dict[str, dict[str, str]]:
    """The failures where, before an installed module, there is one as broken as one whose native library is missing."""
    (folder / f"{module}.py").write_text("raise ImportError('libnative.so: cannot open shared object file')")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
    line = [sys.executable, "-m", "crossdim", "doctor", "--json"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    return {one["check"].removeprefix("DICOM "): one for one in json.loads(done.stdout)["checks"] if one["level"] == "failure"}


@pytest.mark.integration
def test_a_codec_that_cannot_be_imported_is_named_at_what_it_would_decode(tmp_path: Path) -> None:
    failures = _run_with_broken("gdcm", tmp_path)
    assert failures.keys() == {"codecs", "JPEG Lossless", "JPEG Lossless SV1"}
    assert failures["codecs"]["found"] == "installed, but cannot be imported: python-gdcm"
    assert "python-gdcm is installed, but cannot be imported" in failures["JPEG Lossless"]["found"]
    assert {one["remedy"] for one in failures.values()} == {"pip install --force-reinstall python-gdcm"}


@pytest.mark.integration
def test_a_codec_with_which_pydicom_itself_cannot_be_imported_is_named(tmp_path: Path) -> None:
    """So it is with plugins of pylibjpeg: no DICOM file can be read."""
    failures = _run_with_broken("openjpeg", tmp_path)
    assert failures.keys() == {"codecs", "DICOM"}
    assert failures["codecs"]["remedy"] == "pip install --force-reinstall pylibjpeg-openjpeg"
    assert "libnative.so" in failures["DICOM"]["found"]
