"""Records what happens to a model's rows, through Django's signals."""

from __future__ import annotations

from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any

from django.db import router, transaction
from django.db.models.signals import class_prepared, post_delete, post_save, pre_delete

from producers.django.recording import delete, upsert

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model


def sync_contacts(
    model: type[Model], *, owner: str | Callable[[Any], object], contact: str | Callable[[Any], object]
) -> None:
    """Records an upsert whenever a row of the model is saved, and a delete whenever a row is deleted, by a proxy too.

    They are recorded in the same transaction: outside of one, each save is given its own. If the owner or the contact
    is None, as a foreign key can be, nothing is recorded. Django sends no signals for ``QuerySet.update``,
    ``bulk_create`` and raw SQL: use ``record`` for these. If the owner or contact of a row changes, an upsert of the
    new pair is recorded: record the delete of the old pair yourself. Rows of a fixture (``loaddata``) are recorded too.
    Call it twice, with owner and contact swapped, for rows that stand for two pairs.

    Args:
        model: a model whose rows are pairs, most often a table between users.
        owner: the attribute with the owner's id, such as ``user_id`` or ``user.external_id``; or a function of the row.
        contact: the same for the contact's id.
    """
    owner_of, contact_of = _getter(owner), _getter(contact)
    name = ("contact_sync", model._meta.label, _same(owner), _same(contact))  # noqa: SLF001 - its public name

    def saved(instance: Any, using: str, **_: Any) -> None:
        owner_id, contact_id = owner_of(instance), contact_of(instance)
        if owner_id is not None and contact_id is not None:
            upsert(owner_id, contact_id, using=using)

    def deleting(instance: Any, **_: Any) -> None:
        """Reads the ids while the rows that they stand in are there, this one's and those that it refers to."""
        vars(instance).setdefault("_contact_sync", {})[name] = owner_of(instance), contact_of(instance)

    def deleted(instance: Any, using: str, **_: Any) -> None:
        read = vars(instance).get("_contact_sync", {}).pop(name, None)
        owner_id, contact_id = read or (owner_of(instance), contact_of(instance))  # somebody else may send the signal
        if owner_id is not None and contact_id is not None:
            delete(owner_id, contact_id, using=using)

    _save_in_transactions(model)

    def connect(sender: Any, **_: Any) -> None:
        """Django names the class that was used: a proxy for the rows of its model, too."""
        if issubclass(sender, model):
            post_save.connect(saved, sender=sender, weak=False, dispatch_uid=name)
            # With a row of a child its parent's row is deleted as well, and named.
            if sender._meta.concrete_model is model._meta.concrete_model:  # noqa: SLF001 - its public name
                pre_delete.connect(deleting, sender=sender, weak=False, dispatch_uid=name)
                post_delete.connect(deleted, sender=sender, weak=False, dispatch_uid=name)

    for each in _with_subclasses(model):
        connect(each)
    class_prepared.connect(connect, weak=False, dispatch_uid=name)


def _with_subclasses(model: type[Model]) -> list[type[Model]]:
    return [model, *(each for child in model.__subclasses__() for each in _with_subclasses(child))]


def _save_in_transactions(model: type[Model]) -> None:
    """Lets each save of the model's rows begin a transaction, if none is open.

    Django deletes in a transaction, but sends the signal of a save after the save's own. A crash in between would leave
    a row without its change.
    """
    save_base = model.save_base
    if getattr(save_base, "in_transaction", False):
        return

    @wraps(save_base)
    def in_transaction(self: Model, *args: Any, **options: Any) -> None:
        using = options.get("using") or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using, savepoint=False):
            save_base(self, *args, **options)

    in_transaction.in_transaction = True  # type: ignore[attr-defined] # so that a second call does not wrap it again
    model.save_base = in_transaction  # the one place that each way of saving passes


def _same(field: str | Callable[[Any], object]) -> object:
    """What is equal where the same line of an app gives the function again, and for no two others."""
    if isinstance(field, FunctionType) and not field.__closure__ and not field.__defaults__:
        return field.__code__
    return field


def _getter(field: str | Callable[[Any], object]) -> Callable[[Any], str | None]:
    if not isinstance(field, str):
        return lambda row: _id(field(row))

    def get(row: Any) -> str | None:
        value = row
        for name in field.split("."):
            value = getattr(value, name)
            if value is None:
                return None
        return _id(value)

    return get


def _id(value: object) -> str | None:
    return None if value is None else str(value)
