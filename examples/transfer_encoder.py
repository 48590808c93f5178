"""What a trained encoder knows of labelled data: python examples/transfer_encoder.py [RUN [DATASET]].

First a linear classifier on frozen features, then a few steps of fine-tuning; patients that are held out are asked.
"""

import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import crossdim

run = sys.argv[1] if len(sys.argv) > 1 else "demo-out/run-unlabelled"
url = sys.argv[2] if len(sys.argv) > 2 else "demo-out/volumes"
torch.manual_seed(0)
encoder = crossdim.load_encoder(run)
dataset = crossdim.open(url, split=None)
print(encoder, dataset, sep="\n")

table = dataset.table.to_pandas()
number = {name: n for n, name in enumerate(dataset.classes)}
labels = table["label"].map(number).fillna(-1).to_numpy(np.int64)
patients = sorted(set(table["patient"]))
held = table["patient"].isin(patients[::3]).to_numpy() & (labels >= 0)  # every third patient, and never a part of one
known = ~held & (labels >= 0)

features = encoder.embed(dataset).numpy()
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[known], labels[known])
print(f"linear probe: {probe.score(features[held], labels[held]):.2f} of {held.sum()} held-out samples right")

head = nn.Linear(encoder.num_features, len(dataset.classes))
optimizer = torch.optim.AdamW([{"params": encoder.module.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-2}])
samples = torch.utils.data.Subset(dataset, np.flatnonzero(known))
for batch in torch.utils.data.DataLoader(samples, batch_size=8, shuffle=True, drop_last=True, collate_fn=list):
    encoder.module.train()
    logits = head(encoder.module(encoder.prepare(batch)).flatten(2).mean(dim=2))
    loss = nn.functional.cross_entropy(logits, torch.tensor([sample.class_index for sample in batch]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    encoder.module.eval()
with torch.no_grad():
    found = head(encoder.embed([dataset[i] for i in np.flatnonzero(held)])).argmax(dim=1).numpy()
print(f"fine-tuned:   {np.mean(found == labels[held]):.2f} of {held.sum()} held-out samples right")
