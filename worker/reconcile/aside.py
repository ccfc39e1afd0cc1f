"""Files without a name in the temporary directory: they disappear with the process."""

from __future__ import annotations

import io
import os
import tempfile
from typing import TYPE_CHECKING

from producers.contract.errors import ContactSyncError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class NoRoomError(ContactSyncError):
    """The temporary directory cannot be written. The message is one line that names it."""


class _Raw(io.FileIO):
    """What is buffered is often written much later, so that nobody would know what is full."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise _no_room(error) from None


def file_aside() -> io.BufferedRandom:
    """Returns a new file, to write and to read.

    Raises:
        NoRoomError: it cannot be made. Writing, seeking and closing it raise this too.
    """
    try:
        with tempfile.TemporaryFile(buffering=0) as made:
            return io.BufferedRandom(_Raw(os.dup(made.fileno()), "r+b"))
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> NoRoomError:
    where = f" {tempfile.tempdir}" if tempfile.tempdir else ""  # none is known if none can be used
    return NoRoomError(f"the temporary directory{where} cannot be written: {error.strerror}; TMPDIR may name another")
