"""Errors of the contract that producers and workers share; each is one clear line."""

from __future__ import annotations


class ContactSyncError(Exception):
    """The base class of every error that this project raises on purpose."""


class InvalidChange(ContactSyncError, ValueError):  # noqa: N818 - a name that says what happened needs no suffix
    """A change breaks a rule of the contract, section 2. The line names the field and the rule, never an id.

    Attributes:
        rule: the field and the rule, without the index.
        index: the change's index in the iterable given to ``send``, counted from 0; None outside of ``send``. Every
            change before it was sent. It and all changes after it were not sent, and none after it was taken.
    """

    def __init__(self, rule: str, index: int | None = None) -> None:
        super().__init__(rule if index is None else f"changes[{index}]: {rule}")
        self.rule = rule
        self.index = index


class SettingsError(ContactSyncError):
    """A setting is missing or invalid. The line names the variable and the rule, never a secret."""


class PartitionsMismatch(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The configured number of partitions differs from the recorded number (contract, section 2).

    Attributes:
        configured: the number in CONTACT_SYNC_PARTITIONS.
        recorded: the number that Redis holds for the namespace.
    """

    def __init__(self, configured: int, recorded: int, namespace: str) -> None:
        super().__init__(
            f"CONTACT_SYNC_PARTITIONS is {configured}, but namespace {namespace!r} has {recorded} partitions: "
            f"leave it unset or set it to {recorded}",
        )
        self.configured = configured
        self.recorded = recorded


class Repartitioning(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The number of partitions is being changed. Until that is done, nothing can be appended or delivered.

    Attributes:
        to: the new number.
    """

    def __init__(self, to: int, namespace: str) -> None:
        super().__init__(
            f"namespace {namespace!r} is being changed to {to} partitions: wait, or if that was interrupted, run "
            f"contact-sync repartition {to} again",
        )
        self.to = to


class UnknownLogFormat(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The recorded configuration of the log cannot be read: another version wrote it, or another program."""


class TooOld(UnknownLogFormat):
    """The log is kept in a form that this version of contact-sync does not know: install a newer one.

    Attributes:
        needed: the least form that one must know to take part.
        known: the newest form that this version knows.
    """

    def __init__(self, who: str, needed: int, known: int, namespace: str) -> None:
        super().__init__(
            f"this contact-sync is too old for the log of namespace {namespace!r}: its {who} must know format "
            f"{needed}, and this one knows format {known}; install a newer one",
        )
        self.needed = needed
        self.known = known


class SpoolError(ContactSyncError):
    """The spool could not take changes, or could not be read.

    Attributes:
        full: whether the reason is that the file, or its disk, is full.
    """

    def __init__(self, line: str, *, full: bool = False) -> None:
        super().__init__(line)
        self.full = full
