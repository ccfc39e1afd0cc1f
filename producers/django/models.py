"""The outbox's two tables, as Django knows them; producers/outbox/tables.py has the same for SQLAlchemy."""

from __future__ import annotations

from django.db import models


class Change(models.Model):
    """A change that was recorded and is not in the log yet; sent in the order of the ids of its lane."""

    id = models.BigAutoField(primary_key=True)
    lane = models.SmallIntegerField()
    owner = models.CharField(max_length=256)
    contact = models.CharField(max_length=256)
    op = models.CharField(max_length=6)
    at = models.BigIntegerField()
    source = models.CharField(max_length=64, null=True)  # noqa: DJ001 - as who writes the table without Django leaves it
    traceparent = models.CharField(max_length=256, null=True)  # noqa: DJ001 - the same
    refused = models.CharField(max_length=200, null=True)  # noqa: DJ001 - the same

    class Meta:
        """Where it lies."""

        db_table = "contact_sync_outbox"
        indexes = (models.Index(fields=["lane", "id"], name="contact_sync_outbox_lane_id"),)

    def __str__(self) -> str:
        """Without ids of people: it may stand in a log."""
        return f"{self.op} {self.pk}"


class Lane(models.Model):
    """What a relay locks while it forwards a lane's changes."""

    lane = models.SmallIntegerField(primary_key=True)

    class Meta:
        """Where it lies."""

        db_table = "contact_sync_outbox_lane"

    def __str__(self) -> str:
        """Its number."""
        return str(self.lane)
