"""``manage.py pulse``: checks the options and the site, then execs ``python -m gpulse``.

The exec is what makes it right: by now this interpreter has imported Django and the site with
blocking sockets and native locks, and patching them later breaks what was imported before
(``from socket import socket``, Django's DatabaseWrapper).  The fresh interpreter keeps the process
id, the working directory, the environment, ``sys.path``, the settings module and the options.
"""

import os
import sys
import sysconfig
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

import gpulse
from gpulse import arguments, causes, cli, config, site
from gpulse.errors import ApplicationError, GpulseError, UsageError


class Command(BaseCommand):
    """The ``pulse`` management command."""

    help = "Serve this site, its WebSockets and its pub/sub with gpulse."

    def get_version(self) -> str:
        return f"gpulse {gpulse.__version__}"

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, allow_abbrev=False, **kwargs)
        parser.called_from_command_line = False  # so that it raises instead of printing its usage
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_to(parser, binary=False)

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv([*argv[:2], *arguments.prepare(argv[2:])])
        except CommandError as error:  # from the parser; execute() has dealt with all others
            self.stderr.write(f"gpulse: {str(error).removeprefix('Error: ')}; see --help")
            sys.exit(UsageError.exit_status)

    def execute(self, *args: Any, **options: Any) -> str | None:
        # Before Django's system checks: a bad option has an exit status of its own.
        self._given = arguments.given(options)
        try:
            self._facts = site.describe()
            if not options.get("check_config"):
                named = {"settings": self._facts.settings, **self._given}
                config.resolve(cli.collect(named, os.environ, self._facts))
        except GpulseError as error:
            raise _refusal(error) from error
        output: str | None = super().execute(*args, **options)
        return output

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Django's system checks; they import the URLconf, and what that raises is said in a
        line."""
        try:
            super().check(*args, **kwargs)
        except CommandError:
            raise  # the checks' own findings, in Django's words
        except Exception as error:
            cause = causes.describe(error, str(self._facts.settings))
            raise _refusal(ApplicationError(f"cannot import the site: {cause}")) from error

    def handle(self, *args: Any, **options: Any) -> None:
        command = [*site.interpreter(), "-m", "gpulse"]
        if self._facts.settings:
            command.append(f"--settings={self._facts.settings}")
        command += arguments.render(self._given)
        command += [f"--{name.replace('_', '-')}" for name in _ACTIONS if options.get(name)]
        environ = dict(os.environ)
        site.hand_over(self._facts, environ)
        _make_importable(environ)
        self.stdout.flush()
        self.stderr.flush()
        os.execve(sys.executable, command, environ)


_ACTIONS = ("check_config", "print_config")


def _refusal(error: GpulseError) -> CommandError:
    return CommandError(str(error), returncode=error.exit_status)


def _make_importable(environ: dict[str, str]) -> None:
    """See that a fresh interpreter finds gpulse; ``take_over`` then restores ``sys.path``."""
    home = str(Path(gpulse.__file__).parent.parent)
    if home in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return
    earlier = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = f"{home}{os.pathsep}{earlier}" if earlier else home
