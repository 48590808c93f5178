"""Settings and options out of their range are one sentence with the range, and wrong use; nothing is read or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket

OPTIONS = [
    *(("--threads", text, "1 to 1024") for text in ("0", "-1", "1025", "9" * 30, "x", "1.5", "nan")),
    *((option, text, "greater than 0") for option in ("--keep", "--keep-every") for text in ("0", "-1")),
    ("--monitor-every", "-1", "at least 0 steps between measurements of features"),
    *(("--resize-every", text, "greater than 0") for text in ("nan", "-1", "0", "inf", "1e300", "x")),
    *(("--checkpoint-every", text, "steps as 100") for text in ("0", "nan", "nans", "-1s", "infs")),
]
SETTINGS = [
    *(("seed", text, "2**64 - 1") for text in (str(2**64), "-1", "9" * 400)),
    *(("global_batch", text, "at most 1048576") for text in ("0", "1048577", "100000000")),
    ("global_batch", "9" * 20, "at most 1048576"),
    *(("steps", text, "at most 99999999") for text in ("0", "100000000")),
    ("steps", "9" * 20, "at most 99999999"),
    *(("optimizer.lr", text, "lr in (0, 1e+30]") for text in ("1e99", "0", "-1")),
    *(("steps", text, "nested too deeply") for text in ("[" * 3000, '{"a":' * 100_000)),
]


def _refused(line: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = main(["pretrain", "--recipe", "ae:tiny", "--data", "nowhere", "--out", str(out), "--workers", "0", *line])
    except SystemExit as stop:
        code = int(str(stop.code))
    error = capsys.readouterr().err
    assert code == 1, error[-500:]
    assert "Traceback" not in error
    assert not out.exists()
    return error


@pytest.mark.parametrize(("option", "text", "message"), OPTIONS)
def test_an_option_out_of_its_range(
    option: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _refused([f"{option}={text}"], tmp_path / "run", capsys)


@pytest.mark.parametrize(("name", "text", "message"), SETTINGS)
def test_a_setting_out_of_its_range(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _refused(["--set", f"{name}={text}"], tmp_path / "run", capsys)


@pytest.mark.parametrize("widths", [[100_000] * 3, [10**7] * 3, [10**12] * 3, [10**18] * 3])
def test_a_network_too_large_for_the_machine_is_told_before_it_is_built(
    widths: list[int], volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--data", volume_data.url, "--set", f"method.backbone.widths={widths}", "--set", "method.crops.solid_side=16"]
    error = _refused([*more, "--set", "global_batch=2"], tmp_path / "run", capsys)
    assert "GB of memory" in error or "no network can be built" in error
