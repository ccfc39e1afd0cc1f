"""The client that upstream apps use to say what changed.

Needs only redis and pydantic: neither celery nor httpx is ever imported from here (CONTRACT section 7).
"""

from producers.async_producer import AsyncContactProducer
from producers.change import ContactChange, Op
from producers.errors import (
    ContactSyncError,
    InvalidChange,
    NotAccepted,
    PartitionsMismatch,
    SettingsError,
    UnknownLogFormat,
)
from producers.producer import ContactProducer
from producers.settings import ProducerSettings, load_settings

__all__ = [
    "AsyncContactProducer",
    "ContactChange",
    "ContactProducer",
    "ContactSyncError",
    "InvalidChange",
    "NotAccepted",
    "Op",
    "PartitionsMismatch",
    "ProducerSettings",
    "SettingsError",
    "UnknownLogFormat",
    "load_settings",
]
