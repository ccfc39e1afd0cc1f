"""The transactional outbox for Django: records a change in the current transaction, and sends it after the commit.

::

    INSTALLED_APPS = [..., "producers.django"]            # then: manage.py migrate
    CONTACT_SYNC = {"REDIS_URL": "redis://redis:6379/0"}  # or CONTACT_SYNC_REDIS_URL in the environment

    from producers.django import delete, sync_contacts, upsert

    with transaction.atomic():
        contact.delete()
        delete(owner="1", contact="9")                    # committed with the rest, or not at all

Committed changes are forwarded at once if Redis answers quickly; `manage.py contact_sync_relay` (or
`contact-sync relay URL`) forwards the rest. Needs the extra ``django``.
"""

from producers.django.recording import delete, record, upsert
from producers.django.signals import sync_contacts

__all__ = ["delete", "record", "sync_contacts", "upsert"]
