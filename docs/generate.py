"""Generates the reference pages that are tables in the code: ``python docs/generate.py [--check]``.

A page here is never edited: the option, signal, error, scoreboard and limit tables are read from
the package, together with the docstrings that stand under them, and written as reStructuredText.
The pages are committed, so that a change of a table shows in its diff; ``--check`` writes nothing
and exits with status 1, naming the stale pages.

Runs on a developer's machine and in ``make check``.  It documents the tree that it lies in.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

# The tree's own package, not an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpulse import errors
from gpulse.cli import BROKEN_PIPE, INTERRUPTED
from gpulse.http.limits import Limits
from gpulse.master import signals
from gpulse.master.policy import LASTING
from gpulse.options import BY_NAME, GROUPS, OPTIONS, Option, show_plain
from gpulse.scoreboard import Cell, WorkerState
from gpulse.websocket import closecodes
from gpulse.websocket.session import SocketLimits

REFERENCE = Path(__file__).resolve().parent / "reference"

BOUNDED = (
    (
        "Connections and the pool",
        (
            "connection.connection",
            "connection.acceptor",
            "connection.outbox",
            "worker.lanes",
            "worker.greenlets",
            "worker.threads",
        ),
    ),
    (
        "TLS and proxies",
        ("connection.tls", "tlsfiles", "connection.proxyheader", "trust", "http.forwarded"),
    ),
    (
        "Requests and responses",
        (
            "http.parser",
            "http.protocol",
            "http.spool",
            "http.response",
            "http.exchange",
            "http.files",
            "http.server",
        ),
    ),
    ("Logs and ids", ("http.accesslog", "logformat.jsonline", "syslog", "requestid")),
    ("Worker", ("worker.worker", "worker.psycopg", "worker.stack", "logs")),
    (
        "WebSocket code outside the consumers' limits",
        ("websocket.consumer", "websocket.compat", "websocket.rate"),
    ),
    ("Logins behind sockets", ("websocket.identities", "websocket.watch")),
    (
        "Data store",
        ("store.base", "store.message", "store.client", "store.subscriber", "runtimedir"),
    ),
    ("Store in memory, and presence", ("store.memory", "store.presence")),
    ("Master", ("master.policy", "master.backoff", "master.sidecar", "master.store_process")),
    ("Configuration", ("options", "values", "paths", "config", "site", "handover", "scoreboard")),
)
"""Title of a section -> modules below ``gpulse`` whose documented constants it shows."""

Rows = Iterable[Sequence[str]]


# From the code to text


def docstrings(source: ModuleType | type) -> dict[str, str]:
    """The string under each assignment of a module or top-level class, by name, on one line."""
    tree: Any = ast.parse(inspect.getsource(source))
    body = tree.body if isinstance(source, ModuleType) else tree.body[0].body
    found: dict[str, str] = {}
    for statement, following in pairwise(body):
        if not isinstance(following, ast.Expr) or not isinstance(following.value, ast.Constant):
            continue
        for name in _assigned(statement):
            found[name] = plain(str(following.value.value))
    return found


def _assigned(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.AnnAssign):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return []
    names = [node for target in targets for node in ast.walk(target)]
    return [node.id for node in names if isinstance(node, ast.Name)]


def plain(text: str) -> str:
    """A docstring as one line of reStructuredText without roles, which only resolve in the API."""
    one_line = " ".join(text.split())
    return re.sub(r":\w+:`~?([^`]*)`", r"``\1``", one_line)


def sentence(text: str) -> str:
    """``text`` with a capital and a final stop."""
    stop = "" if text.endswith(".") else "."
    return f"{text[:1].upper()}{text[1:]}{stop}"


def number(value: object) -> str:
    """A value as a reader takes it in, with thousands apart."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


# From text to reStructuredText


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def table(widths: Sequence[int], head: Sequence[str], rows: Rows) -> str:
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        f"   :widths: {' '.join(map(str, widths))}",
        "",
    ]
    for row in (head, *rows):
        for column, cell in enumerate(row):
            lines.append(f"   {'  ' if column else '* '}-{f' {cell}' if cell else ''}")
    return "\n".join(lines) + "\n"


def page(title: str, source: str, *parts: str) -> str:
    """The whole text of a generated page; ``source`` is where its facts stand."""
    comment = f".. Generated by docs/generate.py from {source}: edit that, then run it again.\n"
    return "\n".join((comment, heading(title, "="), *parts))


# The pages


def options_page() -> str:
    parts = [
        "Every option of ``gpulse`` and of ``manage.py pulse``.  Except for the actions at the "
        "end, each is\nalso an environment variable, a key of the TOML file that "
        ":option:`--config` names, and a key of\n``settings.GPULSE``.  "
        ":doc:`/topics/configuration` says which source wins.\n"
    ]
    for group in GROUPS:
        parts.append(heading(group, "-"))
        parts += [_option(row) for row in OPTIONS if row.group == group]
    return page("Options", "gpulse/options.py", *parts)


