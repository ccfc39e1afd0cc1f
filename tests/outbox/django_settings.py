"""Settings of an app with both kinds of databases, which the environment names."""

from __future__ import annotations

import os

_POSTGRES = os.environ.get("SHOP_POSTGRES", "")

INSTALLED_APPS = ["producers.django", "tests.outbox.shop"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SHOP_SQLITE", ":memory:")},
    "postgresql": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _POSTGRES.partition("?")[0].rpartition("/")[2],
        "USER": "postgres",
        "HOST": _POSTGRES.partition("host=")[2],
    },
}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
