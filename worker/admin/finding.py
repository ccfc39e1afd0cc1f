"""One result of ``contact-sync check``. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["ok", "warn", "wrong"]


class Finding(NamedTuple):
    """One result.

    Attributes:
        name: what was checked.
        severity: `ok`; `warn` if it works, but less well or safely than it could; `wrong` if it does not work.
        message: one line, without secrets.
    """

    name: str
    severity: Severity
    message: str
