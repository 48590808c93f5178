"""Inputs by the paths that their owner knows: the table that ``prepare`` writes beside the secret key leads back from hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.names import parse_name_table
from crossdim.pipelines.show.preview_record import PreviewRecord
from crossdim.pipelines.show.summary import Tables
from crossdim.pipelines.sources.listing import split_folder
from crossdim.storage_schema.errors import UsageError

#: Of each table, the column that names inputs.
_COLUMNS = {"catalog": "source_uri", "quarantine": "uri", "ignored": "uri"}


def read_source_names(file: Bucket) -> dict[str, str]:
    """Read a table of names.

    Args:
        file: ``prepare --name-map``, or ``.crossdim-names-*.csv`` beside the key.

    Returns:
        Paths by names in the dataset; of a series its folder, the number of its files and the first of them.

    Raises:
        UsageError: if the file is not such a table.
        StorageError: if it cannot be read.
    """
    folder, name = split_folder(file)
    table = parse_name_table(folder.read(name))
    if not table:
        raise UsageError(f"{file.where('')} is no table of names; prepare writes one as .crossdim-names-*.csv or --name-map")
    names = {one.name: one.path for one in table}
    series: dict[str, list[str]] = {}
    for one in table:
        if one.series:
            series.setdefault(one.series, []).append(one.path)
    for name, paths in series.items():
        parent, _, first = min(paths).rpartition("/")
        names.setdefault(name, f"{parent or '.'} ({count(len(paths), 'file')}, the first {first})")
    return names


def use_source_names(tables: Tables, names: Mapping[str, str]) -> Tables:
    """Put paths in the place of names.

    Args:
        tables: of a dataset.
        names: of :func:`read_source_names`.

    Returns:
        The tables; names that are not known stay.

    Raises:
        UsageError: if none is known, as of another dataset.
    """
    known = 0
    renamed: dict[str, pa.Table] = {}
    for table, column in _COLUMNS.items():
        rows: pa.Table = getattr(tables, table)
        published = rows[column].to_pylist()
        found = [_translate(uri, names) for uri in published]
        known += sum(path != uri for path, uri in zip(found, published, strict=True))
        renamed[table] = rows.set_column(rows.column_names.index(column), column, pa.array(found, pa.string()))
    if not known:
        raise UsageError(
            f"--name-map: none of its {count(len(names), 'name')} is in this dataset; name the table of its own sources"
        )
    return replace(tables, **renamed)


def use_source_names_of_previews(previews: PreviewRecord, names: Mapping[str, str]) -> PreviewRecord:
    """Put paths in the place of names.

    Args:
        previews: of a dataset.
        names: of :func:`read_source_names`.

    Returns:
        The record; names that are not known stay.
    """
    return replace(
        previews,
        inputs=tuple(replace(one, uri=_translate(one.uri, names)) for one in previews.inputs),
        values=tuple(replace(one, uri=_translate(one.uri, names)) for one in previews.values),
    )


def _translate(uri: str, names: Mapping[str, str]) -> str:
    """The path of an input; one of several volumes of a series keeps what tells it from the others."""
    name, mark, part = uri.partition("#")
    return names.get(uri) or (f"{names[name]}{mark}{part}" if name in names else uri)
