"""The peer of ``benchsite`` on Channels, for an ASGI server.

``BENCH_LAYER`` is the channel layer's class, ``BENCH_STORE`` the store's URL.
"""

import os

SECRET_KEY = "only for benchmarks"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["channels"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "channelsite.urls"
ASGI_APPLICATION = "channelsite.asgi.application"
USE_TZ = True
CHANNEL_LAYERS = {}
if "BENCH_LAYER" in os.environ:
    CHANNEL_LAYERS["default"] = {
        "BACKEND": os.environ["BENCH_LAYER"],
        # The layer waits for 5 s at a time, and so long is redis-py 8's own patience: a room that
        # is quiet for that long would lose its sockets.
        "CONFIG": {"hosts": [{"address": os.environ["BENCH_STORE"], "socket_timeout": None}]},
    }
