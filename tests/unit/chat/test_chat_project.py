"""The chat as a Django project: its own tests, its settings, its database URLs.

Django reads one settings module for each process, so whatever needs the chat's runs in a process
of its own; only the database URLs, a pure function, are tested here.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chat.database import database
from django.core.exceptions import ImproperlyConfigured

ROOT = Path(__file__).resolve().parents[3]
OURS = (
    *("DEBUG", "SECRET_KEY", "ALLOWED_HOSTS", "DATABASE_URL", "STATIC_ROOT"),
    "DJANGO_SETTINGS_MODULE",
)


def python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the chat's directory, with no setting from the caller's environment."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    clean["PYTHONPATH"] = os.pathsep.join((str(ROOT), clean.get("PYTHONPATH", "")))
    command = [sys.executable, *arguments]
    return subprocess.run(
        command,
        cwd=ROOT / "chat",
        env=clean | environment,
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_the_projects_own_tests_pass() -> None:
    done = python("-W", "error", "manage.py", "test", SECRET_KEY="x" * 50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 0 tests" not in done.stderr


def test_models_have_no_missing_migration_and_checks_are_silent() -> None:
    environment = {"SECRET_KEY": "x" * 50, "DATABASE_URL": "sqlite:///:memory:"}
    done = python("manage.py", "makemigrations", "--check", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    done = python("manage.py", "check", "--fail-level", "WARNING", **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"DEBUG": "off"}, "SECRET_KEY is empty and DEBUG is off"),
        ({"DEBUG": "perhaps"}, "DEBUG is 'perhaps'"),
        (
            {"SECRET_KEY": "x", "DATABASE_URL": "mysql://u:hidden@h/n"},
            "DATABASE_URL names no database",
        ),
    ],
)
def test_a_wrong_environment_is_refused(environment: dict[str, str], complaint: str) -> None:
    done = python("-c", "import chat.settings", **environment)
    assert complaint in done.stderr
    assert "hidden" not in done.stderr.splitlines()[-1]
    assert done.returncode


def test_processes_that_make_the_secret_key_at_once_agree(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from chat.settings import _kept_secret_key;"
        "print(_kept_secret_key(pathlib.Path(sys.argv[1])))"
    )
    path = tmp_path / "secret_key"
    keys: list[str] = []

    def ask() -> None:
        keys.append(python("-c", program, str(path), SECRET_KEY="x").stdout.strip())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 50
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret_key"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////var/lib/chat/db.sqlite3", {"NAME": "/var/lib/chat/db.sqlite3"}),
        ("sqlite:///:memory:", {"NAME": ":memory:"}),
        (
            "postgresql://ann:p%40ss@db.example:5433/chat?sslmode=require",
            {
                "NAME": "chat",
                "USER": "ann",
                "PASSWORD": "p@ss",
                "HOST": "db.example",
                "PORT": 5433,
                "OPTIONS": {"sslmode": "require"},
                "CONN_MAX_AGE": None,
            },
        ),
        (
            "postgres://ann@/chat?host=/run/pg",
            {"NAME": "chat", "HOST": "", "OPTIONS": {"host": "/run/pg"}},
        ),
        ("postgres://[::1]/chat", {"HOST": "::1", "PORT": ""}),
    ],
)
def test_a_database_url_becomes_an_entry(url: str, expected: dict[str, object]) -> None:
    entry = database(url)
    assert {key: entry[key] for key in expected} == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "db.sqlite3",
        "sqlite:///",
        "sqlite://host/name",
        "postgres://h",
        "mysql://u:secret@h/n",
        "postgres://u:secret@h:port/n",
    ],
)
def test_another_database_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL") as refusal:
        database(url)
    assert "secret" not in str(refusal.value)
