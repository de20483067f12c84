"""A site in production's settings with the middleware that every site has, and no more.

It needs Django alone, so that any server can have it.
"""

SECRET_KEY = "only for benchmarks"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS: list[str] = []
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "hellosite.urls"
WSGI_APPLICATION = "hellosite.wsgi.application"
USE_TZ = True
