"""What a request is refused with: a status, a word for programs, and a line for people."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """Ends a request.

    Args:
        status: HTTP status.
        error: one word, for programs.
        message: one line, for people; without secrets, and without what was sent.
    """

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
