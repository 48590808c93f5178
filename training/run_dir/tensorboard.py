"""TensorBoardWriter: numbers, pictures, texts and settings as an event file of TensorBoard, made in memory.

TensorBoard reads the files of a folder in the order of their names. Each holds the steps between two checkpoints, so that no
number is put into storage twice, however long a run is.
"""

from __future__ import annotations

import base64
import io
import struct
import time
from collections.abc import Mapping, Sequence

import google_crc32c
from PIL import Image
from tensorboardX import summary as summaries
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from crossdim.foundation.page.pictures import Gallery
from crossdim.training.run_dir.settings_table import Value

#: What the first event of a file says; since version 2 a reader heeds a start (below) and nothing else about steps done again.
VERSION = "brain.Event:2"


class TensorBoardWriter:
    """Collects numbers of steps. A file says where it begins: readers then drop what they have of that step and later ones."""

    def __init__(self, first_step: int) -> None:
        self._records = [_encode(Event(file_version=VERSION))]
        self._records.append(_encode(Event(step=first_step, session_log=SessionLog(status=SessionLog.START))))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step.

        Args:
            step: its number.
            values: by name.
        """
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._records.append(_encode(Event(step=step, summary=summary)))

    def add_text(self, step: int, name: str, text: str) -> None:
        """Add a text, which TensorBoard shows as Markdown.

        Args:
            step: its number.
            name: of the text.
            text: in Markdown.
        """
        self._records.append(_encode(Event(step=step, summary=summaries.text(name, text))))

    def add_settings(self, settings: Mapping[str, Value]) -> None:
        """Add the settings of the run, for the table of hyperparameters, whose figures are those of the run.

        Args:
            settings: by path.
        """
        _, start, _ = summaries.hparams(dict(settings), {})
        self._records.append(_encode(Event(summary=start)))

    def add_end(self) -> None:
        """Add that the run is finished, for the table of hyperparameters."""
        _, _, end = summaries.hparams({}, {})
        self._records.append(_encode(Event(summary=end)))

    def add_galleries(self, step: int, galleries: Sequence[Gallery]) -> None:
        """Add pictures. What a caption says after its comma may change with the step, and is no part of the name.

        Args:
            step: number of steps done.
            galleries: as pages show them.
        """
        values = [
            Summary.Value(tag=f"{gallery.title}/{row}/{picture.caption.partition(',')[0]}", image=_read_image(picture.uri))
            for gallery in galleries
            for row, pictures in gallery.rows
            for picture in pictures
        ]
        self._records.append(_encode(Event(step=step, summary=Summary(value=values))))

    def take(self) -> bytes:
        """Return the file of the steps so far, and begin the next one."""
        file, self._records = b"".join(self._records), [_encode(Event(file_version=VERSION))]
        return file


def _read_image(uri: str) -> Summary.Image:
    """The picture of a data URI, as it is encoded there."""
    png = base64.b64decode(uri.partition(",")[2])
    with Image.open(io.BytesIO(png)) as image:
        return Summary.Image(height=image.height, width=image.width, colorspace=len(image.getbands()), encoded_image_string=png)


def _encode(event: Event) -> bytes:
    """Encode an event: length, its checksum, the event, its checksum."""
    event.wall_time = time.time()
    body: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(body))
    return length + _mask(length) + body + _mask(body)


def _mask(data: bytes) -> bytes:
    """A crc32c that a file of checksums does not confuse: rotated by 15 bits, and a constant added."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
