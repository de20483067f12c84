"""The option table as command-line arguments, for ``gpulse`` and ``manage.py pulse`` alike.

Arguments stay raw text here: ``gpulse.config`` checks them as it checks every other source, so that
a bad value reads the same wherever it comes from.  What argparse itself refuses (an unknown flag, a
missing value) becomes a :class:`UsageError` without the usage text around it.
"""

import argparse
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from gpulse.errors import UsageError
from gpulse.options import BY_NAME, GROUPS, OPTIONS, SETTABLE, Option

_NUMBER_LIKE = re.compile(r"[+-]?[0-9]")


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see --help")


def add_to(parser: argparse.ArgumentParser, *, binary: bool) -> None:
    """Add the options, in their groups.

    :param binary: for the ``gpulse`` command; ``manage.py pulse`` leaves out what Django decides.
    """
    for title in GROUPS:
        rows = [row for row in OPTIONS if row.group == title and (binary or not row.binary_only)]
        group = parser.add_argument_group(title)
        for option in rows:
            if option.name == "version" and not binary:
                continue  # Django adds this flag to every command, and asks get_version()
            _add(group, option)


def _add(group: Any, option: Option) -> None:
    """One argument; it leaves nothing in the namespace where it is not given."""
    common: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(option)}
    if not option.flags:
        group.add_argument(option.name, nargs="?", metavar=option.metavar, **common)
    elif option.action:
        group.add_argument(*option.flags, dest=option.name, action="store_true", **common)
    elif option.is_flag:
        group.add_argument(
            *option.flags, dest=option.name, action=argparse.BooleanOptionalAction, **common
        )
    else:
        more: dict[str, Any] = {"nargs": "?", "const": option.bare} if option.bare else {}
        if option.repeatable:
            more["action"] = "append"
        group.add_argument(
            *option.flags, dest=option.name, metavar=option.metavar, **more, **common
        )


def _help(option: Option) -> str:
    default = "" if option.action else f" (default: {option.describe_default()})"
    return f"{option.help}{default}".replace("%", "%%")


def prepare(arguments: Iterable[str]) -> list[str]:
    """Give a bare flag such as ``--greenlet`` its value, so that it cannot take the next word.

    In ``gpulse --greenlet mysite.wsgi`` argparse would serve ``mysite.wsgi`` greenlets.  A flag is
    bare unless a number follows it, or something that was meant to be one.
    """
    prepared: list[str] = []
    rest = list(arguments)
    bare = {name: option.bare for option in OPTIONS if option.bare for name in option.flags}
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*prepared, word, *rest]
        if word in bare:
            follows = bool(rest) and _NUMBER_LIKE.match(rest[0]) is not None
            word = f"{word}={rest.pop(0) if follows else bare[word]}"
        prepared.append(word)
    return prepared


def given(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a parsed namespace: raw values by name, only those that were given."""
    names = {option.name for option in SETTABLE}
    return {name: value for name, value in namespace.items() if name in names and value is not None}


def render(values: Mapping[str, Any]) -> list[str]:
    """Arguments which parse to ``values``: how ``manage.py pulse`` passes them on."""
    arguments: list[str] = []
    for name, value in values.items():
        option = BY_NAME[name]
        if option.is_flag:
            arguments.append(option.flag if option.check(value) else f"--no-{option.flag[2:]}")
        elif isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            arguments += [f"{option.flag}={item}" for item in value or ("",)]
        elif value is True:
            arguments.append(f"{option.flag}={option.bare}")
        elif isinstance(value, str):
            arguments.append(f"{option.flag}={value}")
        else:
            # From a caller in Python: as the option itself writes it.
            arguments.append(f"{option.flag}={option.show(option.check(value))}")
    return arguments
