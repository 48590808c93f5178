"""Where inputs of a dataset lie in its sources, for the few that its page shows: refused, ignored or used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.items import Item, ItemFile
from crossdim.pipelines.jobs.names import SourceNames
from crossdim.pipelines.jobs.plan import Plan
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.series_groups import group_series
from crossdim.pipelines.jobs.series_volumes import split_into_volumes
from crossdim.pipelines.quarantine import Ignored, Quarantined
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.series_facts import describe_series

#: Inputs of each rule that are shown; of so many the place is remembered. Ours.
PER_RULE = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInput:
    """One input: its files, by position where headers state one, what headers of a series say together, its item if planned."""

    files: tuple[ItemFile, ...]
    facts: dict[str, str]
    item: Item | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInputs:
    """The inputs of a preparation that has just been published.

    Attributes:
        sources: as folders.
        rules: by which they are read.
        items: of the plan.
        unplanned: inputs that the plan refused or ignored, the first of each rule, by name.
    """

    sources: tuple[Bucket, ...]
    rules: ReadRules
    items: tuple[Item, ...]
    unplanned: dict[str, SourceInput]

    def find(self, uris: Collection[str]) -> dict[str, SourceInput]:
        """Find inputs, and files of inputs, by their names in the dataset; of other names nothing."""
        wanted = set(uris)
        found = {uri: one for uri, one in self.unplanned.items() if uri in wanted}
        for item in self.items:
            if item.uri in wanted:
                found[item.uri] = SourceInput(files=item.files, facts={}, item=item)
            for file in item.files:
                if file.uri in wanted and file.uri != item.uri:
                    found[file.uri] = SourceInput(files=(file,), facts={})
        return found


def take_first_of_rules(rows: Iterable[Quarantined | Ignored]) -> list[str]:
    """Names of the first :data:`PER_RULE` rows of each rule."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if len(named := names.setdefault(row.rule, [])) < PER_RULE:
            named.append(row.uri)
    return [uri for named in names.values() for uri in named]


def locate_unplanned(plan: Plan, results: Sequence[ScanResult], names: SourceNames, rules: ReadRules) -> dict[str, SourceInput]:
    """Locate the first inputs of each rule that the plan refused or ignored.

    Args:
        plan: of the preparation.
        results: of the scan, with their names in the dataset.
        names: that were given to them.
        rules: by which series were split.

    Returns:
        The inputs by name.
    """
    wanted = {*take_first_of_rules(plan.refused), *take_first_of_rules(plan.ignored)}
    found = {one.uri: SourceInput(files=(_place(one),), facts={}) for one in results if one.uri in wanted}
    if len(found) < len(wanted):  # the others are series, or volumes of one
        for key, members in group_series(results).items():
            series = names.name_series(key, members)
            found |= {
                uri: _describe_volume(volume.files)
                for volume in split_into_volumes(members, rules)
                if (uri := volume.uri(series)) in wanted
            }
    return found


def _describe_volume(files: Sequence[ScanResult]) -> SourceInput:
    facts = describe_series([one.header for one in files if one.header])
    return SourceInput(files=tuple(map(_place, sorted(files, key=_find_position))), facts=facts)


def _find_position(result: ScanResult) -> tuple[float, ...]:
    """Where a slice lies, so that the middle one of a series does not depend on the names of its files."""
    found = result.header.slice if result.header else None
    return (found.position_mm or ()) if found else ()


def _place(result: ScanResult) -> ItemFile:
    return ItemFile(source=result.source, path=result.path, uri=result.uri, size=result.size, version=result.version)
