"""Transfer of a trained encoder to labelled data: a linear classifier on frozen features, then a few steps of fine-tuning.

Both are tested on every third patient, of whom neither has seen a sample.
"""

import argparse

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import crossdim

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
parser.add_argument("run", nargs="?", default="demo-out/run-unlabelled", help="folder of a run (default: of make demo)")
parser.add_argument("dataset", nargs="?", default="demo-out/volumes", help="labelled dataset (default: of make demo)")
arguments = parser.parse_args()
torch.manual_seed(0)
encoder = crossdim.load_encoder(arguments.run)
dataset = crossdim.open(arguments.dataset, split=None)
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
    # One by one, because images may differ in size; so batch norm stays in evaluation mode, as is usual for small batches.
    logits = head(torch.cat([encoder.module(encoder.prepare(sample)).flatten(2).mean(dim=2) for sample in batch]))
    loss = nn.functional.cross_entropy(logits, torch.tensor([sample.class_index for sample in batch]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    found = head(encoder.embed([dataset[i] for i in np.flatnonzero(held)])).argmax(dim=1).numpy()
print(f"fine-tuned:   {np.mean(found == labels[held]):.2f} of {held.sum()} held-out samples right")
