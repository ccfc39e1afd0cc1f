"""What an app might have: which user has which in the address book."""

from __future__ import annotations

from django.db import models


class Contact(models.Model):
    user_id = models.IntegerField()
    contact_id = models.IntegerField()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return str(self.pk)


class ShownContact(Contact):
    """The same rows by another name, as an admin page uses them."""

    class Meta:
        app_label = "shop"
        proxy = True
