"""The WSGI application, as ``startproject`` writes it: gpulse needs nothing more."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")

application = get_wsgi_application()
