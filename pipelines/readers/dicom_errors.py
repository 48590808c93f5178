"""Errors of pydicom and of codecs, as refusals in words of ours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from pydicom.errors import InvalidDicomError

from crossdim.storage_schema.errors import SampleError


@contextlib.contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate errors of pydicom to messages of ours, and hide its warnings about unusual headers.

    Its texts quote values of the header, where a patient's name may be in the wrong place, so only the kind of error is kept.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SampleError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except InvalidDicomError as error:
        raise SampleError("not_dicom", f"{what}: it does not begin as DICOM does") from error
    except Exception as error:  # codecs and parsers raise errors of any type; pydicom documents none
        raise SampleError("damaged", f"{what} ({type(error).__name__})") from error
