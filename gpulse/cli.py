"""The ``gpulse`` command, which is ``python -m gpulse`` and what ``manage.py pulse`` execs.

From the arguments to a running master: parse, ask the site for its settings, merge, serve.  Every
mistake of the user is one line on standard error, ``gpulse: ...``, and the exit status of its error
(``gpulse.errors``); 130 after Ctrl-C before the master runs, 141 where the reader of the output is
gone (128 + SIGPIPE, as a shell reports it).

This process becomes the master and stays cold: nothing imported here imports gevent, Django or the
site.  The worker's code is imported by :func:`worker_entry`, in the forked child.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from gpulse import __version__, arguments, config, logs, site, syslog
from gpulse.config import Config, Layer, Source
from gpulse.errors import FileError, GpulseError, UsageError
from gpulse.handover import Handover
from gpulse.master import privileges
from gpulse.master.master import Master
from gpulse.options import BY_NAME, SETTABLE
from gpulse.tlsfiles import read_files

INTERRUPTED = 130
BROKEN_PIPE = 141

_USAGE = "gpulse [OPTION...] [APP]"
_DESCRIPTION = "Serve a Django site, or any WSGI application, its WebSockets and its pub/sub."
_EPILOG = (
    "Each option is also a GPULSE_<NAME> environment variable, a key of the TOML file and a key of "
    "GPULSE in the Django settings. The command line wins over the environment, that over the "
    "file, that over the settings."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; ``argv`` is without the program's name.

    :returns: the exit status.
    """
    try:
        status = _run(sys.argv[1:] if argv is None else argv, os.environ)
        sys.stdout.flush()
    except GpulseError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def worker_entry(handover: Handover) -> int:
    """What a forked worker runs; returns its exit status.

    :raises GpulseError: it cannot become ready.
    """
    privileges.check_reach()
    from gpulse.worker import worker  # gevent: never in the master

    return worker.run(handover)


