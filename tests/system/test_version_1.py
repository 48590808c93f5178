"""Datasets and runs of format version 1 stay readable.

`golden/version_1` was written by the code of version 1 (commit 809a6b0): two datasets from `tests.training.published`, and, as it
stood after step 4, the run of `pretrain --recipe ae:tiny --data ct --out run --steps 8 --workers 0 --checkpoint-every 4
--set 'method.backbone.widths=[2,2,4]'`. `expected.json` holds the hashes of all arrays and the losses of steps 4 to 7, as that
code read and trained them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.training.cli import main
from crossdim.training.data.dataset import open_dataset, read_sample
from crossdim.training.data.range_reader import open_range_reader

GOLDEN = Path(__file__).parents[1] / "golden" / "version_1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def test_every_sample_of_version_1_is_read_bit_for_bit() -> None:
    found = {}
    for name in ("xr", "ct"):
        bucket = Bucket(str(GOLDEN / name))
        dataset = open_dataset(bucket)
        samples = [read_sample(dataset, index, open_range_reader(bucket)) for index in range(len(dataset))]
        found |= {sample.key: hashlib.sha256(sample.array.tobytes()).hexdigest() for sample in samples}
    assert found == EXPECTED["arrays"]


def test_a_run_of_version_1_resumes_with_the_losses_of_the_code_that_began_it(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "v1")
    run = tmp_path / "v1" / "run"
    assert main(["pretrain", "--data", str(tmp_path / "v1" / "ct"), "--out", str(run), "--workers", "0"]) == 0
    lines = [json.loads(line) for path in sorted((run / "metrics").iterdir()) for line in path.read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines}
    assert [losses[step] for step in range(4, 8)] == pytest.approx(EXPECTED["losses"], rel=1e-6)
    assert sorted(losses) == list(range(8))


def test_the_encoder_of_version_1_loads() -> None:
    from crossdim.training.backbones import load_encoder

    encoder, spec = load_encoder(str(GOLDEN / "run" / "encoder.pt"))
    assert spec.in_channels == 1
    assert sum(parameter.numel() for parameter in encoder.parameters()) > 0
