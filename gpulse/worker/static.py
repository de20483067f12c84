"""Static files of a site in development: what ``runserver`` adds, around the site's application.

Runs in the worker, and is imported only for a Django site with DEBUG on.  The files are found and
sent by ``django.contrib.staticfiles``; this is no server of static files for production (ADR 0017).
Source: django/contrib/staticfiles/handlers.py and management/commands/runserver.py.
"""

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.contrib.staticfiles.views import serve
from django.core.exceptions import SuspiciousFileOperation
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import set_script_prefix


class DevelopmentFiles(StaticFilesHandler):
    """Answers what is below STATIC_URL and leaves the rest to the application that it wraps.

    Two things differ from Django's: a path that leads out of the directories is 404 like any other
    file that is not there, not an error of the server; and it works below FORCE_SCRIPT_NAME.

    :raises ImproperlyConfigured: STATIC_URL is empty, or the same as MEDIA_URL.
    """

    def get_base_url(self) -> str:
        # STATIC_URL is settled when it is read first, so what a request would set must be set now.
        prefix = (settings.FORCE_SCRIPT_NAME or "").rstrip("/")
        set_script_prefix(prefix + "/")
        url: str = super().get_base_url()
        return url.removeprefix(prefix) if url.startswith(prefix + "/") else url

    def serve(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return serve(request, self.file_path(request.path_info), insecure=True)
        except SuspiciousFileOperation as error:
            raise Http404("The path leads out of the directories of static files.") from error
