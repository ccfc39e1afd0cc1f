"""The refusal of a request: an HTTP status, an error code for programs, and a line for people."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """Ends a request.

    Args:
        status: HTTP status.
        error: code for programs, one word.
        message: one line for people. It never contains secrets or the request's input.
    """

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
