"""An augmentation: a random gamma curve over values in unit range."""

from __future__ import annotations

import numpy as np


def random_gamma(x: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    exponent = np.exp(rng.uniform(-strength, strength))
    return np.clip(x, 0, 1) ** np.float32(exponent)
