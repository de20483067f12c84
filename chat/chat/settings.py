"""Settings of the chat.  What differs from one machine to the next comes from the environment:

``DEBUG``           on (the default) or off
``SECRET_KEY``      needed where DEBUG is off; else made once and kept in the file secret_key
``ALLOWED_HOSTS``   host names, separated by commas (default: this machine only)
``DATABASE_URL``    see database.py (default: db.sqlite3 beside manage.py)
``STATIC_ROOT``     where collectstatic puts files (default: static_root beside manage.py)
"""

import os
from contextlib import suppress
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from chat.database import database

BASE_DIR = Path(__file__).resolve().parent.parent

match os.environ.get("DEBUG", "on").lower():
    case "on" | "1" | "true" | "yes":
        DEBUG = True
    case "off" | "0" | "false" | "no":
        DEBUG = False
    case other:
        raise ImproperlyConfigured(f"DEBUG is {other!r}: write on or off")


def _kept_secret_key(path: Path) -> str:
    """The key in ``path``, made at the first call.

    Several workers may get here at the same moment and must agree, since a session cookie signed
    by one is read by another: each writes a draft, and the first link to the final name wins.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(get_random_secret_key(), encoding="utf-8")
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text(encoding="utf-8")


SECRET_KEY = os.environ.get("SECRET_KEY", "")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured("SECRET_KEY is empty and DEBUG is off: set SECRET_KEY")
    SECRET_KEY = _kept_secret_key(BASE_DIR / "secret_key")

ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "gpulse",  # brings the command `manage.py pulse`
    "chat",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",  # serves STATIC_ROOT
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "chat.urls"
WSGI_APPLICATION = "chat.wsgi.application"

DATABASE_URL = os.environ.get("DATABASE_URL") or f"sqlite:///{BASE_DIR}/db.sqlite3"
DATABASES = {"default": database(DATABASE_URL)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "page"

STATIC_URL = "static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT") or BASE_DIR / "static_root"
WHITENOISE_AUTOREFRESH = DEBUG  # also under the test runner, which turns DEBUG off
if not DEBUG:
    # Names with a hash, for ever in the browser's cache; they exist from `collectstatic` on.
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }

GPULSE = {  # every option of `manage.py pulse` may stand here
    "pulse_app_name": "chat",
    # What a page missed while its connection was away is sent to it when it comes back.  Whoever
    # was away for longer, in messages or in seconds, is told so and asks the database.
    "history": {"room:*": {"size": 200, "age": 600}},
}
