"""Sharded checkpoints: named tensors in a folder of a run, written by all ranks together and read by any number of them.

``torch.distributed.checkpoint`` (DCP) plans who writes and reads what; bytes, hashes and the index are ours, because DCP's own
files hold pickle. Tensors may be plain or DTensors. Each rank writes its parts as ``shard-<rank>-<number>.bin``, and what no rank
has only a part of as ``whole-<rank>-<number>.bin``: every tensor's numbers row by row, one tensor after the other. Last comes
``index.json``, which says where each part lies. Between ranks, not in storage, DCP sends its plans pickled.
"""

from crossdim.training.run_dir.sharded.reader import read
from crossdim.training.run_dir.sharded.snapshot import size_bytes, snapshot
from crossdim.training.run_dir.sharded.writer import write

__all__ = ["read", "size_bytes", "snapshot", "write"]
