"""Why user code could not be imported, in one line: what it raised, and where in whose file.

Used where a traceback of ours would only hide the cause: the probe of the site and the loading of
the application.  Pure but for reading ``sys.path`` and the working directory's name.
"""

import importlib
import os
import sys
import traceback

_SHOWN = 300
"""Characters of the error's own text: some quote whole documents."""


def describe(error: BaseException, wanted: str) -> str:
    """One line about an error that came out of importing the module ``wanted``."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    if isinstance(error, ModuleNotFoundError) and f"{wanted}.".startswith(f"{error.name}."):
        return f"{error.msg} (looked in {_search_path()})"
    if isinstance(error, SystemExit):
        text = f"it called sys.exit({error.code!r})"
    else:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}".rstrip(": ")
    place = _place(error)
    return f"{text} ({place})" if place else text


def _place(error: BaseException) -> str:
    """The innermost line that is neither the import machinery nor gpulse."""
    ours = os.path.dirname(__file__)
    skipped = (os.path.join(ours, ""), os.path.join(os.path.dirname(importlib.__file__), ""))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *skipped)):
            return f"{frame.filename}, line {frame.lineno}"
    return ""


def _search_path() -> str:
    """The directories of ``sys.path`` that are not Python's own, first ones first."""
    own = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})
    found: list[str] = []
    for entry in sys.path:
        directory = os.path.abspath(entry)
        if not directory.startswith(own) and directory not in found:
            found.append(directory)
    shown = found[:3] or [os.getcwd()]
    return ", ".join(shown) + (", ..." if len(found) > len(shown) else "")
