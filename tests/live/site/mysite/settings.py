"""As startproject makes them, but for what the tests vary through the environment."""

import os
from urllib.parse import parse_qs, urlsplit

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["gpulse"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = os.environ.get("TEST_APPLICATION", "mysite.wsgi.application")
TIME_ZONE = "UTC"
USE_TZ = True
FILE_UPLOAD_MAX_MEMORY_SIZE = DATA_UPLOAD_MAX_MEMORY_SIZE = 100_000_000
if url := os.environ.get("TEST_DATABASE_URL"):
    parts = urlsplit(url)
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path[1:],
            "USER": parts.username,
            "HOST": parse_qs(parts.query)["host"][0],
            "CONN_MAX_AGE": None,
        }
    }
if debug := os.environ.get("TEST_DEBUG"):  # on or off, with static files in either case
    DEBUG = debug == "on"
    INSTALLED_APPS += ["django.contrib.staticfiles", "mysite"]
    STATIC_URL = "static/"
GPULSE = {"pulse_app_name": "livetest", "graceful_timeout": 10}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
