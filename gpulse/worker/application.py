"""Finds and imports the WSGI application; runs in the worker, after patching.

Accepted: ``package.module:attribute``, ``package.module.attribute`` (Django's WSGI_APPLICATION),
``package.module`` (its ``application`` or ``app``), each also with ``()`` behind it or naming a
callable without parameters: a factory, which is called once.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gpulse.causes import describe
from gpulse.errors import ApplicationError

WsgiApplication = Callable[..., Iterable[bytes]]


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
        _import_urls()
    except ApplicationError:
        raise
    except (Exception, SystemExit) as error:
        module = target.removesuffix("()").partition(":")[0]
        raise ApplicationError(f"cannot import {target}: {describe(error, module)}") from error
    if not callable(application):
        raise ApplicationError(
            f"{target} is a {type(application).__name__}, not a WSGI application; "
            "name a callable that takes environ and start_response"
        )
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


def close_database_connections() -> None:
    """Close what this greenlet or thread holds; for a pool member that ends."""
    database = sys.modules.get("django.db")
    if database is not None:
        database.connections.close_all()
