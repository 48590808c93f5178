"""A training loop of one's own on a published dataset: python examples/own_training.py [DATASET [CHECKPOINT]].

A 2D network becomes one for volumes and learns the labels. Run again, it goes on from the checkpoint.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import crossdim

url = sys.argv[1] if len(sys.argv) > 1 else "demo-out/volumes"
file = sys.argv[2] if len(sys.argv) > 2 else "own_training.pt"
dataset = crossdim.open(url, split=None)
loader = dataset.loader(batch_size=8, crop=(32, 32, 32), seed=0)
flat = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
flat += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(loader.classes))]
network = crossdim.convert(nn.Sequential(*flat), to="acs")
optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
parts = {"network": network, "optimizer": optimizer, "loader": loader}
if Path(file).exists():
    for name, state in torch.load(file, weights_only=True).items():
        parts[name].load_state_dict(state)
for _ in range(3):
    for batch in loader:
        loss = nn.functional.cross_entropy(network(batch["image"]), batch["label"], ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    print(f"{loader.position} samples seen, loss {loss.item():.3f}")
