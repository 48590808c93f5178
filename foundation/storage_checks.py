"""Checks of a storage location: everything that verbs do there, with objects of our own that are removed again."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.checks import CheckResult, Level, run_check
from crossdim.foundation.location import S3_PROTOCOLS, format_location
from crossdim.foundation.object_store import TEMPORARY_PREFIX
from crossdim.foundation.reachability import measure_clock_skew
from crossdim.foundation.storage_arguments import reach
from crossdim.storage_schema.errors import StorageError, UnreachableError

#: S3 refuses requests whose time differs by more.
REFUSED_SKEW_S = 15 * 60
#: More than a clock that is set by NTP ever differs; ours.
LARGE_SKEW_S = 60
CORRECT = "correct what this names; the options of a store are listed by: crossdim doctor --help"
LIST = "s3:ListBucket"
SET_CLOCK = "set this machine's clock: sudo timedatectl set-ntp true"

DATA = bytes(range(256)) * 16
FREE_SPACE = "free some space there: df -h lists what is full"
#: A range inside of ``DATA``.
OFFSET, LENGTH = 1000, 256


def check_storage(bucket: Bucket) -> list[CheckResult]:
    """Check that objects can be written, read, listed and removed below a location, and that its clock agrees with ours.

    Args:
        bucket: the location; of a folder that does not exist, the nearest one above it is tried.

    Returns:
        A result for each operation that was tried.
    """
    clock = run_check("storage clock", lambda: [_check_clock(bucket)], partial(_advise, bucket))
    found: list[Bucket] = []

    def open_it() -> list[CheckResult]:
        found.append(_find_existing(reach(bucket)))
        if not bucket.is_local and bucket.protocol not in S3_PROTOCOLS:
            found[0].exists()  # such a store is asked by its first request only
        return [CheckResult(check="storage location", found=f"{found[0].where('')} answers")]

    opened = run_check("storage location", open_it, partial(_advise, bucket))
    return [*clock, *opened, *(_try_operations(found[0]) if found else ())]


def _advise(bucket: Bucket, error: Exception) -> str:
    """What to do about a store that does not answer, or refuses to be asked for a reason that the error tells."""
    if bucket.protocol not in S3_PROTOCOLS or not isinstance(error, UnreachableError):
        return CORRECT
    address = bucket.options.endpoint_url or f"https://{bucket.root.split('/', 1)[0]}.s3.amazonaws.com"
    return f"see what answers there: curl -I {shlex.quote(format_location(address))}"


def _find_existing(bucket: Bucket) -> Bucket:
    """The nearest folder that exists; of other stores than folders, the location itself."""
    if not bucket.is_local:
        return bucket
    place = bucket.root
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    return replace(bucket, url=place)


def _check_clock(bucket: Bucket) -> CheckResult:
    if bucket.protocol not in S3_PROTOCOLS:
        return CheckResult(check="storage clock", found="not compared: only S3 stores refuse other clocks")
    skew = measure_clock_skew(bucket.root.split("/", 1)[0], bucket.options)
    if skew is None:
        return CheckResult(check="storage clock", level=Level.WARNING, found="the store states no time", remedy=SET_CLOCK)
    direction = "ahead of" if skew > 0 else "behind"
    found = f"this machine is {abs(skew):.0f} s {direction} the store"
    if abs(skew) > REFUSED_SKEW_S:
        refused = f"{found}; S3 refuses more than {REFUSED_SKEW_S} s"
        return CheckResult(check="storage clock", level=Level.FAILURE, found=refused, remedy=SET_CLOCK)
    if abs(skew) > LARGE_SKEW_S:
        return CheckResult(check="storage clock", level=Level.WARNING, found=found, remedy=SET_CLOCK)
    return CheckResult(check="storage clock", found=found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """Two objects in a folder of a name that nobody else has, which listings of other verbs leave out."""

    bucket: Bucket
    folder: str = field(default_factory=lambda: f"{TEMPORARY_PREFIX}doctor-{uuid.uuid4().hex}")

    @property
    def written(self) -> str:
        return f"{self.folder}/written"

    @property
    def created(self) -> str:
        return f"{self.folder}/created"

    def write(self) -> str:
        self.bucket.put(self.written, DATA)
        return f"an object of {len(DATA)} bytes in {self.bucket.where(self.folder)}"

    def read(self) -> str:
        self._compare(self.bucket.read(self.written), DATA)
        return f"{len(DATA)} bytes, as they were written"

    def read_range(self) -> str:
        self._compare(self.bucket.read_range(self.written, OFFSET, LENGTH), DATA[OFFSET : OFFSET + LENGTH])
        return f"{LENGTH} bytes from {OFFSET}, as they were written"

    def list(self) -> str:
        found = [(one.path, one.size) for one in self.bucket.list_objects(self.folder)]
        if found != (expected := [(self.written, len(DATA))]):
            raise StorageError(f"{self.bucket.where(self.folder)}: the store lists {found}; {expected} was written")
        return "the object, with its size"

    def create(self) -> str:
        """Create an object that must not exist, once; the second time the store has to refuse."""
        if not self.bucket.create(self.created, DATA):
            raise StorageError(f"{self.bucket.where(self.created)}: the store refuses to create an object that does not exist")
        if self.bucket.create(self.created, DATA[::-1]) or self.bucket.read(self.created) != DATA:
            raise StorageError(
                f"{self.bucket.where(self.created)}: the store overwrites an object that was to be created once (If-None-Match); "
                "two jobs might overwrite each other's results"
            )
        return "an object is created once, and not overwritten"

    def delete(self) -> str:
        if not self.bucket.exists(self.folder):
            return "nothing was written"
        self.bucket.delete_exactly([self.written, self.created])
        self.bucket.at(self.folder).delete_empty_folders()
        if self.bucket.exists(self.folder):
            raise StorageError(f"{self.bucket.where(self.folder)} is still there after it was deleted; remove it by hand")
        return "what was written, and nothing else"

    def _compare(self, read: bytes, written: bytes) -> None:
        if read != written:
            found = "other bytes" if len(read) == len(written) else f"{len(read)} bytes"
            where = self.bucket.where(self.written)
            raise StorageError(f"{where}: {found} come back where {len(written)} bytes were written; do not use this store")


def _try_operations(bucket: Bucket) -> list[CheckResult]:
    """Write first; what was not written is not read. Whatever was written is deleted."""
    trial = _Trial(bucket=bucket)
    results = _try("write", trial.write, _allow(bucket, "s3:PutObject"))
    if results[0].level is not Level.FAILURE:
        results += _try("read", trial.read, _allow(bucket, "s3:GetObject"))
        results += _try("read range", trial.read_range, _allow(bucket, "s3:GetObject"))
        results += _try("list", trial.list, _allow(bucket, LIST))
        results += _try("create once", trial.create, "use a store that knows conditional writes (If-None-Match)")
    return results + _try("delete", trial.delete, _allow(bucket, "s3:DeleteObject"))


def _try(operation: str, act: Callable[[], str], remedy: str) -> list[CheckResult]:
    name = f"storage {operation}"
    return run_check(name, partial(_report, name, act), lambda error: FREE_SPACE if "no space is left" in str(error) else remedy)


def _report(name: str, act: Callable[[], str]) -> list[CheckResult]:
    return [CheckResult(check=name, found=act())]


def _allow(bucket: Bucket, action: str) -> str:
    if bucket.is_local:
        return f"check rights and owner: ls -ld {bucket.root}"
    if bucket.protocol in S3_PROTOCOLS:
        name, _, folder = bucket.root.partition("/")
        objects = "/".join(filter(None, [name, folder, "*"]))
        resource = f"arn:aws:s3:::{name if action == LIST else objects}"
        statement = json.dumps({"Effect": "Allow", "Action": action, "Resource": resource})
        return f"add to the policy of these credentials: {statement}"
    return f"if this is a refusal, give these credentials the right; else {CORRECT}"
