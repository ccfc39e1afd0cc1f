"""The client with which upstream apps report contact changes.

::

    from producers import ContactProducer

    with ContactProducer() as contacts:      # connects to CONTACT_SYNC_REDIS_URL
        contacts.upsert("1", "2")            # 2 is a contact of 1
        contacts.delete("1", "9")            # 9 is no longer a contact of 1

`ContactProducer` appends changes to the event log in Redis, and `AsyncContactProducer` does the same with `await`. Both
send many changes at once with `send`. A change that Redis accepted is delivered to the chat platform, or superseded by
a newer one.

Times (`at`) are Unix milliseconds, and state when a change happened. With them the order of arrival does not matter,
and a delete wins over every upsert that is not later. A change without `at` is stamped when it is reported.

Every error is a `ContactSyncError`: one line that names the field and the rule, and never contains an id or a secret.

- `InvalidChange`: a change breaks a rule.
- `NotAccepted`: Redis did not accept some changes, or may not have accepted them. The error carries them, to be sent
  again as they are. With `spool=PATH` they go into a local file instead, and the producer forwards them later;
  `SpoolFull` means that this file has no room for them.
- `SettingsError`, `PartitionsMismatch`, `TooOld`, `UnknownLogFormat`: the configuration cannot work.

A producer never sends a change twice by itself, and never loses one silently.

A producer needs redis and pydantic (and python-dotenv if there is a `.env` file), but neither Celery nor httpx. Each is
loaded when the first name that needs it is imported.

Public import paths of the project, which stay as they are:

- `producers`: all names in `__all__`
- `producers.outbox`: the transactional outbox for SQLAlchemy
- `producers.django`: the Django app; in `INSTALLED_APPS` too
- `worker.celery`: the Celery app, for `celery -A worker`
- `worker.reconcile`: reconciliation with the source of truth; all names in `__all__`
- `worker.testing`: a whole contact-sync for integration tests, and the stand-in endpoint; all names in `__all__`
- `contact_sync_pytest`: the pytest plugin, which pytest loads by itself
- `contact-sync`, also `python -m worker`: the command

All other modules are internal and may change in any release.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from producers.async_producer import AsyncContactProducer
    from producers.contract.change import ChangeOptions, ContactChange, Lane, Op
    from producers.contract.errors import (
        ContactSyncError,
        InvalidChange,
        PartitionsMismatch,
        SettingsError,
        SpoolError,
        TooOld,
        UnknownLogFormat,
    )
    from producers.producer import ContactProducer
    from producers.receipt import DeliveryStatus, Receipt, Standing
    from producers.send.errors import NotAccepted, SpoolFull
    from producers.settings import ProducerSettings, load_settings

# Loaded when they are asked for: whoever needs the rules of a change alone, as most commands do, waits for no producer.
_MODULES: Final = {
    "AsyncContactProducer": "producers.async_producer",
    "ChangeOptions": "producers.contract.change",
    "ContactChange": "producers.contract.change",
    "ContactProducer": "producers.producer",
    "ContactSyncError": "producers.contract.errors",
    "DeliveryStatus": "producers.receipt",
    "InvalidChange": "producers.contract.errors",
    "Lane": "producers.contract.change",
    "NotAccepted": "producers.send.errors",
    "Op": "producers.contract.change",
    "PartitionsMismatch": "producers.contract.errors",
    "ProducerSettings": "producers.settings",
    "Receipt": "producers.receipt",
    "SettingsError": "producers.contract.errors",
    "SpoolError": "producers.contract.errors",
    "SpoolFull": "producers.send.errors",
    "Standing": "producers.receipt",
    "TooOld": "producers.contract.errors",
    "UnknownLogFormat": "producers.contract.errors",
    "load_settings": "producers.settings",
}

__all__ = [
    "AsyncContactProducer",
    "ChangeOptions",
    "ContactChange",
    "ContactProducer",
    "ContactSyncError",
    "DeliveryStatus",
    "InvalidChange",
    "Lane",
    "NotAccepted",
    "Op",
    "PartitionsMismatch",
    "ProducerSettings",
    "Receipt",
    "SettingsError",
    "SpoolError",
    "SpoolFull",
    "Standing",
    "TooOld",
    "UnknownLogFormat",
    "load_settings",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
