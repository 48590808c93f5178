"""The weak probe: batch norms and one linear layer are trained, all other weights are frozen.

So an encoder may rescale its channels for a task, and nothing more.

Source: Cross-D Conv (arXiv 2411.02441), section III, for what is trained. Its public scripts give the norms to a second
optimizer after ten epochs, leave the schedule with the first one, drop the trained norms of one competitor only, and choose
the epoch on the first fifth of sorted samples. Here (ours) one optimizer has all parameters from the first step, with a
cosine schedule; the statistics of every encoder's norms are recomputed from the training part and then fixed; nothing is
selected, the last step counts; classes have balanced weights; folds are those of the other probes.

Axes: B batch, C channel, D depth, H height, W width, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossdim.storage_schema.errors import RunError
from crossdim.training.config.optimizers import AdamW
from crossdim.training.evaluation.classification import balanced_accuracy
from crossdim.training.evaluation.features import Labelled
from crossdim.training.evaluation.probes import Fold
from crossdim.training.layers.statistics import recompute_statistics

#: The rate is published (code), the rest is PyTorch's choice.
OPTIMIZER = AdamW(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
#: Added to variances, as in batch norm: a feature that is constant in the training part must not become huge in the test part.
EPSILON = 1e-5


class WeakProbe(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W), as the encoder takes them -> (B, K) logits.

    Features are the mean of the deepest map over space. The linear layer gets them standardised with the statistics of the
    training part, as in the linear probe of masked autoencoders (arXiv 2111.06377, appendix A); otherwise encoders with
    larger features would learn faster. It starts at zero.

    Args:
        encoder: changed in place: frozen except for its batch norms.
        features_NF: of the training part.
        num_classes: K.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, encoder: nn.Module, features_NF: Tensor, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        for layer in encoder.modules():
            if isinstance(layer, _BatchNorm):
                layer.requires_grad_(True)
        self.register_buffer("mean", features_NF.mean(dim=0))
        self.register_buffer("deviation", (features_NF.var(dim=0) + EPSILON).sqrt())
        self.head = nn.Linear(features_NF.shape[1], num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.head((mean_over_space(self.encoder, x) - self.mean) / self.deviation)
        return logits


def mean_over_space(encoder: nn.Module, x: Tensor) -> Tensor:
    """Mean of the deepest map over space.

    Args:
        encoder: answers with its deepest map.
        x: inputs.

    Returns:
        (B, F).
    """
    deepest: Tensor = encoder(x)
    return deepest.flatten(2).mean(dim=2)


def fit_weak_probe(encoder: nn.Module, x: Tensor, classes_N: Tensor, *, epochs: int, batch: int, seed: int) -> WeakProbe:
    """Train a weak probe.

    The same arguments give the same weights, bit for bit on a CPU.

    Args:
        encoder: with batch norms (without any, only the linear layer is trained); left as it is.
        x: inputs, (N, C, H, W) or (N, C, D, H, W).
        classes_N: class numbers; each from 0 to the largest occurs.
        epochs: passes over the inputs, each in a new order.
        batch: samples per step, at most.
        seed: of the orders.

    Returns:
        The probe in evaluation mode.

    Raises:
        RunError: if there are fewer than two samples, or a class has none, or epochs or batch are out of range.
    """
    counts = classes_N.bincount()
    if len(x) != len(classes_N) or len(x) < 2 or not counts.all() or epochs < 1 or batch < 2:
        raise RunError(
            f"a weak probe needs 2 samples, each class among them, 1 epoch and a batch of 2; found {len(x)} samples, "
            f"{counts.tolist()} of each class, {epochs} epochs and a batch of {batch}"
        )
    order = torch.Generator().manual_seed(seed)
    reader = _new_probe(encoder, x[torch.randperm(len(x), generator=order)], len(counts), batch, seed)
    optimizer = OPTIMIZER.build(reader)
    weights = len(x) / (len(counts) * counts)
    steps = [part for _ in range(epochs) for part in torch.randperm(len(x), generator=order).tensor_split(-(-len(x) // batch))]
    for step, part in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = OPTIMIZER.learning_rate(step, len(steps))
        # Summed and then divided: a mean weighted within the batch would give rare classes less weight where several meet.
        loss = F.cross_entropy(reader(x[part]), classes_N[part], weight=weights, reduction="sum") / len(part)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return reader


@torch.no_grad()
def _new_probe(encoder: nn.Module, x: Tensor, num_classes: int, batch: int, seed: int) -> WeakProbe:
    """An untrained probe in evaluation mode, on a copy of the encoder with batch-norm statistics of these inputs.

    The inputs must be shuffled: the variance is a mean over batches, which would miss that between classes if each batch
    held one.
    """
    # No part has a single sample, for which batch norm is undefined.
    parts = x.tensor_split(max(1, len(x) // batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the layer's initial weights
        fresh = recompute_statistics(encoder, lambda copied: copied, parts)
        return WeakProbe(fresh, torch.cat([mean_over_space(fresh, part) for part in parts]), num_classes).eval()


@torch.no_grad()
def predict_classes(reader: WeakProbe, x: Tensor, batch: int) -> npt.NDArray[np.int64]:
    """The likeliest class of each input.

    Args:
        reader: in evaluation mode, so that samples do not affect each other.
        x: inputs, (N, C, H, W) or (N, C, D, H, W).
        batch: samples at a time.

    Returns:
        (N,).
    """
    return np.concatenate([reader(part).argmax(dim=1).numpy() for part in x.tensor_split(-(-len(x) // batch))])


def weak_scores(
    encoder: nn.Module, data: Labelled, folds: Sequence[Fold], *, epochs: int = 10, batch: int = 16, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Balanced accuracy of the weak probe on the test part of each fold.

    Args:
        encoder: takes ``data.x_NC`` and answers with its deepest map; left as it is.
        data: inputs, classes, patients.
        folds: of :func:`crossdim.training.evaluation.probes.split_folds`.
        epochs: passes over a training part.
        batch: samples per step, at most.
        seed: of the order of samples.

    Returns:
        (folds,).
    """
    x = torch.from_numpy(data.x_NC)
    classes_N = np.searchsorted(data.names, data.labels)
    scores = []
    for train, test in folds:
        reader = fit_weak_probe(encoder, x[train], torch.from_numpy(classes_N[train]), epochs=epochs, batch=batch, seed=seed)
        scores.append(balanced_accuracy(classes_N[test], predict_classes(reader, x[test], batch)))
    return np.array(scores)
