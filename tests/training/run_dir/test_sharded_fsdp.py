"""A module sharded by FSDP2: its checkpoints fit any number of ranks, and its step is the step of the whole module."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn import functional

from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.sharded import read, snapshot, write
from tests.ranks import run_on_ranks

# Axes: B batch, N tokens, E embedding, V numbers of a patch.
TOKENS, WIDTH, PATCH = 6, 8, 5
BATCH = 7
SAVED_BY = 2


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH, bias=False)  # see test_one_step
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x_BNE: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x_BNE)).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        x_BNE = x_BNE + functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return cast(Tensor, x_BNE + self.mlp(x_BNE))


class _Transformer(nn.Module):
    """Two blocks, with parameters of the root's own whose first axis is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(PATCH, WIDTH), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, TOKENS + 1, WIDTH))
        self.blocks, self.head = nn.Sequential(_Block(), _Block()), nn.Linear(WIDTH, PATCH)

    def forward(self, patches_BNV: Tensor) -> Tensor:
        x_BNE = torch.cat([self.token.expand(len(patches_BNV), 1, WIDTH), self.embed(patches_BNV)], dim=1)
        return cast(Tensor, self.head(self.blocks(x_BNE + self.places)))


def _module(seed: int = 1) -> _Transformer:
    torch.manual_seed(seed)
    return _Transformer()


def _sharded(module: _Transformer) -> _Transformer:
    """Units first, the root last: it takes what no unit took."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in module.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _adamw(module: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), lr=1e-3)


def _batch(size: int) -> Tensor:
    return torch.randn(size, TOKENS, PATCH, generator=torch.Generator().manual_seed(5))


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, size: int, parts: int = 1) -> Tensor:
    """An update on this rank's share of a batch; the clipped gradient's norm. As training/loop.py does it."""
    sharded = isinstance(module, FSDPModule)
    rank, world = (dist.get_rank(), dist.get_world_size()) if sharded else (0, 1)
    mine = _batch(size)[rank * size // world : (rank + 1) * size // world]
    optimizer.zero_grad(set_to_none=True)
    for number, part in enumerate(mine.tensor_split(parts)):
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(number == parts - 1)
        loss = module(part).square().mean(dim=(1, 2)).sum() / max(1, len(part))
        (loss * len(part) / size * world).backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), 0.5)
    optimizer.step()
    return norm


def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of both, by name; they are the module's and the optimizer's own, so filling them is loading."""
    flat = get_optimizer_state_dict(module, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
    kept = {name: value for name, value in flat.items() if name.startswith("state.")}
    return cast(dict[str, Tensor], get_model_state_dict(module) | kept)


def _whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone() for n, t in tensors.items()}


Work = Callable[[str], None]


def _process(rank: int, world: int, folder: str, work: Work) -> None:
    work(folder)


def _on_ranks(world: int, folder: object, work: Work) -> None:
    run_on_ranks(world, _process, str(folder), work)


class _Held(Bucket):
    """A store that is slow until it is let go."""

    begun: ClassVar[threading.Event] = threading.Event()
    released: ClassVar[threading.Event] = threading.Event()

    def put(self, path: str, data: bytes) -> None:
        self.begun.set()
        assert self.released.wait(300)
        super().put(path, data)


def _saving(folder: str) -> None:
    """Train, copy, train on while a thread writes the copy; what is expected of it is kept beside it."""
    group = dist.new_group(backend="gloo")
    module = _sharded(_module())
    optimizer = _adamw(module)
    for _ in range(2):
        _step(module, optimizer, BATCH)
    copy, expected = snapshot(_state(module, optimizer)), _whole(_state(module, optimizer))
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(write, _Held(folder), "s", copy, group)
        assert _Held.begun.wait(300)
        for _ in range(3):
            _step(module, optimizer, BATCH)
        assert not writing.done()
        _Held.released.set()
        hashes = writing.result()
        copy = snapshot(_state(module, optimizer), copy)
        later = thread.submit(write, Bucket(folder), "later", copy, group)
        assert _sums_until(later) > 0
        assert later.result().keys() == hashes.keys()
        assert later.result() != hashes
    if dist.get_rank() == 0:
        Path(folder, "hashes.json").write_text(json.dumps(hashes))
        torch.save(expected, f"{folder}/expected.pt")


def _sums_until(writing: Future[dict[str, str]]) -> int:
    """Reduce in the default group until all ranks' threads are done in theirs; how often."""
    count = 0
    while True:
        done = torch.tensor([int(writing.done()), 1])
        dist.all_reduce(done)
        assert done[1] == dist.get_world_size()
        count += 1
        if done[0] == dist.get_world_size():
            return count


def _loading(folder: str, module: nn.Module | None = None) -> None:
    """A module of other weights, and an optimizer that made no step, become what was saved, to the bit."""
    module = module or _sharded(_module(seed=9))
    optimizer = _adamw(module)
    hashes = json.loads(Path(folder, "hashes.json").read_text())
    read(Bucket(folder), "s", hashes, _state(module, optimizer), None)
    found, expected = _whole(_state(module, optimizer)), torch.load(f"{folder}/expected.pt", weights_only=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found["state.head.weight.step"] == 2
    assert found["state.head.weight.exp_avg"].any()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of two ranks."""
    folder = tmp_path_factory.mktemp("saved")
    _on_ranks(SAVED_BY, folder, _saving)
    return folder


@pytest.mark.integration
def test_what_two_ranks_saved_one_process_without_ranks_loads(saved: Path) -> None:
    """The copy is of the step at which it was made, though the ranks trained on while it was written."""
    _loading(str(saved), _module(seed=9))


@pytest.mark.parametrize("world", [SAVED_BY, 3])
@pytest.mark.integration
def test_what_two_ranks_saved_any_number_loads(saved: Path, world: int) -> None:
    _on_ranks(world, saved, _loading)


def _stepping(folder: str) -> None:
    """Even and uneven shares, a rank without samples, a step in parts."""
    for size, parts in ((6, 1), (BATCH, 1), (2, 1), (BATCH, 2)):
        whole, module = _module(), _sharded(_module())
        expected, norm = _step(whole, _adamw(whole), size), _step(module, _adamw(module), size, parts)
        assert isinstance(norm, DTensor)
        assert norm.placements == (Replicate(),)
        torch.testing.assert_close(norm.full_tensor(), expected, atol=0, rtol=1e-5)
        for name, tensor in _whole(get_model_state_dict(module)).items():
            torch.testing.assert_close(tensor, whole.get_parameter(name).detach(), atol=1e-6, rtol=0)
    _first_rank_gathers(module)


def _first_rank_gathers(module: nn.Module) -> None:
    """All call, the first has the whole state afterwards: what an encoder is stored from."""
    gathered = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank():
        assert gathered == {}
    else:
        assert [type(t) for t in gathered.values()] == [Tensor] * len(gathered)
        assert {n: t.shape for n, t in gathered.items()} == {n: t.shape for n, t in _module().state_dict().items()}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.integration
def test_one_step_is_the_step_of_the_whole_module(world: int, tmp_path: Path) -> None:
    """As with DDP: gradients are averaged over ranks, so a rank's mean loss is scaled by its share of samples and the world.

    A bias of keys would not do: its gradient is zero but for rounding, and AdamW's first step makes that as large as any other.
    """
    _on_ranks(world, tmp_path, _stepping)
