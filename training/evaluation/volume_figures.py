"""Figures of reconstruction over volumes: of a method and of predictions that need no training; nearly constant volumes apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: So many values of single volumes are named in a line.
MOST_VALUES = 8
#: A volume whose deviation is below this, in unit range, is restored at 26 dB or better by its own mean.
NEAR_CONSTANT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A measure of every volume, with the compression at which it was reached.

    Attributes:
        name: of the protocol and the measure, such as ``hidden psnr``.
        values: one for each volume.
        compression: size of the input over that of the code.
        predictor: of what needs no training; empty for the method.
    """

    name: str
    values: tuple[float, ...]
    compression: float
    predictor: str = ""

    @property
    def label(self) -> str:
        """Name of the measure, with the predictor if it is not the method."""
        return f"{self.name}, {self.predictor}" if self.predictor else self.name

    @property
    def mean(self) -> float:
        """Mean over volumes."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Sample deviation over volumes; NaN for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    def __str__(self) -> str:
        code = f"compression {self.compression:.3g}:1" if math.isfinite(self.compression) else "no code"
        size = f"n = {len(self.values)}, {code}"
        each = ", ".join(f"{value:.4g}" for value in self.values[:MOST_VALUES]) + (
            ", ..." if len(self.values) > MOST_VALUES else ""
        )
        spread = f" ± {self.spread:.2g}" if len(self.values) > 1 else ""
        return f"{self.label}: {self.mean:.4g}{spread} ({size}; {each})"


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeFigures:
    """Figures over volumes; those that are nearly constant stand apart.

    Attributes:
        volumes: names.
        figures: over these.
        near_constant: names of volumes whose deviation is below :data:`NEAR_CONSTANT`.
        near_constant_figures: over those.
    """

    volumes: tuple[str, ...]
    figures: tuple[Figure, ...]
    near_constant: tuple[str, ...] = ()
    near_constant_figures: tuple[Figure, ...] = ()
