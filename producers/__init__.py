"""The client that upstream apps use to say what changed.

::

    from producers import ContactProducer

    with ContactProducer() as contacts:      # CONTACT_SYNC_REDIS_URL says where
        contacts.upsert("1", "2")            # 2 is a contact of 1
        contacts.delete("1", "9")            # 9 is one no longer

`ContactProducer` appends changes to the event log in Redis, and `AsyncContactProducer` does the same with `await`; both
take many at once with `send`. What Redis accepted is delivered to the chat platform, or superseded by what is newer.

Times (`at`) are Unix milliseconds, and say when a change happened: with them the order of arrival does not matter, and
a delete wins over every upsert that is not later. A change without `at` is stamped when it is said.

Every error is a `ContactSyncError`, one line that names the field and the rule, and never shows an id or a secret:
`InvalidChange` for a change that breaks a rule, `NotAccepted` with the changes that Redis did not accept, or perhaps
not, to be sent again as they are (or, with `spool=PATH`, kept in a local file and forwarded by themselves, and then
`SpoolFull` where that has no room); `SettingsError`, `PartitionsMismatch` and `UnknownLogFormat` for a configuration
that cannot work. Nothing is sent twice by itself, and nothing is lost in silence.

It needs only redis and pydantic: neither celery nor httpx is ever imported from here.
"""

from producers.async_producer import AsyncContactProducer
from producers.contract.change import ContactChange, Op
from producers.contract.errors import (
    ContactSyncError,
    InvalidChange,
    NotAccepted,
    PartitionsMismatch,
    SettingsError,
    SpoolError,
    SpoolFull,
    UnknownLogFormat,
)
from producers.producer import ContactProducer
from producers.receipt import DeliveryStatus, Receipt, Standing
from producers.settings import ProducerSettings, load_settings

__all__ = [
    "AsyncContactProducer",
    "ContactChange",
    "ContactProducer",
    "ContactSyncError",
    "DeliveryStatus",
    "InvalidChange",
    "NotAccepted",
    "Op",
    "PartitionsMismatch",
    "ProducerSettings",
    "Receipt",
    "SettingsError",
    "SpoolError",
    "SpoolFull",
    "Standing",
    "UnknownLogFormat",
    "load_settings",
]
