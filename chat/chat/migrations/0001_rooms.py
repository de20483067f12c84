"""The tables of the chat, and the room that everybody comes to first."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def make_lobby(apps, schema_editor):
    rooms = apps.get_model("chat", "Room").objects.using(schema_editor.connection.alias)
    rooms.get_or_create(slug="lobby", defaults={"title": "Lobby"})


class Migration(migrations.Migration):
    initial = True

    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.CreateModel(
            name="Room",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("slug", models.SlugField(allow_unicode=True, unique=True)),
                ("title", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name="ReadMark",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("message", models.PositiveBigIntegerField()),
                (
                    "user",
                    models.ForeignKey(
                        settings.AUTH_USER_MODEL,
                        django.db.models.deletion.CASCADE,
                        related_name="+",
                    ),
                ),
                (
                    "room",
                    models.ForeignKey(
                        "chat.room", django.db.models.deletion.CASCADE, related_name="+"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("user", "room"), name="one_mark")],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("author", models.CharField(max_length=160)),
                ("key", models.CharField(max_length=100)),
                ("text", models.TextField()),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("revision", models.PositiveIntegerField(default=0)),
                ("deleted", models.BooleanField(default=False)),
                (
                    "room",
                    models.ForeignKey(
                        "chat.room", django.db.models.deletion.CASCADE, related_name="messages"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("room", "author", "key"), name="said_once")
                ],
                "indexes": [models.Index(fields=["room", "id"], name="pages_of_a_room")],
            },
        ),
        migrations.RunPython(make_lobby, migrations.RunPython.noop),
    ]
