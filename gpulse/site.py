"""Facts about the site that the cold master needs and may not import: they live in Django settings.

``manage.py pulse`` has Django loaded, so it calls :func:`describe`, puts the facts into one
environment variable and execs a fresh ``python -m gpulse`` (:func:`hand_over`), which takes them
out again (:func:`take_over`) together with the exact ``sys.path``.

The ``gpulse`` command has nobody to ask, so :func:`probe` starts a child process which imports the
settings (or, where no settings are named, the application, and looks whether that configured
Django), writes the facts as JSON to its standard output and ends.  What the site prints while it is
imported goes nowhere: the workers will import it again and print it again.

The import costs one Django start before the first fork.  Whatever it raises comes back as one line.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gpulse import causes
from gpulse.errors import ApplicationError, GpulseError, UsageError
from gpulse.master.child import die_with_parent

VARIABLE = "_GPULSE_SITE"
"""Carries the facts over exec; removed from the environment as soon as it is read."""
PROBE_DEADLINE = 60.0
"""Seconds that importing the site may take; ``--boot-timeout`` replaces it."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What Django's settings say."""

    settings: str | None = None
    """The settings module; None where Django is not used or was configured without a module."""
    gpulse: dict[str, Any] = field(default_factory=dict)
    """``settings.GPULSE``, with values that JSON can express."""
    wsgi_application: str | None = None
    debug: bool = False


def describe() -> SiteFacts:
    """The facts, in a process that has Django imported; nothing is known where it has not.

    :raises UsageError: ``settings.GPULSE`` is not a dict.
    """
    conf = sys.modules.get("django.conf")
    if conf is None or not conf.settings.configured:
        return SiteFacts()
    settings = conf.settings
    options = getattr(settings, "GPULSE", None) or {}
    module = getattr(settings, "SETTINGS_MODULE", None)
    if not isinstance(options, dict):
        raise UsageError(
            f"GPULSE in {module or 'the Django settings'} is a {type(options).__name__}; "
            'it must be a dict such as {"workers": 4}'
        )
    plain = json.loads(json.dumps({str(key): options[key] for key in options}, default=str))
    return SiteFacts(
        module, plain, getattr(settings, "WSGI_APPLICATION", None), bool(settings.DEBUG)
    )


def hand_over(facts: SiteFacts, environ: MutableMapping[str, str]) -> None:
    """Put the facts and ``sys.path`` where :func:`take_over` finds them after an exec."""
    environ[VARIABLE] = json.dumps({"facts": asdict(facts), "path": sys.path})


def take_over(environ: MutableMapping[str, str]) -> SiteFacts | None:
    """Take what :func:`hand_over` left, and import from where that process did.

    :raises UsageError: the variable holds something else.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        content = json.loads(text)
        facts = SiteFacts(**content["facts"])
        path = [str(entry) for entry in content["path"]]
    except (ValueError, TypeError, LookupError):
        raise UsageError(f"{VARIABLE} is private to gpulse; unset it") from None
    sys.path[:] = path
    return facts


def interpreter() -> list[str]:
    """The command that starts this Python again, with its -O, -W and -X."""
    command = [sys.executable, *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
    command += [f"-W{option}" for option in sys.warnoptions]
    for name, value in sys._xoptions.items():
        command.append(f"-X{name}" if value is True else f"-X{name}={value}")
    return command


def probe(
    settings: str | None,
    app: str | None,
    *,
    load_app: bool = False,
    deadline: float = PROBE_DEADLINE,
) -> SiteFacts:
    """Ask a child process, started in the working directory.

    :param settings: the settings module to import, if one is known.
    :param app: the application, loaded where there are no settings.
    :param load_app: load it in any case, or what the settings name in its place.
    :param deadline: seconds.
    :raises ApplicationError: the site cannot be imported; one line says why.
    :raises UsageError: ``settings.GPULSE`` is not a dict.
    """
    request = {
        "settings": settings,
        "app": app,
        "load_app": load_app,
        "path": sys.path,
        "parent": os.getpid(),
    }
    with subprocess.Popen(
        [*interpreter(), "-m", "gpulse.site", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            output, noise = child.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ApplicationError(
                f"importing {settings or app} took more than {deadline:g} s; see what it waits "
                "for, or give it more with --boot-timeout"
            ) from None
        except BaseException:
            child.kill()
            raise
    try:
        answer = json.loads(output)
    except ValueError:
        said = noise.decode("utf-8", "replace").strip().splitlines()
        raise ApplicationError(
            f"importing {settings or app} ended the process with status {child.returncode}"
            + (f": {said[-1][:300]}" if said else "")
        ) from None
    if "error" in answer:
        kind = UsageError if answer["status"] == UsageError.exit_status else ApplicationError
        raise kind(answer["error"])
    return SiteFacts(**answer)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """In the child: import what is asked for; the facts, or ``error`` and its exit ``status``."""
    sys.path[:] = request["path"]
    settings, app = request["settings"], request["app"]
    try:
        if settings:
            _import_settings(settings)
        if request["load_app"] or not settings:
            # Imports the WSGI module of the site: only here, never in the cold master.
            from gpulse.worker import application

            application.load(app or describe().wsgi_application, settings)
        return asdict(describe())
    except GpulseError as error:
        return {"error": str(error), "status": error.exit_status}


def _import_settings(module: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = module
    try:
        importlib.import_module(module)
        importlib.import_module("django.conf").settings.DEBUG  # noqa: B018 - reads the settings
    except (Exception, SystemExit) as error:
        raise ApplicationError(
            f"cannot import {module}: {causes.describe(error, module)}"
        ) from error


def main() -> None:
    """The child of :func:`probe`."""
    request = json.loads(sys.argv[1])
    if not die_with_parent(request["parent"]):  # nobody is left to answer
        sys.exit(1)
    answer_fd = os.dup(1)
    os.dup2(2, 1)  # what the site prints must not get into the answer
    answer = json.dumps(_answer(request)).encode()
    with contextlib.suppress(BrokenPipeError), os.fdopen(answer_fd, "wb") as output:
        output.write(answer)
    # Not sys.exit: the site may have started threads or registered exit handlers.
    os._exit(0)


if __name__ == "__main__":
    main()
