"""Cross-D convolution beside what it is compared with: 2D, ACS, 3D, and the Fourier transform that its paper writes.

Limit: the plain 2D convolution, or the plain 2D network. The Fourier case is our transcription, which does what the published
code does. Rows on the CPU use one thread; with CUDA the same rows are run there, with the paper's batches.

    python -m benchmarks.layers [table3] [resnet] [volumes] [network] [memory]
"""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.stopwatch import in_turns, show, wait_for_device
from crossdim.training.backbones.resnet import ResNet, ResNetSettings
from crossdim.training.layers.acs import ACSConv
from crossdim.training.layers.crossd import CrossDConv
from tests.oracles.crossd_fft import CrossDFFT, transcribed

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LIMIT = "conv2d"
#: Batch on CUDA, batch on a CPU, channels in and out, side, stride, kernel. Table III of the paper has 512 outputs; a CPU
#: gets smaller batches and sides.
TABLE_3 = [(8, 8, 64, 64, 128, 1, 3), (8, 2, 64, 512, 128, 1, 3), (16, 1, 128, 512, 224, 1, 3), (32, 1, 384, 512, 224, 1, 3)]
RESNET_18 = [
    (32, 8, 3, 64, 224, 2, 7),
    (32, 8, 64, 64, 56, 1, 3),
    (32, 8, 64, 128, 56, 2, 3),
    (32, 8, 128, 128, 28, 1, 3),
    (32, 8, 128, 256, 28, 2, 3),
    (32, 8, 256, 256, 14, 1, 3),
    (32, 8, 256, 512, 14, 2, 3),
    (32, 8, 512, 512, 7, 1, 3),
]
#: Samples of a step whose memory is measured: the paper's, on one device.
MEMORY_BATCH = 32
#: Above so many bytes the transform is left out: it holds several complex kernels of every sample at once.
LARGEST_TRANSFORM = 2**31


