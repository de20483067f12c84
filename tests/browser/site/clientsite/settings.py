"""No database, a strict content security policy, channels with a history and one without."""

SECRET_KEY = "only for tests"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["gpulse", "clientsite", "django.contrib.staticfiles"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True},
]
ROOT_URLCONF = "clientsite.urls"
STATIC_URL = "static/"
USE_TZ = True
GPULSE = {"pulse_app_name": "clienttest", "history": {"room:*": {"size": 100, "age": 300}}}
