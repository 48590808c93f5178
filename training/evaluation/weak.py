"""The weak probe: an encoder may rescale its channels to a task, and nothing more.

Weights and biases of batch norms and one linear layer learn, all else is frozen.

Source: Cross-D Conv (arXiv 2411.02441), section III, for what learns. Its public scripts give the norms to a second optimizer
after ten epochs, leave the schedule with the first one, drop the trained norms of one competitor alone, and choose the epoch
on the first fifth of sorted samples. Here (ours) one optimizer holds everything from the first step and its rate goes down by
its own cosine; the statistics of every encoder's norms are taken anew from the training part and then stay; nothing is chosen,
the last step counts; classes weigh alike; folds are those of the other probes.

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
from crossdim.training.engine.optim import AdamW
from crossdim.training.evaluation.classification import balanced_accuracy
from crossdim.training.evaluation.features import Labelled
from crossdim.training.evaluation.probes import Fold
from crossdim.training.evaluation.statistics import restated

#: The rate is published (code), the rest is PyTorch's choice.
OPTIMIZER = AdamW(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
#: Added to variances, as batch norm does: a feature that is silent on the training part must not shout on another.
EPSILON = 1e-5


class WeakReader(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W), as the encoder takes them -> (B, K) logits.

    Features are the mean of the deepest map over space. The linear layer sees them standardised with the statistics of the
    training part, as in the linear probe of masked autoencoders (arXiv 2111.06377, appendix A): otherwise encoders with larger
    features would learn faster. It starts at zero.

    Args:
        encoder: taken over, and frozen but for its batch norms.
        features_NF: what it says of the training part.
        num_classes: to tell apart.
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
        logits: Tensor = self.head((pooled(self.encoder, x) - self.mean) / self.deviation)
        return logits


def pooled(encoder: nn.Module, x: Tensor) -> Tensor:
    """Mean of the deepest map over space, (B, F)."""
    deepest: Tensor = encoder(x)
    return deepest.flatten(2).mean(dim=2)


def fitted(encoder: nn.Module, x: Tensor, classes_N: Tensor, *, epochs: int, batch: int, seed: int) -> WeakReader:
    """A weak reader taught with a training part, in evaluation mode.

    The same arguments give the same weights, bit for bit on a CPU. The encoder is left as it is.

    Args:
        encoder: with batch norms; without any, the linear layer alone learns.
        x: inputs, (N, C, H, W) or (N, C, D, H, W).
        classes_N: class numbers; each of 0 to the largest occurs.
        epochs: passes over the inputs, each in its own order.
        batch: samples a step, at most.
        seed: of the orders.

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
    reader = _untaught(encoder, x[torch.randperm(len(x), generator=order)], len(counts), batch, seed)
    optimizer = OPTIMIZER.build(reader)
    weights = len(x) / (len(counts) * counts)
    steps = [part for _ in range(epochs) for part in torch.randperm(len(x), generator=order).tensor_split(-(-len(x) // batch))]
    for step, part in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = OPTIMIZER.rate(step, len(steps))
        # Summed and then divided: a mean weighted within the batch would make rare classes count less where they meet.
        loss = F.cross_entropy(reader(x[part]), classes_N[part], weight=weights, reduction="sum") / len(part)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return reader


@torch.no_grad()
def _untaught(encoder: nn.Module, x: Tensor, num_classes: int, batch: int, seed: int) -> WeakReader:
    """A reader that has learnt nothing, in evaluation mode, on a copy of the encoder with batch-norm statistics of these inputs.

    They come shuffled: the variance is a mean over batches, which would miss that between classes if each batch held one.
    """
    # No part is a single sample, for which batch norm is undefined.
    parts = x.tensor_split(max(1, len(x) // batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for encoders that drop something while statistics are taken, and the layer's first draw
        fresh = restated(encoder, lambda copied: copied, parts)
        return WeakReader(fresh, torch.cat([pooled(fresh, part) for part in parts]), num_classes).eval()


@torch.no_grad()
def answers(reader: WeakReader, x: Tensor, batch: int) -> npt.NDArray[np.int64]:
    """The likeliest class of each input, whatever the others are."""
    return np.concatenate([reader(part).argmax(dim=1).numpy() for part in x.tensor_split(-(-len(x) // batch))])


def weak_scores(
    encoder: nn.Module, data: Labelled, folds: Sequence[Fold], *, epochs: int = 10, batch: int = 16, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Balanced accuracy of the weak probe on the held-out part of each fold.

    Args:
        encoder: takes ``data.x_NC`` and answers with its deepest map; left as it is.
        data: inputs, classes, patients.
        folds: of :func:`crossdim.training.evaluation.probes.folds_of`, so that no patient is on both sides.
        epochs: passes over a training part.
        batch: samples a step, at most.
        seed: of the order of samples.
    """
    x = torch.from_numpy(data.x_NC)
    classes_N = np.searchsorted(data.names, data.labels)
    scores = []
    for train, test in folds:
        reader = fitted(encoder, x[train], torch.from_numpy(classes_N[train]), epochs=epochs, batch=batch, seed=seed)
        scores.append(balanced_accuracy(classes_N[test], answers(reader, x[test], batch)))
    return np.array(scores)
