"""Writes tests/golden/resenc_l_names.json from dynamic-network-architectures 0.4.4.

python -m tests.training.backbones.make_resenc_golden
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.training.backbones.nnunet import library_encoder

GOLDEN = Path(__file__).parents[2] / "golden" / "resenc_l_names.json"

if __name__ == "__main__":
    with torch.device("meta"):
        state = library_encoder().state_dict()
    lines = [f"  {json.dumps(name)}: {json.dumps(list(tensor.shape))}" for name, tensor in state.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
