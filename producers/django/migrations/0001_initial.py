"""Creates the tables of the outbox."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from producers.relay.lane import LANES


def fill_lanes(apps: Any, schema_editor: Any) -> None:
    """What relays lock, one row a lane; a relay of another library may have put them there."""
    lane_model = apps.get_model("contact_sync", "Lane")
    lane_model.objects.using(schema_editor.connection.alias).bulk_create(
        (lane_model(lane=lane) for lane in range(LANES)), ignore_conflicts=True
    )


class Migration(migrations.Migration):
    """Two tables."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Change",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("lane", models.SmallIntegerField()),
                ("owner", models.CharField(max_length=256)),
                ("contact", models.CharField(max_length=256)),
                ("op", models.CharField(max_length=6)),
                ("at", models.BigIntegerField()),
                ("source", models.CharField(max_length=64, null=True)),
                ("traceparent", models.CharField(max_length=256, null=True)),
                ("refused", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "contact_sync_outbox",
                "indexes": [models.Index(fields=["lane", "id"], name="contact_sync_outbox_lane_id")],
            },
        ),
        migrations.CreateModel(
            name="Lane",
            fields=[("lane", models.SmallIntegerField(primary_key=True, serialize=False))],
            options={"db_table": "contact_sync_outbox_lane"},
        ),
        migrations.RunPython(fill_lanes, migrations.RunPython.noop),
    )