def _option(option: Option) -> str:
    lines = [f".. option:: {_spelling(option)}", "", f"   {sentence(_literal(option.help))}", ""]
    if option.action:
        return "\n".join(lines)
    facts = [f"Default: {_default(option)}."]
    bounds = _bounds(option)
    if bounds:
        facts.append(bounds)
    facts.append(f"Variable: ``{option.env}``.  Key: {_key(option)}.")
    if option.binary_only:
        facts.append("Only for ``gpulse``: ``manage.py`` has settled it already.")
    return "\n".join([*lines, *(f"   | {fact}" for fact in facts), ""])


def _spelling(option: Option) -> str:
    if not option.flags:
        return option.metavar
    if option.is_flag:
        negative = [] if option.action else [f"--no-{option.flag.removeprefix('--')}"]
        return ", ".join([*option.flags, *negative])
    value = f"[{option.metavar}]" if option.bare else option.metavar
    return ", ".join(f"{name} {value}" for name in option.flags)


def _literal(text: str) -> str:
    """Option names, which a typesetter would otherwise make dashes of, as literals."""
    return re.sub(r"(?<![\w`])(--[a-z-]+)", r"``\1``", text)


def _default(option: Option) -> str:
    if option.default_text or option.default is None:
        return _literal(option.describe_default())
    return f"``{option.describe_default()}``"


def _bounds(option: Option) -> str:
    if option.low is None and option.high is None:
        return sentence(option.unit) if option.unit else ""
    low, high = (_bound(option, bound) for bound in (option.low or 0, option.high or 0))
    return f"From {low} to {high}{f' {option.unit}' if option.unit else ''}."


def _bound(option: Option, bound: float) -> str:
    whole = int(bound) if bound == int(bound) else bound
    return number(whole) if option.show is show_plain else option.show(whole)


def _key(option: Option) -> str:
    if option.in_settings and option.name != "config":
        return f"``{option.name}``"
    where = "in settings only" if option.in_settings else "in the TOML file only"
    return f"``{option.name}``, {where}"


def signals_page() -> str:
    intro = (
        "Signals go to the master; it tells the workers what they have to do.  The last column is "
        "what a\nworker does with a signal that reaches it, from the master or from you.\n"
    )
    rows = [(f"``{row.name}``", row.master_does, row.worker_does) for row in signals.TABLE]
    head = ("Signal", "The master", "A worker")
    return page(
        "Signals",
        "gpulse/master/signals.py",
        intro,
        table((12, 54, 34), head, [[_literal(cell) for cell in row] for row in rows]),
        ":doc:`/topics/reload-and-stop` tells what visitors see of a reload and a stop.\n",
    )


def statuses_page() -> str:
    intro = (
        "What ``gpulse`` and ``manage.py pulse`` exit with.  Every failure is also one line on "
        "standard error.\n*Lasting* failures are those that starting again does not mend: the unit "
        "in :doc:`/deploy/systemd`\ndoes not restart after them.\n"
    )
    # The tree that is drawn at the top of the file says each in the fewest words.
    meanings = dict(re.findall(r"(\w+Error) +\d+ +(.+)", errors.__doc__ or ""))
    rows = [["0", "", "An ordinary stop: TERM, INT, QUIT, or an action such as ``--version``.", ""]]
    rows += [
        [
            str(kind.exit_status),
            f":exc:`~gpulse.errors.{kind.__name__}`",
            sentence(meanings[kind.__name__]),
            "yes" if kind.exit_status in LASTING else "no",
        ]
        for kind in _with_status(errors.GpulseError)
    ]
    rows += [
        [str(INTERRUPTED), "", "Ctrl-C before the master ran.", ""],
        [str(BROKEN_PIPE), "", "The reader of the output is gone, as in ``--help | head``.", ""],
    ]
    head = ("Status", "Error", "Meaning", "Lasting")
    return page("Exit statuses", "gpulse/errors.py", intro, table((10, 24, 54, 12), head, rows))


def _with_status(kind: type[errors.GpulseError]) -> Iterator[type[errors.GpulseError]]:
    """``kind`` and those below it that have a status of their own, in the order of the status."""
    found = [kind, *kind.__subclasses__()]
    yield from sorted(
        (each for each in found if "exit_status" in vars(each)),
        key=lambda each: each.exit_status,
    )


COMES_BACK = {
    "no": "no",
    "now": "yes, after a random second or two",
    "later": "yes, after a while",
}


