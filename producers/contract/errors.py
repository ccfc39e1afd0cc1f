"""What can go wrong for a producer, each with one clear line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producers.contract.change import ContactChange


class ContactSyncError(Exception):
    """The base of every error that this project raises on purpose."""


class InvalidChange(ContactSyncError, ValueError):  # noqa: N818 - a name that says what happened needs no suffix
    """A change breaks a rule of CONTRACT section 2; the line names the field and the rule, never an id.

    Attributes:
        rule: the field and the rule, without the index.
        index: where ``send`` met it, counted from 0; None outside of ``send``. Every change before it was sent,
            it and everything after it was not, and nothing after it was taken from the iterable.
    """

    def __init__(self, rule: str, index: int | None = None) -> None:
        super().__init__(rule if index is None else f"changes[{index}]: {rule}")
        self.rule = rule
        self.index = index


class SettingsError(ContactSyncError):
    """A setting is missing or does not fit; the line names the variable and the rule, never a secret."""


class PartitionsMismatch(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The configured number of partitions is not the one that the log was begun with (CONTRACT section 2).

    Attributes:
        configured: the number in CONTACT_SYNC_PARTITIONS.
        recorded: the number that Redis has of the namespace.
    """

    def __init__(self, configured: int, recorded: int, namespace: str) -> None:
        super().__init__(
            f"CONTACT_SYNC_PARTITIONS is {configured}, but namespace {namespace!r} was begun with {recorded}: "
            f"leave it unset or set it to {recorded}",
        )
        self.configured = configured
        self.recorded = recorded


class Repartitioning(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The number of partitions is being changed: nothing can be appended or delivered until that is done.

    Attributes:
        to: the number that there will be.
    """

    def __init__(self, to: int, namespace: str) -> None:
        super().__init__(
            f"namespace {namespace!r} is being changed to {to} partitions: wait, or run contact-sync repartition {to} "
            "again if that was cut short",
        )
        self.to = to


class UnknownLogFormat(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """What is recorded of the log cannot be read: another version, or not ours at all."""


class NotAccepted(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """Redis did not accept some changes, or perhaps did not.

    It carries those changes as stamped: each has its ``at``, so sending them again cannot make them newer, and sending
    one again that was accepted after all changes nothing (CONTRACT section 7).

    Attributes:
        refused: changes that are certainly not in the log, in the order they were given.
        uncertain: changes whose reply never came, which may be in the log or not, in the order they were given.
        changes: both, in the order they were given; hand them to ``send`` to try again.
        accepted: how many changes of the same call are in the log.
        cause: what Redis or the connection said first.
        interrupted: what ended the iterable before its end, if anything did: an InvalidChange or whatever the iterable
            itself raised. Nothing from there on was taken, so nothing from there on is in ``changes``.
    """

    def __init__(
        self,
        unaccepted: Sequence[tuple[ContactChange, bool]],
        *,
        accepted: int,
        cause: Exception,
        interrupted: Exception | None = None,
    ) -> None:
        """Args: ``unaccepted`` is each change with whether it is certain that the log has it not."""
        self.changes = tuple(change for change, _ in unaccepted)
        self.refused = tuple(change for change, certain in unaccepted if certain)
        self.uncertain = tuple(change for change, certain in unaccepted if not certain)
        self.accepted = accepted
        self.cause = cause
        self.interrupted = interrupted
        # redis-py's own words carry no ids: they name the server, or repeat what the server said of the command.
        line = (
            f"{len(self.changes)} of {len(self.changes) + accepted} changes not accepted "
            f"({len(self.refused)} refused, {len(self.uncertain)} uncertain): {str(cause).rstrip('.')}"
        )
        super().__init__(line if interrupted is None else f"{line}; and the changes ended early: {interrupted}")


class SpoolFull(NotAccepted):
    """Redis did not accept some changes, and the spool has no room for them: its bound is reached, or its disk is full.

    It carries the changes as ``NotAccepted`` does. None of them is in the spool; what was spooled before still is, so
    say these again only when there is room, and they come behind it.
    """


class SpoolError(ContactSyncError):
    """The spool did not take changes, or could not be read.

    Attributes:
        full: whether that is because the file, or its disk, has no room.
    """

    def __init__(self, line: str, *, full: bool = False) -> None:
        super().__init__(line)
        self.full = full
