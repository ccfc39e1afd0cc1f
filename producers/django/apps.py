"""The configuration of the Django app."""

from __future__ import annotations

from django.apps import AppConfig

from producers.django.settings import read_settings


class ContactSyncConfig(AppConfig):
    """The app: two tables and a management command."""

    name = "producers.django"
    label = "contact_sync"
    verbose_name = "contact-sync"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Checks the settings, so that an invalid one is reported when the app starts."""
        read_settings()