def closecodes_page() -> str:
    intro = (
        "The code of its close frame is all that a script in a browser learns of why a WebSocket "
        "ended.  The last\ncolumn is what a client does by itself, without asking a person; the "
        "client that comes with gpulse does it.\n:doc:`/topics/websocket-security` tells more of "
        "4401 and 4403.\n"
    )
    rows = []
    for row in closecodes.CODES:
        travels = "yes" if closecodes.may_be_sent(row.code) else ""
        back = COMES_BACK[row.comes_back]
        rows.append((str(row.code), f"``{row.name.upper()}``", f"{row.meaning}.", travels, back))
    head = ("Code", "Name", "Meaning", "For ``close()``", "Comes back")
    rest = (
        "Names are constants of ``gpulse.websocket.closecodes``.  1005, 1006 and 1015 never "
        "travel: they tell ``on_close`` and the\nbrowser's script of what happened without a code. "
        " 1002 and 1010 are for the protocol itself.\n\nAn application has 4000 to 4999, apart "
        "from those above, for its own reasons, and 3000 to 3999 where it\nregistered them.  A "
        "client takes such a code for a decision and does not come back; after any other code that "
        "is\nnot in the table, it does so after a while.\n"
    )
    return page(
        "WebSocket close codes",
        "gpulse/websocket/closecodes.py",
        intro,
        table((8, 20, 44, 10, 18), head, rows),
        rest,
    )


def scoreboard_page() -> str:
    intro = (
        "The scoreboard is one shared mapping: the master makes it before the first fork, each "
        "worker writes\nthe row of its slot, and the master reads it to see who is ready and who "
        "hangs.  A counter only\ngrows while its worker lives; a gauge goes up and down.\n"
    )
    states, cells = docstrings(WorkerState), docstrings(Cell)
    state_rows = [(f"``{each.name}``", str(each.value), states[each.name]) for each in WorkerState]
    cell_rows = [
        (
            f"``{each.name.lower()}``",
            "counter" if each.name.endswith("_TOTAL") else "gauge",
            cells.get(each.name, ""),
        )
        for each in Cell
    ]
    return page(
        "Scoreboard",
        "gpulse/scoreboard.py",
        intro,
        heading("States of a worker", "-"),
        table((20, 12, 68), ("State", "Value", "Meaning"), state_rows),
        heading("Cells of a row", "-"),
        table((32, 14, 54), ("Cell", "Kind", "Meaning"), cell_rows),
    )


def limits_page() -> str:
    intro = (
        "Every queue has a bound and every wait has a deadline.  Those that are options are in\n"
        ":doc:`options`; the others are constants in the code, listed here with the file that says "
        "them.\nTimes are in seconds, sizes in bytes unless a unit is given.\n"
    )
    parts = [intro]
    for title, kind in (("HTTP", Limits), ("WebSocket", SocketLimits)):
        parts += [heading(title, "-"), _dataclass_table(kind)]
    for title, names in BOUNDED:
        parts += [heading(title, "-"), _constants_table(names)]
    return page("Limits", "the constants of the package", *parts)


def _dataclass_table(kind: Any) -> str:
    described = docstrings(kind)
    rows = []
    for field in fields(kind):
        option = BY_NAME.get(field.metadata.get("option", ""))
        meaning = described[field.name] if option is None else f":option:`{option.flag}`."
        value = number(field.default) if field.default is not None else ""
        rows.append((f"``{field.name}``", value, meaning))
    source = f"From ``{kind.__module__}.{kind.__name__}``.\n\n"
    return source + table((22, 14, 64), ("Limit", "Value", "Meaning"), rows)


def _constants_table(names: Sequence[str]) -> str:
    rows = []
    for name in names:
        module = importlib.import_module(f"gpulse.{name}")
        for constant, described in docstrings(module).items():
            value = getattr(module, constant, None)
            if constant.isupper() and not constant.startswith("_") and _is_bound(value):
                rows.append((f"``{constant}``", number(value), f"``{name}``", described))
    return table((22, 12, 20, 46), ("Constant", "Value", "Where", "Meaning"), rows)


def _is_bound(value: object) -> bool:
    """A number that bounds something, or a text such as "256mb"."""
    if isinstance(value, str):
        return value[:1].isdigit()
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


PAGES: dict[str, Callable[[], str]] = {
    "options.rst": options_page,
    "signals.rst": signals_page,
    "exit-statuses.rst": statuses_page,
    "scoreboard.rst": scoreboard_page,
    "limits.rst": limits_page,
    "close-codes.rst": closecodes_page,
}


def stale(folder: Path = REFERENCE) -> list[str]:
    """The pages that are not as they would be generated now."""
    return [
        name
        for name, make in PAGES.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != make()
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` only look; returns the exit status."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    found = stale()
    if arguments:
        for name in found:
            print(
                f"docs/reference/{name} is stale: run python docs/generate.py and commit it",
                file=sys.stderr,
            )
        return 1 if found else 0
    for name in found:
        (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"docs/reference/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
