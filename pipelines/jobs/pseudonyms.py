"""Where the secret key comes from, and where the table of hashed names is written: with the raw data, never into the dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import contains
from crossdim.pipelines.jobs.names import NamedFile, NameRule, parse_name_table, serialise_name_table
from crossdim.pipelines.sources.listing import NAME_MAP_PREFIX, SALT_NAME, split_folder
from crossdim.pipelines.sources.salt import load_or_create_key, locate_salt, make_key, read_key, tell_if_readable_by_others
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.pseudonym import PseudonymKey


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudonymOptions:
    """The user's options for hashes.

    Attributes:
        salt_file: holds the secret key; None for the one beside the first source.
        name_map: where the table of hashed names is written; None for beside the key.
        names: which names are hashed.
    """

    salt_file: Bucket | None = None
    name_map: Bucket | None = None
    names: NameRule = "by_format"

    def check(self, out: Bucket) -> None:
        """Refuse what can be refused before anything is scanned.

        Raises:
            UsageError: for a key that is none, or a place inside the dataset.
            StorageError: if the named key is not there.
        """
        if self.name_map is not None:
            _check_outside(out, self.name_map, "--name-map")
        if self.salt_file is not None:
            _check_outside(out, self.salt_file, "--salt-file")
            read_key(self.salt_file)
            tell_if_readable_by_others(self.salt_file)

    def draft_key(self, source: Bucket) -> PseudonymKey:
        """The secret key, or a new one that :meth:`load_key` stores once nothing is left to refuse."""
        return self.find_key(source) or make_key()

    def load_key(self, source: Bucket, out: Bucket, new: PseudonymKey | None = None) -> PseudonymKey:
        """Load the secret key of a preparation; a new one is stored.

        Args:
            source: the first source, as a folder.
            out: the dataset, which must not hold the key.
            new: from :meth:`draft_key`; if another preparation has stored a key meanwhile, that one is used.

        Returns:
            The stored key.
        """
        if self.salt_file is not None:
            return read_key(self.salt_file)
        _check_outside(out, source.at(SALT_NAME), "--salt-file")
        key = load_or_create_key(source, new)
        tell_if_readable_by_others(locate_salt(source))
        return key

    def find_key(self, source: Bucket) -> PseudonymKey | None:
        """The secret key if there is one; none is made."""
        if self.salt_file is not None:
            return read_key(self.salt_file)
        return read_key(locate_salt(source)) if source.exists(SALT_NAME) else None

    def write_name_map(self, files: Iterable[NamedFile], source: Bucket, out: Bucket, dataset: str) -> Bucket:
        """Write the table that leads from hashed names back to files.

        Args:
            files: of sources whose names are hashed.
            source: the first source.
            out: the dataset, which must not hold the table.
            dataset: the manifest's ``plan_digest``; its first digits are in the name of the table.

        Returns:
            Where it is.

        Raises:
            StorageError: if it cannot be written; names could not be told from each other afterwards.
        """
        place = self._name_map_place(source, dataset)
        _check_outside(out, place, "--name-map")
        folder, name = split_folder(place)
        try:
            folder.put(name, serialise_name_table(files), private=True)
        except StorageError as error:
            raise StorageError(
                f"the table of hashed names cannot be written: {error}. Name a place for it with --name-map FILE"
            ) from error
        return place

    def read_name_map(self, source: Bucket, dataset: str) -> list[NamedFile]:
        """Read the table that :meth:`write_name_map` wrote.

        Args:
            source: the first source, as a folder.
            dataset: name of the dataset.

        Returns:
            Its rows; none if the table is missing.
        """
        folder, name = split_folder(self._name_map_place(source, dataset))
        return parse_name_table(folder.read(name)) if folder.exists(name) else []

    def _name_map_place(self, source: Bucket, dataset: str) -> Bucket:
        beside = split_folder(self.salt_file)[0] if self.salt_file is not None else source
        return self.name_map or beside.at(f"{NAME_MAP_PREFIX}{dataset[:16]}.csv")


def _check_outside(out: Bucket, place: Bucket, option: str) -> None:
    """Refuse a place inside the dataset: whoever gets the dataset would get the key to its hashes."""
    if contains(out.url, place.url):
        raise UsageError(
            f"{place.where('')} lies inside the dataset {out.where('')} and would be published with it; choose with {option} FILE"
        )
