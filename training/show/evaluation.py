"""Reads the results of an evaluation from its document; what is damaged, or of another version, is left out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from crossdim.foundation.counts import count_patients
from crossdim.training.run_dir.records import is_count

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """One probe on one dataset: balanced accuracy of the encoder and of the untrained baselines, over the same folds.

    ``difference`` is the mean over folds and baselines of trained minus untrained, ``spread`` its standard deviation. An input
    whose patient is not known counts as a patient; ``num_unknown_patients`` of the patients are such inputs.
    """

    dataset: str
    presentation: str
    probe: str
    num_samples: int
    num_patients: int
    num_classes: int
    num_folds: int
    trained: float
    trained_spread: float
    untrained: float
    untrained_spread: float
    difference: float
    spread: float
    num_unknown_patients: int = 0

    @property
    def patients(self) -> str:
        """The patients in words, such as ``20 patients and 6 inputs of unknown patients``."""
        return count_patients(self.num_patients - self.num_unknown_patients, self.num_unknown_patients)

    @property
    def sampling_error(self) -> float:
        """Largest standard error of a balanced accuracy over so many patients.

        It is sqrt(sum of p (1 - p) / n of each class) / number of classes, and so at most 0.5 / sqrt(n) for equal classes. Folds
        of few patients can agree by chance, so that the spread over them alone says too little.
        """
        return 0.5 / math.sqrt(max(1, self.num_patients))

    @property
    def _only_guesses(self) -> bool:
        """Whether neither the encoder nor untrained ones answer better than by chance."""
        return max(self.trained, self.untrained) <= 1 / self.num_classes

    @property
    def sign(self) -> int:
        """1 if the encoder is above untrained ones by more than the spread and the sampling error, -1 if below, else 0.

        Two that both answer no better than by chance are not told apart.
        """
        least = max(self.spread, self.sampling_error)
        if abs(self.difference) <= least or self._only_guesses:
            return 0
        return 1 if self.difference > 0 else -1

    @property
    def verdict(self) -> str:
        """Whether the difference is larger than the spread, and than the sampling error."""
        if abs(self.difference) <= self.spread:
            return "inside the spread: no difference shown"
        if self._only_guesses:
            return f"no better than chance, {1 / self.num_classes:.3f}, and nor are untrained baselines: no difference shown"
        if not self.sign:
            error = f"the sampling error of {self.patients} (up to {self.sampling_error:.3f})"
            return f"inside {error}: no difference shown"
        return "above the untrained baselines" if self.sign > 0 else "below the untrained baselines"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointResult:
    """One probe of the checkpoint of one step; ``trained`` is its encoder."""

    step: int
    result: ProbeResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A measure of reconstructions: mean and sample deviation over volumes, and the compression."""

    name: str
    mean: float
    spread: float
    compression: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstruction:
    """Measures of one split of a dataset; those of nearly constant volumes stand apart."""

    title: str
    measures: list[Measure]
    near_constant: list[str] = field(default_factory=list)
    near_constant_measures: list[Measure] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Results of the newest evaluation of a run.

    Attributes:
        step: steps that were done; None in evaluations of older versions.
        places: URLs of the datasets, as they were named.
    """

    results: list[ProbeResult] = field(default_factory=list)
    reconstructions: list[Reconstruction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    baselines: int = 0
    step: int | None = None
    places: list[str] = field(default_factory=list)


def parse_evaluation(document: dict[str, Any]) -> Evaluation:
    """Parse the document of an evaluation.

    Args:
        document: as ``crossdim evaluate`` wrote it.

    Returns:
        What can be read of it.
    """
    notes = document.get("notes")
    baselines = document.get("baselines", document.get("twins"))  # the first release called them twins
    return Evaluation(
        results=_parse_each(document.get("results"), _parse_result),
        reconstructions=_parse_each(document.get("restored"), _parse_reconstruction),
        notes=[str(note) for note in notes] if isinstance(notes, list) else [],
        baselines=baselines if isinstance(baselines, int) else 0,
        step=step if isinstance(step := document.get("step"), int) else None,
        places=_parse_each(document.get("evaluated"), lambda value: str(value["url"])),
    )


def parse_checkpoint_results(document: dict[str, Any]) -> list[CheckpointResult]:
    """Parse results of checkpoints.

    Args:
        document: as ``crossdim evaluate --checkpoints`` wrote it.

    Returns:
        What can be read of it, by step.
    """
    found = _parse_each(
        document.get("results"), lambda value: CheckpointResult(step=int(value["step"]), result=_parse_result(value))
    )
    return sorted(found, key=lambda one: one.step)


def group_by_probe(results: Iterable[CheckpointResult]) -> dict[tuple[str, str], list[CheckpointResult]]:
    """Results by dataset and probe, each in the order in which they come."""
    groups: dict[tuple[str, str], list[CheckpointResult]] = {}
    for one in results:
        groups.setdefault((one.result.dataset, one.result.probe), []).append(one)
    return groups


def _parse_each(values: object, parse: Callable[[Any], _Item]) -> list[_Item]:
    found = []
    for value in values if isinstance(values, list) else []:
        with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError, OverflowError):
            found.append(parse(value))
    return found


def _parse_result(value: dict[str, Any]) -> ProbeResult:
    words = {name: str(value[name]) for name in ("dataset", "presentation", "probe")}
    counts = {name: int(value[name]) for name in ("num_samples", "num_patients", "num_classes", "num_folds")}
    names = ("trained", "trained_spread", "untrained", "untrained_spread", "difference", "spread")
    numbers = {name: float(value[name]) for name in names}
    counts["num_unknown_patients"] = int(value.get("num_unknown_patients", 0))
    if counts["num_classes"] < 1 or not all(map(is_count, counts.values())) or not all(map(math.isfinite, numbers.values())):
        raise ValueError("a probe tells classes apart, by figures that are finite")
    return ProbeResult(**words, **counts, **numbers)  # type: ignore[arg-type]


def _parse_reconstruction(value: dict[str, Any]) -> Reconstruction:
    return Reconstruction(
        title=f"{value['dataset']}, {len(value['volumes'])} volumes of split {value['split']}",
        measures=_parse_measures(value["figures"]),
        near_constant=[str(volume) for volume in value.get("near_constant", {}).get("volumes", [])],
        near_constant_measures=_parse_measures(value.get("near_constant", {}).get("figures", {})),
    )


def _parse_measures(figures: dict[str, Any]) -> list[Measure]:
    measures = []
    for name, one in figures.items():
        values = np.array(one["values"], np.float64)
        spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        compression = math.inf if one["compression"] is None else float(one["compression"])
        measures.append(Measure(name=str(name), mean=float(values.mean()), spread=spread, compression=compression))
    return measures
