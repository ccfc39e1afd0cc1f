"""The two tables of the outbox for Django; producers/outbox/tables.py defines the same for SQLAlchemy."""

from __future__ import annotations

from django.db import models


class Change(models.Model):
    """A recorded change that is not in the log yet. The changes of a lane are sent in the order of their ids."""

    id = models.BigAutoField(primary_key=True)
    lane = models.SmallIntegerField()
    owner = models.CharField(max_length=256)
    contact = models.CharField(max_length=256)
    op = models.CharField(max_length=6)
    at = models.BigIntegerField()
    source = models.CharField(max_length=64, null=True)  # noqa: DJ001 - NULL, as writers without Django leave it
    delivery_lane = models.CharField(max_length=4, default="live")
    traceparent = models.CharField(max_length=256, null=True)  # noqa: DJ001 - the same
    refused = models.CharField(max_length=200, null=True)  # noqa: DJ001 - the same

    class Meta:
        """The table."""

        db_table = "contact_sync_outbox"
        indexes = (models.Index(fields=["lane", "id"], name="contact_sync_outbox_lane_id"),)

    def __str__(self) -> str:
        """Returns the op and the row's number; no user ids, because the text may appear in a log."""
        return f"{self.op} {self.pk}"


class Lane(models.Model):
    """A lane's row, which a relay locks while it forwards the lane's changes."""

    lane = models.SmallIntegerField(primary_key=True)

    class Meta:
        """The table."""

        db_table = "contact_sync_outbox_lane"

    def __str__(self) -> str:
        """Returns the lane's number."""
        return str(self.lane)
