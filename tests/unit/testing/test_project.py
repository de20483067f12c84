"""The helpers in a site's own tests: ``manage.py test`` of the project beside this file."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).with_name("project")
ROOT = PROJECT.parents[2]
DEADLINE = 60


def run_tests(label: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the project's tests as its developers would, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test", label],
        cwd=PROJECT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "rooms.settings",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_its_tests_pass() -> None:
    done = run_tests("rooms")
    assert done.returncode == 0, done.stderr
    assert "Ran 0 tests" not in done.stderr
