"""Finds and imports the WSGI application; runs in the worker, after patching.

Accepted: ``package.module:attribute``, ``package.module.attribute`` (Django's WSGI_APPLICATION),
``package.module`` (its ``application`` or ``app``), each also with ``()`` behind it or naming a
callable without parameters: a factory, which is called once.

With DEBUG on, a Django site is wrapped in what serves its static files, as ``runserver`` does.
"""

import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gpulse.causes import describe
from gpulse.errors import ApplicationError

WsgiApplication = Callable[..., Iterable[bytes]]

log = logging.getLogger("gpulse.worker")


def load(target: str | None, settings: str | None) -> WsgiApplication:
    """Import the application.

    :param target: see the module's text; None: Django's own handler for ``settings``.
    :param settings: the Django settings module, exported for the application's import.
    :raises ApplicationError: one line: the module, the cause and where.
    """
    if settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = settings
    if target is None:
        target = "django.core.wsgi:get_wsgi_application()"
    try:
        found = _find(target)
        application = found() if _is_factory(target, found) else found
        if not callable(application):
            raise ApplicationError(
                f"{target} is a {type(application).__name__}, not a WSGI application; "
                "name a callable that takes environ and start_response"
            )
        _import_urls()
        if _wants_static_files(found, application):
            application = _with_static_files(application)
    except ApplicationError:
        raise
    except (Exception, SystemExit) as error:
        module = target.removesuffix("()").partition(":")[0]
        raise ApplicationError(f"cannot import {target}: {describe(error, module)}") from error
    return application  # type: ignore[no-any-return]


def _find(target: str) -> Any:
    name = target.removesuffix("()")
    module_name, colon, path = name.partition(":")
    if colon:
        return _attribute(importlib.import_module(module_name), path, target)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The last part may be an attribute; an import that fails inside the module is its error.
        parent, _, attribute = name.rpartition(".")
        if not parent or error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        if error.name != name:
            raise
        return _attribute(importlib.import_module(parent), attribute, target)
    for attribute in ("application", "app"):
        if hasattr(module, attribute):
            return getattr(module, attribute)
    raise ApplicationError(
        f"{target} has neither 'application' nor 'app'; name the callable as {name}:NAME"
    )


def _attribute(module: Any, path: str, target: str) -> Any:
    found = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ApplicationError(
                f"cannot import {target}: {module.__name__} has no attribute {path!r}"
            ) from None
    return found


def _is_factory(target: str, found: Any) -> bool:
    if target.endswith("()"):
        return True
    if not callable(found):
        return False
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return False
    for arguments, is_factory in (((None, None), False), ((), True)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return is_factory
    return False


def _import_urls() -> None:
    """Import Django's URLconf, and with it the views, which Django leaves to the first request.

    A worker that is ready has all its code: a reload with a broken view ends before it has begun.
    """
    urls, conf = sys.modules.get("django.urls"), sys.modules.get("django.conf")
    if urls is None or conf is None or not conf.settings.configured:
        return
    if getattr(conf.settings, "ROOT_URLCONF", None):
        urls.get_resolver().url_patterns  # noqa: B018 - the property imports


def _wants_static_files(found: Any, application: Any) -> bool:
    """Whether ``runserver`` would serve this site's static files.

    A WSGI application that only uses Django's models has static files of its own, so it must be
    Django's handler or what WSGI_APPLICATION names, wrapped in whatever middleware.

    :param found: what the target named: the application, or the factory that made it.
    """
    conf, registry = sys.modules.get("django.conf"), sys.modules.get("django.apps")
    if conf is None or registry is None or not conf.settings.configured or not registry.apps.ready:
        return False
    if not conf.settings.DEBUG or not registry.apps.is_installed("django.contrib.staticfiles"):
        return False
    # WhiteNoise's way to say that it serves the files while DEBUG is on, too.
    if registry.apps.is_installed("whitenoise.runserver_nostatic"):
        return False
    handlers = sys.modules.get("django.core.handlers.wsgi")
    if handlers is not None and isinstance(application, handlers.WSGIHandler):
        return not getattr(application, "handles_files", False)
    module, _, attribute = (conf.settings.WSGI_APPLICATION or "").rpartition(".")
    return found is getattr(sys.modules.get(module), attribute, None)


def _with_static_files(application: WsgiApplication) -> WsgiApplication:
    from django.core.exceptions import ImproperlyConfigured

    from gpulse.worker.static import DevelopmentFiles

    try:
        return DevelopmentFiles(application)
    except ImproperlyConfigured as error:
        log.warning("static files are not served: %s", error)
        return application


def close_database_connections() -> None:
    """Close what this greenlet or thread holds; for a pool member that ends."""
    database = sys.modules.get("django.db")
    if database is not None:
        database.connections.close_all()