def forward(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward without gradients, evaluation mode."""
    network = copy.deepcopy(network).eval()

    @torch.no_grad()
    def call() -> None:
        network(x)

    return wait_for_device(DEVICE, call)


def both(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward, training mode."""
    network = copy.deepcopy(network).train()
    leaf = x.clone().requires_grad_(x.shape[1] > 3)  # a stem's input needs no gradient

    def call() -> None:
        y = network(leaf)
        y.backward(torch.ones_like(y))

    return wait_for_device(DEVICE, call)


def measure_layer(batch: int, ins: int, outs: int, side: int, stride: int, kernel: int, runs: int) -> None:
    """Print the two tables of a layer; ACS and 3D see the same images as volumes of one slice."""
    torch.manual_seed(0)
    x = torch.randn(batch, ins, side, side, device=DEVICE)
    flat = {"stride": stride, "padding": kernel // 2, "bias": False}
    ours = CrossDConv(ins, outs, kernel, **flat)
    assert ours.rotation_params is not None
    networks: dict[str, tuple[nn.Module, Tensor]] = {
        LIMIT: (nn.Conv2d(ins, outs, kernel, **flat), x),
        "Cross-D, ours": (ours, x),
        "ACS, depth 1": (ACSConv(ins, outs, kernel, **flat), x[:, :, None]),
        "conv3d, depth 1": (nn.Conv3d(ins, outs, kernel, **flat), x[:, :, None]),
    }
    if batch * outs * ins * kernel**3 * 8 <= LARGEST_TRANSFORM:
        fourier = CrossDFFT(ours.weights_3d.detach(), ours.rotation_params, stride, kernel // 2)
        networks["Cross-D, Fourier"] = (fourier, x)
    shape = f"({batch}, {ins}, {side}, {side}) to {outs}, kernel {kernel}, stride {stride}"
    for title, how in (("forward", forward), ("forward and backward", both)):
        cases = {name: how(network.to(DEVICE), input_) for name, (network, input_) in networks.items()}
        show(f"{title}, {shape}, {DEVICE.type}", in_turns(cases, runs=runs), limit=LIMIT)


def measure_volume(ins: int, depth: int, side: int, runs: int) -> None:
    """Print the tables of a true volume; the limit sees its slices as images."""
    torch.manual_seed(0)
    volume = torch.randn(1, ins, depth, side, side, device=DEVICE)
    slices = volume[0].transpose(0, 1).contiguous()
    networks: dict[str, tuple[nn.Module, Tensor]] = {
        LIMIT: (nn.Conv2d(ins, ins, 3, padding=1, bias=False), slices),
        "Cross-D, ours": (CrossDConv(ins, ins, 3, padding=1, bias=False), volume),
        "ACS": (ACSConv(ins, ins, 3, padding=1, bias=False), volume),
        "conv3d": (nn.Conv3d(ins, ins, 3, padding=1, bias=False), volume),
    }
    for title, how in (("forward", forward), ("forward and backward", both)):
        cases = {name: how(network.to(DEVICE), input_) for name, (network, input_) in networks.items()}
        show(f"{title}, volume {tuple(volume.shape)}, {DEVICE.type}", in_turns(cases, runs=runs), limit=LIMIT)


def network(name: str) -> nn.Module:
    """A ResNet-18 with 1000 classes: conv2d, ours, or the transcription."""
    torch.manual_seed(0)
    settings = ResNetSettings(operator="conv2d" if name == LIMIT else "crossd", in_channels=3)
    built = ResNet(settings, 1000)
    return (transcribed(built) if name == "Cross-D, Fourier" else built).to(DEVICE)


def measure_network(batch: int, runs: int, *, fourier: bool) -> None:
    """Print the tables of whole networks at 224 x 224."""
    x = torch.randn(batch, 3, 224, 224, device=DEVICE)
    names = [LIMIT, "Cross-D, ours", *(["Cross-D, Fourier"] if fourier else [])]
    for title, how in (("forward", forward), ("training step without optimizer", both)):
        cases = {name: how(network(name), x) for name in names}
        show(f"ResNet-18, {title}, ({batch}, 3, 224, 224), {DEVICE.type}", in_turns(cases, runs=runs), limit=LIMIT)


def step_memory(name: str) -> int:
    """Bytes at the peak of a first training step: weights, gradients, activations; CUDA's peak, or resident bytes of the process.

    Counting what autograd saves would miss what checkpointing holds, so the whole process is measured.
    """
    before = 0 if DEVICE.type == "cuda" else int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    both(network(name), torch.randn(MEMORY_BATCH, 3, 224, 224, device=DEVICE))()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def measure_memory() -> None:
    """Print peak memory, each network in a process of its own, because a peak is never forgotten."""
    print(f"\nPeak memory of a training step, ResNet-18, batch {MEMORY_BATCH}, 224 x 224, {DEVICE.type}")
    limit = None
    for name in (LIMIT, "Cross-D, ours"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.layers", "step", name], check=True, capture_output=True, text=True
        )
        used = int(done.stdout)
        limit = limit or used
        print(f"  {name:<20} {used / 2**20:8.0f} MiB   {used / limit:.2f}")


def main(parts: list[str]) -> None:
    """Print the tables asked for, all if none are named."""
    torch.set_num_threads(1)
    if parts[:1] == ["step"]:
        print(step_memory(parts[1]))
        return
    chosen = parts or ["table3", "resnet", "volumes", "network", "memory"]
    cuda = DEVICE.type == "cuda"
    if "table3" in chosen:
        for on_cuda, on_cpu, ins, outs, side, stride, kernel in TABLE_3:
            batch = on_cuda if cuda else on_cpu
            measure_layer(batch, ins, outs, side if cuda else min(side, 128), stride, kernel, runs=9 if cuda else 3)
    if "resnet" in chosen:
        for on_cuda, on_cpu, *shape in RESNET_18:
            measure_layer(on_cuda if cuda else on_cpu, *shape, runs=9 if cuda else 3)
    if "volumes" in chosen:
        measure_volume(64, 8, 128, runs=5)
        measure_volume(64, 32, 56, runs=5)
    if "network" in chosen:
        measure_network(2, runs=3, fourier=True)
        measure_network(32 if cuda else 8, runs=3, fourier=cuda)
    if "memory" in chosen:
        measure_memory()


if __name__ == "__main__":
    main(sys.argv[1:])
