"""The generated reference pages: fresh, complete, and made from the tables alone."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpulse import errors
from gpulse.master import signals
from gpulse.options import OPTIONS

DOCS = Path(__file__).parents[3] / "docs"


def load(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> Any:
    return load("generate")


def test_the_committed_pages_are_fresh(generate: Any) -> None:
    assert generate.stale() == []


def test_check_names_the_stale_page_and_writes_nothing(
    generate: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, make in generate.PAGES.items():
        (tmp_path / name).write_text(make(), encoding="utf-8")
    (tmp_path / "signals.rst").write_text("old", encoding="utf-8")
    monkeypatch.setattr(generate, "stale", lambda stale=generate.stale: stale(tmp_path))
    assert generate.main(["--check"]) == 1
    assert "docs/reference/signals.rst is stale" in capsys.readouterr().err
    assert (tmp_path / "signals.rst").read_text(encoding="utf-8") == "old"


def test_an_unknown_argument_is_refused(generate: Any) -> None:
    assert generate.main(["--chekc"]) == 2


def test_every_option_has_an_entry_with_its_variable(generate: Any) -> None:
    page = generate.options_page()
    for option in OPTIONS:
        assert f".. option:: {generate._spelling(option)}\n" in page
        assert (f"``{option.env}``" in page) is not option.action


def test_every_signal_has_a_row(generate: Any) -> None:
    page = generate.signals_page()
    assert [row.name for row in signals.TABLE if f"- ``{row.name}``" not in page] == []


def test_every_error_with_a_status_has_a_row(generate: Any) -> None:
    page = generate.statuses_page()
    kinds = [errors.GpulseError, *errors.GpulseError.__subclasses__()]
    assert all(f"* - {kind.exit_status}\n     - :exc:" in page for kind in kinds)


def test_every_limit_says_what_it_means(generate: Any) -> None:
    rows = generate.limits_page().split("   * - ")
    assert [row for row in rows if row.rstrip().endswith("-")] == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("One\n    line.", "One line."),
        ("See :meth:`detach`.", "See ``detach``."),
        ("Of :func:`~gpulse.store.message.encode`.", "Of ``gpulse.store.message.encode``."),
    ],
)
def test_a_docstring_becomes_one_line_without_roles(generate: Any, text: str, line: str) -> None:
    assert generate.plain(text) == line