def parser() -> arguments.Parser:
    """The parser of the ``gpulse`` command."""
    made = arguments.Parser(
        prog="gpulse",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    arguments.add_to(made, binary=True)
    return made


def _run(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    handed_over = site.take_over(environ)
    if handed_over is None and os.getcwd() not in sys.path:
        # As "python -m" does, so that the two commands find the same site.
        sys.path.insert(0, os.getcwd())
    try:
        asked = vars(parser().parse_args(arguments.prepare(argv)))
    except SystemExit as exited:  # --help
        return int(exited.code or 0)
    if asked.get("version"):
        _say(f"gpulse {__version__}")
        return 0
    given = arguments.given(asked)
    if asked.get("check_config"):
        return _check_config(given, environ, handed_over)
    merged = config.resolve(collect(given, environ, handed_over))
    if asked.get("print_config"):
        _say(table(merged))
        return 0
    logs.configure(merged.log_level, "master")
    for note in merged.notes:
        logs.logger("master").warning("%s", note)
    return Master(merged, worker_entry, environ=environ).run()


def collect(
    given: Mapping[str, object],
    environ: Mapping[str, str],
    facts: site.SiteFacts | None = None,
    *,
    load_app: bool = False,
) -> list[Source]:
    """All sources of the configuration, after asking the site for its own.

    :param given: the command line's values.
    :param facts: where ``manage.py pulse`` has asked the site already.
    :param load_app: have the site's application loaded, too, to see whether it can be.
    :raises GpulseError: a source cannot be read, a value in it is wrong, the site cannot be
        imported, or none is named.
    """
    sources = _given_sources(given, environ)
    found = config.problems(sources)
    if found:
        raise UsageError(found[0])  # now, not after seconds of importing the site
    settings, app = config.peek(sources, "settings"), config.peek(sources, "app")
    if not settings and not app:
        raise UsageError(
            "nothing to serve; give MODULE:ATTRIBUTE, or a Django settings module with --settings "
            "or DJANGO_SETTINGS_MODULE"
        )
    if facts is None or load_app:
        deadline = config.peek(sources, "boot_timeout") or site.PROBE_DEADLINE
        facts = site.probe(settings, app, load_app=load_app, deadline=deadline)
    return sources + _site_sources(sources, facts)


def _given_sources(given: Mapping[str, object], environ: Mapping[str, str]) -> list[Source]:
    sources = [config.from_command_line(given), config.from_environ(environ)]
    path = config.peek(sources, "config")
    if path:
        sources.append(config.from_file(path))
    module = environ.get("DJANGO_SETTINGS_MODULE")
    if module:
        sources.append(config.from_django("DJANGO_SETTINGS_MODULE", settings=module))
    return sources


def _site_sources(sources: list[Source], facts: site.SiteFacts) -> list[Source]:
    """What the site's settings add: GPULSE, the file that it may name, WSGI_APPLICATION."""
    module = facts.settings or "the Django settings"
    added = [config.from_settings(facts.gpulse, module)]
    path = config.peek(sources + added, "config")
    if path and not any(source.layer is Layer.FILE for source in sources):
        file = config.from_file(path)
        if "settings" in file.values:
            raise UsageError(
                f"settings (from {path}): cannot be set in a file that the settings name"
            )
        added.append(file)
    if config.peek(sources, "settings") is None:
        added.append(config.from_django("the application", settings=facts.settings))
    return [
        *added,
        config.from_django(f"WSGI_APPLICATION in {module}", app=facts.wsgi_application),
    ]


def table(merged: Config) -> str:
    """``--print-config``: name, value and origin of every option, in columns."""
    rows = [("option", "value", "from")]
    for option in SETTABLE:
        value = option.show(getattr(merged, option.name))
        rows.append((option.name, value, merged.origin(option.name)))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows
    )


def _check_config(
    given: Mapping[str, object], environ: Mapping[str, str], facts: site.SiteFacts | None
) -> int:
    """Say everything that is wrong; the status is that of the first thing."""
    wrong: list[GpulseError] = []
    try:
        sources = _given_sources(given, environ)
        wrong += [UsageError(line) for line in config.problems(sources)]
        if not wrong:
            sources = collect(given, environ, facts, load_app=True)
            wrong += [UsageError(line) for line in config.problems(sources)]
    except GpulseError as error:
        wrong.append(error)
    if not wrong:
        merged = config.resolve(sources)
        wrong += check_surroundings(merged)
    for problem in wrong:
        _complain(str(problem))
    if wrong:
        return wrong[0].exit_status
    for note in merged.notes:
        _complain(note)
    _say(
        f"gpulse: the configuration is good: {merged.workers} workers with {merged.pool_size} "
        f"{'greenlets' if merged.mode == 'greenlet' else 'threads'} each on "
        f"{', '.join(merged.bind)}"
    )
    return 0


def check_surroundings(merged: Config) -> list[GpulseError]:
    """What the options name outside the process: accounts, directories, certificates.

    Nothing is opened, bound or connected: the site that is being checked may well be running.
    """
    wrong: list[GpulseError] = []
    try:
        privileges.resolve(merged.user, merged.group)
    except GpulseError as error:
        wrong.append(error)
    try:
        _check_tls(merged)
    except GpulseError as error:
        wrong.append(error)
    paths = {"pid_file": merged.pid_file}
    if merged.access_log is not None and syslog.is_file(merged.access_log):
        paths["access_log"] = merged.access_log
    for address in merged.bind:
        if address.startswith("unix:"):
            paths["bind"] = address.removeprefix("unix:")
    wrong += _check_folders(merged)
    for name, path in paths.items():
        if path is None or path == "-":
            continue
        directory = Path(path).absolute().parent
        if not directory.is_dir():
            reason = "does not exist"
        elif not os.access(directory, os.W_OK) and not os.access(path, os.W_OK):
            reason = "may not be written"
        else:
            continue
        flag = BY_NAME[name].flag
        wrong.append(FileError(f"{flag} {path}: the directory {directory} {reason}"))
    return wrong


def _check_folders(merged: Config) -> list[GpulseError]:
    """The directories that are named as such."""
    wrong: list[GpulseError] = []
    spool = merged.spool_directory
    if spool is not None and not os.access(spool, os.W_OK | os.X_OK):
        reason = "may not be written" if Path(spool).is_dir() else "is no directory"
        wrong.append(FileError(f"{BY_NAME['spool_directory'].flag} {spool}: {reason}"))
    for _, root in merged.sendfile_root:
        if not Path(root).is_dir():
            flag = BY_NAME["sendfile_root"].flag
            wrong.append(FileError(f"{flag} {root}: is no directory"))
    return wrong


def _check_tls(merged: Config) -> None:
    """:raises GpulseError: the certificates and keys cannot be read, or do not belong together."""
    files = read_files(merged)
    if files is not None:
        from gpulse.connection.tlscontext import build_context  # ssl: not for a master

        build_context(files)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _complain(line: str) -> None:
    sys.stderr.write(f"gpulse: {line}\n")
