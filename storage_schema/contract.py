"""The contract of a published dataset: its tables are checked before any of their values is used.

A table is parsed only if its bytes have the size and the sha256 of the manifest. Every value of the catalog that says what
is read, how much memory it takes or what it means is then checked, column by column, in time linear in the rows. All
problems are reported at once, each with the number of rows and a first example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossdim.storage_schema.bank import BLOSC_OVERHEAD_BYTES, CRC_BYTES, LEAST_CHUNK_BYTES, MAX_CHUNK_BYTES
from crossdim.storage_schema.bank import DTYPE as BANK_DTYPE
from crossdim.storage_schema.columns import DTYPES, Columns, Mask
from crossdim.storage_schema.errors import DocumentError, Problem
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.shards import NPY_HEADER_LIMIT
from crossdim.storage_schema.vocabulary import Encoding, Presentation

#: No sample takes more memory than the largest buffer that blosc knows.
MAX_SAMPLE_BYTES = MAX_CHUNK_BYTES
#: No volume that superpatches are put together to has more voxels.
MAX_VOLUME_VOXELS = 2**33
_ENCODINGS = {"shard": Encoding.NPY, "bank": Encoding.ZARR_CHUNK}


def _key(rows: Columns) -> Mask:
    return ~rows.matches("key", "[0-9a-f]{32}")


def _repeated_key(rows: Columns) -> Mask:
    return _repeated(rows.arrow("key").dictionary_encode().indices.to_numpy(zero_copy_only=False))


def _repeated(values: npt.NDArray[Any]) -> Mask:
    """All but the first of equal values."""
    repeated = np.ones(len(values), bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def _position(rows: Columns) -> Mask:
    known = rows.known("position")
    if rows.role == "shard":
        return known
    values = rows.numbers("position")
    return ~known | ~(values >= 0) | _repeated(values)


def _offset(rows: Columns) -> Mask:
    return rows.numbers("offset") < 0


def _length(rows: Columns) -> Mask:
    """Compared without adding, which could overflow."""
    offset, length, known = rows.numbers("offset"), rows.numbers("length"), rows.sizes >= 0
    return (length < 1) | (known & (offset >= 0) & (length > rows.sizes - np.maximum(offset, 0)))


def _shape(rows: Columns) -> Mask:
    sides, fits = rows.shape
    broken: Mask = ~fits | ~(sides >= 1).all(axis=1)
    if rows.presentation is Presentation.SUPERPATCH:
        broken |= (sides[:, 0] != 1) | (sides[:, 1:] != sides[:, 1:2]).any(axis=1)
    return broken


def _dtype(rows: Columns) -> Mask:
    allowed = (BANK_DTYPE.str,) if rows.role == "bank" else DTYPES
    return ~rows.holds_one_of("dtype", allowed)


def _too_large(rows: Columns) -> Mask:
    return rows.nbytes > MAX_SAMPLE_BYTES


def _not_held(rows: Columns) -> Mask:
    """Whether the stored length is impossible for the array.

    A ``.npy`` is its header and its numbers; a chunk of the bank is at most its numbers, a header and a checksum.
    """
    length = rows.numbers("length").astype(np.float64)
    if rows.role == "bank":
        return (length < LEAST_CHUNK_BYTES) | (length > rows.nbytes + BLOSC_OVERHEAD_BYTES + CRC_BYTES)
    return (length <= rows.nbytes) | (length > rows.nbytes + NPY_HEADER_LIMIT)


def _not_finite(name: str) -> Callable[[Columns], Mask]:
    return lambda rows: ~np.isfinite(rows.numbers(name))


def _slope(rows: Columns) -> Mask:
    slope = rows.numbers("slope")
    broken: Mask = ~np.isfinite(slope) | (slope == 0)
    return broken


def _range(rows: Columns) -> Mask:
    high = rows.numbers("unit_high")
    return ~np.isfinite(high) | ~(high > rows.numbers("unit_low"))


def _spacing(rows: Columns) -> Mask:
    values, fits = rows.lists("spacing_mm", rows.rank - 1)
    return rows.known("spacing_mm") & ~(fits & np.isfinite(values).all(axis=1) & (values > 0).all(axis=1))


def _affine(rows: Columns) -> Mask:
    values, fits = rows.lists("affine", 16)
    return rows.known("affine") & ~(fits & np.isfinite(values).all(axis=1))


def _origin(rows: Columns) -> Mask:
    """Every superpatch has an origin. Volumes are assembled by it, so it bounds the memory that this takes."""
    values, fits = rows.lists("origin_zyx", 3)
    given: Mask = rows.known("origin_zyx")
    if rows.presentation is Presentation.SUPERPATCH:
        given = np.ones(len(rows), bool)
        fits = fits & ~((values + rows.shape[0][:, 1:]).prod(axis=1) > MAX_VOLUME_VOXELS)
    volumes, placed = rows.lists("volume_shape", 3)
    outside: Mask = placed & (values >= volumes).any(axis=1)
    return given & ~(fits & (values >= 0).all(axis=1) & ~outside)


def _volume(rows: Columns) -> Mask:
    values, fits = rows.lists("volume_shape", 3)
    small: Mask = (values >= 1).all(axis=1) & (values.prod(axis=1) <= MAX_VOLUME_VOXELS)
    return rows.known("volume_shape") & ~(fits & small)


def _side(name: str) -> Callable[[Columns], Mask]:
    return lambda rows: rows.known(name) & ~(rows.numbers(name) >= 1)


def _not_unrolled(rows: Columns) -> Mask:
    """Whether an image of the stated size does not unroll to the stored shape: who folds a view relies on its size."""
    view, (sides, _) = rows.pseudo3d, rows.shape
    if view is None:
        return np.zeros(len(rows), bool)
    spans = [rows.numbers(name) + 2 * view.padding - view.window for name in ("image_height", "image_width")]
    grid_h, grid_w = (span // view.stride + 1 for span in spans)
    if view.layout == "offset":
        broken = (sides[:, 2] != grid_h) | (sides[:, 3] != grid_w)
    else:
        broken = sides[:, 1] % np.maximum(grid_h * grid_w, 1) != 0
    if not view.allow_crop:
        broken |= (spans[0] % view.stride != 0) | (spans[1] % view.stride != 0)
    unlike: Mask = rows.known("image_height") & rows.known("image_width") & broken
    return unlike


def _foreground(rows: Columns) -> Mask:
    values = rows.numbers("foreground")
    return rows.known("foreground") & ~((values >= 0) & (values <= 1))


def _empty(name: str) -> Callable[[Columns], Mask]:
    return lambda rows: rows.equals(name, "")


#: Column, what every row must hold there, and where rows do not.
RULES: tuple[tuple[str, str, Callable[[Columns], Mask]], ...] = (
    ("key", "32 lower-case hex digits", _key),
    ("key", "a key that no row before has", _repeated_key),
    ("presentation", "the manifest's presentation", lambda rows: ~rows.equals("presentation", str(rows.presentation))),
    ("object", "a path that the manifest names with the role of this presentation's samples", lambda rows: rows.sizes < 0),
    ("encoding", "npy in shards, zarr-chunk in a bank", lambda rows: ~rows.equals("encoding", str(_ENCODINGS[rows.role]))),
    ("position", "in a bank a number of its own from 0 up, in a shard nothing", _position),
    ("offset", "a number from 0 up", _offset),
    ("length", "at least 1 byte, ending inside the object", _length),
    ("shape", "(C, H, W) of images, (1, S, S, S) of superpatches, else (C, D, H, W), sides from 1 up", _shape),
    ("dtype", f"{BANK_DTYPE.str} in a bank, else one of {', '.join(DTYPES)}", _dtype),
    ("shape", f"an array of at most {MAX_SAMPLE_BYTES:,} bytes", _too_large),
    ("length", "as many bytes as an array of this shape and dtype can take in this encoding", _not_held),
    ("slope", "a finite number that is not 0", _slope),
    ("intercept", "a finite number", _not_finite("intercept")),
    ("unit_low", "a finite number", _not_finite("unit_low")),
    ("unit_high", "a finite number above unit_low", _range),
    ("spacing_mm", "nothing, or a finite length above 0 for each spatial axis", _spacing),
    ("affine", "nothing, or 16 finite numbers", _affine),
    (
        "origin_zyx",
        f"three indices from 0 up, inside volume_shape, in a volume of at most {MAX_VOLUME_VOXELS:,} voxels; of images nothing",
        _origin,
    ),
    ("volume_shape", f"nothing, or three sides from 1 up, of at most {MAX_VOLUME_VOXELS:,} voxels", _volume),
    ("image_height", "nothing, or a number from 1 up", _side("image_height")),
    ("image_width", "nothing, or a number from 1 up", _side("image_width")),
    ("image_height", "with image_width the size of an image that unrolls to this shape", _not_unrolled),
    ("foreground", "nothing, or a share from 0 to 1", _foreground),
    ("patient", "a text that is not empty", _empty("patient")),
    ("source_sha256", "64 lower-case hex digits", lambda rows: ~rows.matches("source_sha256", "[0-9a-f]{64}")),
    ("part", "a text that is not empty", _empty("part")),
    (
        "preprocessing_digest",
        "the manifest's preprocessing_digest",
        lambda rows: ~rows.equals("preprocessing_digest", rows.preprocessing_digest),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogCheck:
    """The problems of a catalog, and which of its rows have none, (N,) bool."""

    problems: tuple[Problem, ...]
    sound: Mask


def check_catalog(table: pa.Table, manifest: Manifest) -> CatalogCheck:
    """Check every row of a catalog against the contract.

    Args:
        table: all parts of the catalog together, (N, columns of ``CATALOG_SCHEMA``).
        manifest: of the dataset.

    Returns:
        One problem per broken rule, with the number of rows that break it and the first of them; and the rows without a problem.
    """
    rows, problems = Columns(table, manifest), []
    sound = np.ones(len(rows), bool)
    for column, expected, rule in RULES:
        with np.errstate(invalid="ignore", over="ignore"):
            broken = rule(rows)
        if broken.any():
            problems.append(_describe_problem(rows, column, expected, broken))
            sound &= ~broken
    if len(rows) != manifest.num_samples:
        found = f"the manifest says {manifest.num_samples}, the catalog holds {len(rows)}"
        problems.append(Problem(loc="num_samples", message=found))
    return CatalogCheck(problems=tuple(problems), sound=sound)


def _describe_problem(rows: Columns, column: str, expected: str, broken: Mask) -> Problem:
    first, count = int(broken.argmax()), int(broken.sum())
    key, found = rows.arrow("key")[first].as_py(), rows.arrow(column)[first].as_py()
    message = f"{count:,} of {len(rows):,} rows break the contract; row {first}, sample {key!r}, holds {found!r}"
    return Problem(loc=f"catalog, column {column}", message=f"{message}; expected {expected}")


def join_catalog(parts: list[pa.Table], manifest: Manifest, subject: str) -> pa.Table:
    """Join the parts of a catalog and check every row against the contract.

    Args:
        parts: in the order of their paths, as ``parse_published_table`` returns them; at least one.
        manifest: of the dataset.
        subject: where the catalog came from, for the error.

    Returns:
        The catalog, (N, columns of ``CATALOG_SCHEMA``).

    Raises:
        DocumentError: listing every problem.
    """
    table = pa.concat_tables(parts)
    if problems := check_catalog(table, manifest).problems:
        raise DocumentError(f"{subject} does not keep the contract; prepare the dataset again", problems)
    return table
