"""The app as Django knows it."""

from __future__ import annotations

from django.apps import AppConfig

from producers.django.settings import read_settings


class ContactSyncConfig(AppConfig):
    """Two tables, and a management command."""

    name = "producers.django"
    label = "contact_sync"
    verbose_name = "contact-sync"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Looks at the settings, so that what does not fit is said when the app starts."""
        read_settings()
