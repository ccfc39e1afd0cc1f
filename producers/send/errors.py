"""Errors that carry changes back to the caller: what Redis did not accept, and what the spool had no room for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from producers.contract.errors import ContactSyncError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producers.contract.change import ContactChange


_OF_A_KEY: Final = ("WRONGTYPE", "NOPERM")


def others_may_go_on(error: object, *, cluster: bool) -> bool:
    """Returns whether a refusal says nothing of other partitions: it is of one key, or in a cluster of one node."""
    return cluster or str(error).startswith(_OF_A_KEY)


class NotAccepted(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """Redis did not accept some changes, or may not have accepted them.

    The error carries these changes as they were stamped. Each has its ``at``, so sending it again cannot make it newer.
    Sending again a change that was accepted after all has no effect (docs/reference/contract.md, section 7).

    Attributes:
        refused: changes that are certainly not in the log, in the order they were given.
        uncertain: changes whose reply never came, in the order they were given. Each may be in the log or not.
        changes: both, in the order they were given. To try again, pass them to ``send``.
        accepted: how many changes of the same call are in the log.
        cause: the first error from Redis or the connection.
        interrupted: the error that ended the iterable early, if there was one: an InvalidChange, or an error that the
            iterable itself raised. Nothing from there on was taken, so ``changes`` does not contain it.
    """

    def __init__(
        self,
        unaccepted: Sequence[tuple[ContactChange, bool]],
        *,
        accepted: int,
        cause: Exception,
        interrupted: Exception | None = None,
    ) -> None:
        """Args: ``unaccepted`` pairs each change with whether it is certainly not in the log."""
        self.changes = tuple(change for change, _ in unaccepted)
        self.refused = tuple(change for change, certain in unaccepted if certain)
        self.uncertain = tuple(change for change, certain in unaccepted if not certain)
        self.accepted = accepted
        self.cause = cause
        self.interrupted = interrupted
        # The error of an exchange contains no ids: it names the server, or says what the server refuses.
        line = (
            f"{len(self.changes)} of {len(self.changes) + accepted} changes not accepted "
            f"({len(self.refused)} refused, {len(self.uncertain)} uncertain): {str(cause).rstrip('.')}"
        )
        super().__init__(line if interrupted is None else f"{line}; and the changes ended early: {interrupted}")


class SpoolFull(NotAccepted):
    """Redis did not accept some changes, and the spool has no room for them: its limit is reached, or its disk is full.

    The error carries the changes as ``NotAccepted`` does. None of them is in the spool. Changes spooled earlier are
    still there. Send these changes again when there is room; they then go behind the spooled ones.
    """
