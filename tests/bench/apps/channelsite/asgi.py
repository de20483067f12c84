"""As Channels' documentation has it."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "channelsite.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

django_application = get_asgi_application()

from channelsite.consumers import Echo, Room  # noqa: E402 - after Django's set-up

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": URLRouter(
            [path("echo", Echo.as_asgi()), path("room/<slug:name>", Room.as_asgi())]
        ),
    }
)
