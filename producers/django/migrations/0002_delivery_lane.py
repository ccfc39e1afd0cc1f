"""Adds the lane of a change: ``live``, or ``bulk`` for imports."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """One column. Its default is the database's own, for writers that do not know the column yet."""

    dependencies = (("contact_sync", "0001_initial"),)
    operations = (
        migrations.RunSQL(
            "ALTER TABLE contact_sync_outbox ADD COLUMN delivery_lane VARCHAR(4) DEFAULT 'live' NOT NULL",
            "ALTER TABLE contact_sync_outbox DROP COLUMN delivery_lane",
            state_operations=[
                migrations.AddField("Change", "delivery_lane", models.CharField(default="live", max_length=4))
            ],
        ),
    )
