"""What a version of a dataset takes over from the version before it: rows of its tables and the objects that they name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from crossdim.pipelines.duplicates import Duplicate
from crossdim.pipelines.markers import Used
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.sinks.bank import ZARR_DOCUMENT
from crossdim.storage_schema.manifest import Manifest, ObjectEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class Reused:
    """What is taken over of inputs that are as they were.

    Attributes:
        version: that is written.
        previous: manifest of the version before.
        catalog: rows of the inputs' samples, in their order.
        quarantine: rows of their files that were left out.
        used: the inputs, each with the number of its files that samples were made of.
        repeats: inputs whose content one of the others has.
    """

    version: int
    previous: Manifest
    catalog: tuple[dict[str, object], ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    used: tuple[Used, ...] = ()
    repeats: tuple[Duplicate, ...] = ()

    def list_entries(self, named: Collection[str]) -> list[ObjectEntry]:
        """The objects of the version before that hold samples of this one, with the documents of their banks.

        Args:
            named: paths that the catalog of this version names.
        """
        banks = {f"{path.partition('.zarr/')[0]}.zarr/{ZARR_DOCUMENT}" for path in named if ".zarr/" in path}
        return [entry for entry in self.previous.objects if entry.path in named or entry.path in banks]
