"""Records what happens to a model's rows, through Django's signals."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django.db.models.signals import post_delete, post_save

from producers.django.recording import delete, upsert

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model


def sync_contacts(
    model: type[Model], *, owner: str | Callable[[Any], object], contact: str | Callable[[Any], object]
) -> None:
    """Records an upsert whenever a row of the model is saved, and a delete whenever a row is deleted.

    They are recorded in the same transaction. Django sends no signals for ``QuerySet.update``, ``bulk_create`` and raw
    SQL: use ``record`` for these. If the owner or contact of a row changes, an upsert of the new pair is recorded:
    record the delete of the old pair yourself. Rows of a fixture (``loaddata``) are recorded too.

    Args:
        model: a model whose rows are pairs, most often a table between users.
        owner: the attribute with the owner's id, such as ``user_id`` or ``user.external_id``; or a function of the row.
        contact: the same for the contact's id.
    """
    owner_of, contact_of = _getter(owner), _getter(contact)

    def saved(instance: Any, using: str, **_: Any) -> None:
        upsert(owner_of(instance), contact_of(instance), using=using)

    def deleted(instance: Any, using: str, **_: Any) -> None:
        delete(owner_of(instance), contact_of(instance), using=using)

    name = f"contact_sync.{model._meta.label}"  # noqa: SLF001 - its public name
    post_save.connect(saved, sender=model, weak=False, dispatch_uid=name)
    post_delete.connect(deleted, sender=model, weak=False, dispatch_uid=name)


def _getter(field: str | Callable[[Any], object]) -> Callable[[Any], str]:
    get = attrgetter(field) if isinstance(field, str) else field
    return lambda row: str(get(row))
