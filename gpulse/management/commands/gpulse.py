"""``manage.py gpulse``: publish, and look who listens, from a shell or a cron job.

It talks to the data store of the site as any process of the site does (see :mod:`gpulse.store`), so
the site need not run on this machine where the store has a URL.  What it prints is for people,
columns of plain text; ``--json`` prints one JSON value for programs.  An error is one line and has
the exit status of its kind (``gpulse.errors``).
"""

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

import gpulse
from gpulse import store
from gpulse.errors import GpulseError, UsageError
from gpulse.store.message import MAX_PAYLOAD

_EXAMPLES = """\
examples:
  manage.py gpulse publish room:lobby "hello"
  manage.py gpulse publish room:lobby '{"message": "hello"}' --json
  date | manage.py gpulse publish clock -
  manage.py gpulse channels 'room:*'
  manage.py gpulse presence room:lobby
"""


class Command(BaseCommand):
    """The ``gpulse`` management command."""

    help = "Publish on the channels of this site, and look who is subscribed and present."
    requires_system_checks: Sequence[str] = ()

    def get_version(self) -> str:
        return f"gpulse {gpulse.__version__}"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = _EXAMPLES
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        publish = actions.add_parser("publish", help="publish a message on a channel")
        publish.add_argument("channel", metavar="CHANNEL")
        publish.add_argument(
            "message", metavar="MESSAGE", help="the text; - reads it from standard input"
        )
        publish.add_argument(
            "--json", action="store_true", help="MESSAGE is JSON, and is published as its value"
        )
        publish.add_argument(
            "--key",
            default="",
            help="publish once, however often this is called with this key (channels with history)",
        )

        channels = actions.add_parser("channels", help="list the channels that have subscribers")
        channels.add_argument(
            "pattern", metavar="PATTERN", nargs="?", default="*", help="* is any run of characters"
        )
        channels.add_argument("--json", action="store_true", help="print a JSON object")

        presence = actions.add_parser("presence", help="list who is present in a channel")
        presence.add_argument("channel", metavar="CHANNEL")
        presence.add_argument("--json", action="store_true", help="print a JSON object")

    def handle(self, *args: Any, **options: Any) -> str:
        act = {"publish": _publish, "channels": _channels, "presence": _presence}
        try:
            text: str = act[options["action"]](options)
        except GpulseError as error:
            raise CommandError(str(error), returncode=error.exit_status) from error
        except ValueError as error:
            raise CommandError(str(error), returncode=UsageError.exit_status) from error
        return text


def _publish(options: dict[str, Any]) -> str:
    channel, message = options["channel"], options["message"]
    if message == "-":
        message = _standard_input()
    if options["json"]:
        try:
            message = json.loads(message)
        except ValueError as error:
            raise UsageError(f"MESSAGE is not JSON: {error}") from None
    receipt = store.publish(channel, message, key=options["key"])
    if receipt.duplicate:
        return f"published before, as {receipt.position}"
    workers = _count(receipt.receivers, "worker")
    return f"to {workers}" + (f", as {receipt.position}" if receipt.position else "")


def _channels(options: dict[str, Any]) -> str:
    found = store.current().channels(options["pattern"])
    return _table(found, ("CHANNEL", "WORKERS"), options["json"])


def _presence(options: dict[str, Any]) -> str:
    return _table(gpulse.roster(options["channel"]), ("MEMBER", "SOCKETS"), options["json"])


def _standard_input() -> str | bytes:
    """What stands there without its last line end; bytes where it is not UTF-8."""
    data = sys.stdin.buffer.read(MAX_PAYLOAD + 1)
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        return data


def _table(counts: dict[str, int], heads: tuple[str, str], as_json: bool) -> str:
    if as_json:
        return json.dumps(counts, ensure_ascii=False)
    rows = [heads, *((_printable(name), str(counts[name])) for name in sorted(counts))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {count}" for name, count in rows)


def _printable(name: str) -> str:
    """The name, in which nothing can move a terminal's cursor: members are named by clients."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
