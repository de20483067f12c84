"""What the chat remembers: rooms, what was said in them, and who has read up to where.

A message is first stored, then published.  Who misses the publishing finds it in the database; who
cannot be sure that it was stored sends it again under the same key, and it is stored once.
"""

import uuid
from typing import Any

from django.conf import settings
from django.db import models, transaction

import gpulse
from chat.visitors import Visitor

LOBBY = "lobby"
"""The slug of the room that a migration makes and everybody comes to first."""
ROOMS = "rooms"
"""The channel that tells every page of new rooms, and of messages in those it does not show."""


class Room(models.Model):
    """A place to talk, at ``/rooms/SLUG/``."""

    slug = models.SlugField(max_length=50, unique=True, allow_unicode=True)
    title = models.CharField(max_length=50)

    @property
    def channel(self) -> str:
        """What is said here, and who comes and goes; settings.py gives it a history."""
        return f"room:{self.slug}"

    def announce(self, author: str = "") -> None:
        """Tell every page's list of this room, or that ``author`` said something in it.  Should
        this be lost it is no harm."""
        note = {"slug": self.slug, "title": self.title, "member": author}
        gpulse.publish(ROOMS, note, on_commit=True)

    def say(self, author: str, text: str, key: str = "") -> "Message":
        """Keep a message and publish it.  The same ``key`` again is the same message, published
        again: if that went wrong the first time it is mended, and otherwise dropped by the store.

        :raises PublishError: the message is kept, but the store is away.
        """
        named = {"author": author, "key": key or uuid.uuid4().hex}
        message, _ = self.messages.get_or_create(**named, defaults={"text": text})
        message.publish()
        return message

    def change(self, author: str, pk: int, text: str | None) -> "Message":
        """Give a message of ``author`` another text, or with None delete it.  Also done twice.

        :raises Message.DoesNotExist: it is not here, not the author's, or deleted already.
        """
        with transaction.atomic():
            message = self.messages.select_for_update().get(pk=pk, author=author)
            if (message.text, message.deleted) != (text or "", text is None):
                if message.deleted:
                    raise Message.DoesNotExist
                message.text, message.deleted = text or "", text is None
                message.revision += 1
                message.save()
        message.publish()
        return message


class Message(models.Model):
    """What somebody said.  A deleted one keeps its row and its key, but not its text."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    author = models.CharField(max_length=160)  # Visitor.member: a guest has no row to point to
    key = models.CharField(max_length=100)  # the author's own name for it
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)
    revision = models.PositiveIntegerField(default=0)  # counts edits: of two frames the later wins
    deleted = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["room", "author", "key"], name="said_once")]
        indexes = [models.Index(fields=["room", "id"], name="pages_of_a_room")]

    def frame(self) -> dict[str, Any]:
        """The whole message as it is now."""
        more = {"id": self.pk, "key": self.key, "revision": self.revision}
        channel = "deleted" if self.deleted else "edited" if self.revision else "webchat"
        author = Visitor.from_member(self.author)
        return author.frame(channel, self.text, time=self.created.isoformat(), **more)

    def publish(self) -> None:
        """Tell everybody.  Called when it is committed: who hears of it may ask the database."""
        once = f"{self.pk}.{self.revision}"  # the store passes on one message of this name
        gpulse.publish(self.room.channel, self.frame(), key=once)
        if self.revision == 0:
            self.room.announce(self.author)


class ReadMark(models.Model):
    """Up to which message a user has read a room.  A guest's marks are in the session."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    room = models.ForeignKey(Room, models.CASCADE, related_name="+")
    message = models.PositiveBigIntegerField()  # an id

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "room"], name="one_mark")]
