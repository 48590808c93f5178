"""The result of the scan for one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossdim.pipelines.quarantine import Ignored, Quarantined
from crossdim.pipelines.readers.header_info import HeaderInfo

Status = Literal["ok", "ignored", "refused"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """One file: usable, with what its header says; ignored; or refused, and why.

    Attributes:
        version: what told this content of the file from others when it was listed (see ``StoredObject``).
        format: what the file is, by its content or else its name.
        is_image: whether a file that is ignored looks like an image all the same.
        is_dicom: whether its first bytes are DICOM, whatever became of it.
    """

    source: int
    path: str
    uri: str
    size: int
    version: str = ""
    status: Status
    format: str = ""
    is_image: bool = False
    is_dicom: bool = False
    rule: str = ""
    reason: str = ""
    header: HeaderInfo | None = None

    def to_quarantined(self) -> Quarantined:
        """The quarantine row of a refused file."""
        return Quarantined(uri=self.uri, stage="scan", rule=self.rule, reason=self.reason)

    def to_ignored(self) -> Ignored:
        """The row of a file that is ignored."""
        return Ignored(uri=self.uri, format=self.format, rule=self.rule, reason=self.reason)
