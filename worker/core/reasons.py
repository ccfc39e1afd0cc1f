"""Why a record or an entry became a dead letter (contract, sections 2 and 6; pure)."""

from __future__ import annotations

from typing import Final, Literal, get_args

Reason = Literal[
    "refused",
    "buried",
    "missing_owner",
    "missing_contact",
    "missing_op",
    "missing_at",
    "bad_owner",
    "bad_contact",
    "bad_op",
    "bad_at",
    "at_out_of_range",
    "repeated_owner",
    "repeated_contact",
    "repeated_op",
    "repeated_at",
    "bad_data",
    "unmapped",
    "wrong_partition",
    "id_too_long",
]
"""`refused`: the endpoint refuses the record. `buried`: an operator buried a parked pair. All others name the rule that
an entry of the log breaks."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""All of them, in the order in which people see them."""

REFUSED: Final = "refused"

BURIED: Final = "buried"

OF_RECORDS: Final = frozenset({REFUSED, BURIED})
"""Reasons of a record that is in order as we know; all others are of an entry."""

READABLE: Final[frozenset[str]] = OF_RECORDS | {"wrong_partition", "id_too_long"}
"""The reasons after which the change is still readable, so that it can go back into a log: its owner's."""
