"""Columns of a catalog as arrays, for checks that look at every row at once."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.pseudo3d import Pseudo3D, find_recorded_settings
from crossdim.storage_schema.vocabulary import Presentation

#: NumPy descriptors that samples are stored in; no objects, no text, no dates.
DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f2", "<f4", "<f8")
_ROLES = {Presentation.IMAGE: "shard", Presentation.PSEUDO3D: "shard", Presentation.SUPERPATCH: "bank"}
_INT64_MAX = 2**63 - 1

Number = np.int64 | np.int32 | np.float64
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Columns:
    """The catalog's columns as arrays, each made once."""

    def __init__(self, table: pa.Table, manifest: Manifest) -> None:
        self._table, self._manifest = table, manifest
        self._columns: dict[str, Any] = {}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def arrow(self, name: str) -> pa.Array:
        """A column as one Arrow array."""
        if name not in self._columns:
            chunks = self._table[name].combine_chunks()
            self._columns[name] = chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks)
        return self._columns[name]

    def numbers(self, name: str) -> npt.NDArray[Number]:
        """A column of numbers; NaN where it is null."""
        found: npt.NDArray[Number] = self.arrow(name).to_numpy(zero_copy_only=False)
        return found

    def known(self, name: str) -> Mask:
        """Where a column is not null."""
        found: Mask = self.arrow(name).is_valid().to_numpy(zero_copy_only=False)
        return found

    def equals(self, name: str, value: str) -> Mask:
        """Rows in which a text column has this value.

        Args:
            name: of the column.
            value: the whole text.

        Returns:
            (N,) bool; False where the column is null.
        """
        return self._true(pc.equal(self.arrow(name), value))

    def matches(self, name: str, pattern: str) -> Mask:
        """Rows in which a text column matches a regular expression from its beginning to its end.

        Args:
            name: of the column.
            pattern: in the syntax of RE2, without anchors.

        Returns:
            (N,) bool; False where the column is null.
        """
        return self._true(pc.match_substring_regex(self.arrow(name), rf"\A(?:{pattern})\z"))

    def holds_one_of(self, name: str, values: tuple[str, ...]) -> Mask:
        """Rows in which a text column has one of these values.

        Args:
            name: of the column.
            values: the whole texts.

        Returns:
            (N,) bool; False where the column is null.
        """
        return self._true(pc.is_in(self.arrow(name), value_set=pa.array(values)))

    @staticmethod
    def _true(found: pa.Array) -> Mask:
        mask: Mask = found.fill_null(False).to_numpy(zero_copy_only=False)
        return mask

    def lists(self, name: str, length: int) -> tuple[Floats, Mask]:
        """A column of lists as a matrix.

        Args:
            name: of the column.
            length: that every list should have.

        Returns:
            (N, length) float64, NaN where a list is null or has another length; and (N,) bool, the rows whose list has this
            length.
        """
        column = self.arrow(name)
        fits = self._true(pc.equal(pc.list_value_length(column), length))
        values = np.full((len(self), length), np.nan)
        flat = column.filter(pa.array(fits)).flatten().to_numpy(zero_copy_only=False)
        values[fits] = flat.astype(np.float64).reshape(-1, length)
        return values, fits

    @property
    def presentation(self) -> Presentation:
        """The manifest's."""
        return self._manifest.presentation

    @property
    def preprocessing_digest(self) -> str:
        """The manifest's."""
        return self._manifest.preprocessing_digest

    @cached_property
    def pseudo3d(self) -> Pseudo3D | None:
        """Geometry of the pseudo-3D view as the manifest records it; None where it records none that can be."""
        settings = find_recorded_settings(self._manifest.preprocessing)
        if self.presentation is not Presentation.PSEUDO3D or settings is None:
            return None
        if any(type(settings.get(one.name, one.default)) is not type(one.default) for one in fields(Pseudo3D)):
            return None
        try:
            return Pseudo3D(**settings)  # type: ignore[arg-type]
        except GeometryError:  # told by who opens the dataset
            return None

    @property
    def rank(self) -> int:
        """Number of axes of every array."""
        return 3 if self.presentation is Presentation.IMAGE else 4

    @property
    def role(self) -> str:
        """The role, in the manifest, of the objects that hold samples."""
        return _ROLES[self.presentation]

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of the object that a sample lies in; -1 where the manifest names none that holds samples."""
        entries = self._manifest.with_role(self.role)
        places = pc.index_in(self.arrow("object"), value_set=pa.array([entry.path for entry in entries], pa.string()))
        known = np.array([*(min(entry.size, _INT64_MAX) for entry in entries), -1], np.int64)
        found: npt.NDArray[np.int64] = known[places.fill_null(len(entries)).to_numpy(zero_copy_only=False)]
        return found

    @cached_property
    def shape(self) -> tuple[Floats, Mask]:
        """Sides of each array, (N, rank), and the rows that have as many sides as they should, (N,)."""
        return self.lists("shape", self.rank)

    @cached_property
    def nbytes(self) -> Floats:
        """Bytes of each decoded array; NaN where shape or dtype is not known. Exact below 2**53, far above the limit."""
        sizes = np.array([*(float(np.dtype(name).itemsize) for name in DTYPES), np.nan])
        places = pc.index_in(self.arrow("dtype"), value_set=pa.array(DTYPES)).fill_null(len(DTYPES))
        product: Floats = self.shape[0].prod(axis=1) * sizes[places.to_numpy(zero_copy_only=False)]
        return product
