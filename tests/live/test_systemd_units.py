"""The units that the docs hand out, checked by systemd itself.

``systemd-analyze verify`` loads a unit as the manager would.  It also wants the program to exist,
so a copy is checked in which ExecStart names this interpreter.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "docs" / "deploy"
PROGRAM = "/srv/mysite/venv/bin/gpulse"
DEADLINE = 30


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies of both units, with a program that exists."""
    copies = []
    for name in ("gpulse.service", "gpulse.socket"):
        text = (UNITS / name).read_text(encoding="utf-8")
        copy = tmp_path / name
        copy.write_text(text.replace(PROGRAM, sys.executable), encoding="utf-8")
        copies.append(copy)
    return copies


def verify(*units: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: apt install systemd"
    return subprocess.run(
        [program, "verify", *map(str, units)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_systemd_takes_the_units_without_a_word(units: list[Path]) -> None:
    checked = verify(*units)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_check_would_notice_an_unknown_setting(units: list[Path]) -> None:
    service = units[0]
    text = service.read_text(encoding="utf-8")
    service.write_text(text.replace("KillMode=", "KillModus="), encoding="utf-8")
    assert "KillModus" in verify(*units).stderr


def test_the_program_is_named_by_an_absolute_path_and_once() -> None:
    text = (UNITS / "gpulse.service").read_text(encoding="utf-8")
    assert re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE) == [PROGRAM]
