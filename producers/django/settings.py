"""Reads ``settings.CONTACT_SYNC``, which takes precedence over the environment."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from producers.contract.change import source_fault
from producers.contract.errors import SettingsError
from producers.settings import ProducerSettings, load_settings

_OWN: Final = frozenset({"SOURCE", "FORWARD_AFTER_COMMIT"})


def read_settings() -> ProducerSettings:
    """Returns the settings of the producer.

    Raises:
        ImproperlyConfigured: a setting is unknown or invalid; the line names it.
    """
    given = _given()
    names = {name.upper() for name in ProducerSettings.model_fields}
    unknown = sorted(set(given) - names - _OWN)
    if unknown:
        raise ImproperlyConfigured(
            f"CONTACT_SYNC has no setting {unknown[0]!r}, only {', '.join(sorted(names | _OWN))}"
        )
    if (said := given.get("SOURCE")) is not None and (rule := source_fault(said)):
        raise ImproperlyConfigured(f"CONTACT_SYNC['SOURCE']: {rule}")
    fields = {name.lower(): value for name, value in given.items() if name not in _OWN}
    try:
        return load_settings(ProducerSettings, None, None, **fields)
    except SettingsError as error:
        raise ImproperlyConfigured(f"CONTACT_SYNC: {error}") from None


def source() -> str | None:
    """Returns the source of this app's changes, for changes without a source of their own."""
    found: str | None = _given().get("SOURCE")
    return found


def forwards_after_commit() -> bool:
    """Returns whether a change is forwarded right after its commit. If not, only relays forward."""
    return bool(_given().get("FORWARD_AFTER_COMMIT", True))


def _given() -> dict[str, Any]:
    found: dict[str, Any] = getattr(settings, "CONTACT_SYNC", {})
    return found
