"""Runs accounts_suite.py in a process of its own: Django reads one settings module for each."""

import re
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).with_name("accounts_suite.py")

WITHOUT_ACCOUNTS = """
import django
from django.conf import settings
settings.configure(SECRET_KEY="x", INSTALLED_APPS=["gpulse"])
django.setup()
from types import SimpleNamespace
from gpulse.django.accounts import identity_of
from gpulse.websocket import mixins
from gpulse.websocket.identities import ANONYMOUS, Identity
assert identity_of(SimpleNamespace()) == ANONYMOUS
known = SimpleNamespace(pk=7, is_authenticated=True)
assert identity_of(SimpleNamespace(user=known)) == Identity("7", "", b"", "", "", None)
"""


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=SUITE.parents[3],
        text=True,
        capture_output=True,
        timeout=100,
    )


def test_a_site_without_accounts_has_consumers_too() -> None:
    done = python("-W", "error", "-c", WITHOUT_ACCOUNTS)
    assert done.returncode == 0, done.stderr


def test_sockets_follow_accounts() -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE))
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= 60
    assert "skipped" not in done.stdout
