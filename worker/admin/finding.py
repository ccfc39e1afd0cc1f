"""What ``contact-sync check`` finds: one answer to one question (pure)."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["ok", "warn", "wrong"]


class Finding(NamedTuple):
    """One answer.

    Attributes:
        name: what was looked at.
        severity: `ok`; `warn`, it works, but not as well or as safely as it might; `wrong`, it does not work.
        message: what was found, without secrets.
    """

    name: str
    severity: Severity
    message: str
