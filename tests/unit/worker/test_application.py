"""Every way to name an application, and what is said when it cannot be found."""

import os
import sys

import pytest

from gpulse.errors import ApplicationError
from gpulse.worker.application import close_database_connections, load

MODULES = {
    "good/__init__.py": "",
    "good/wsgi.py": """
def application(environ, start_response): return ["application"]
def other(environ, start_response): return ["other"]
def make(): return application
def make_with_defaults(name="x", *, debug=False): return other
def with_defaults(environ, start_response, extra=None): return ["extra"]
def anything(*args): return ["anything"]
class Box:
    inner = other
    def __call__(self, environ, start_response): return ["called"]
class Class:
    def __init__(self, environ, start_response): pass
    def __iter__(self): return iter(["class"])
class Empty:
    def __call__(self, environ, start_response): return ["empty"]
box = Box()
number = 7
def make_number(): return 7
def needs_one(environ): return None
def fails(): raise ValueError("no database\\nhere")
""",
    "good/app_only.py": "def app(environ, start_response): return ['app']",
    "good/neither.py": "",
    "bad_syntax.py": "def application(:\n",
    "bad_import.py": "import nowhere_at_all\n",
    "bad_value.py": "raise RuntimeError('line one\\nline two')\n",
    "bad_exit.py": "import sys; sys.exit(3)\n",
    "bad_django.py": "from django.core.exceptions import ImproperlyConfigured\n"
    "raise ImproperlyConfigured('set SECRET_KEY')\n",
}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("good", *_TOPS)]:
        del sys.modules[name]


_TOPS = [name.removesuffix(".py") for name in MODULES if "/" not in name]


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("good.wsgi:application", "application"),
        ("good.wsgi:other", "other"),
        ("good.wsgi:box", "called"),
        ("good.wsgi:box.inner", None),
        ("good.wsgi:with_defaults", "extra"),
        ("good.wsgi:anything", "anything"),
        ("good.wsgi:Class", "class"),
        ("good.wsgi:Empty", "empty"),
        ("good.wsgi:make", "application"),
        ("good.wsgi:make()", "application"),
        ("good.wsgi:make_with_defaults", "other"),
        ("good.wsgi.application", "application"),
        ("good.wsgi.make()", "application"),
        ("good.wsgi", "application"),
        ("good.app_only", "app"),
    ],
)
def test_every_form_is_found(target, answer):
    application = load(target, None)
    assert callable(application)
    if answer is not None:
        assert list(application({}, None)) == [answer]


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("nowhere", ["cannot import nowhere", "No module named 'nowhere'", "looked in"]),
        ("nowhere:app", ["No module named 'nowhere'"]),
        ("good.nowhere:app", ["No module named 'good.nowhere'"]),
        ("good.nowhere", ["good has no attribute 'nowhere'"]),
        ("nowhere.wsgi.application", ["No module named 'nowhere'"]),
        ("good.wsgi:nothing", ["good.wsgi has no attribute 'nothing'"]),
        ("good.wsgi.nothing", ["good.wsgi has no attribute 'nothing'"]),
        ("good.wsgi:box.nothing", ["good.wsgi has no attribute 'box.nothing'"]),
        ("good.wsgi:", ["has no attribute ''"]),
        ("good.neither", ["neither 'application' nor 'app'", "good.neither:NAME"]),
        ("good.wsgi:number", ["is a int, not a WSGI application"]),
        ("good.wsgi:make_number", ["is a int, not a WSGI application"]),
        ("good.wsgi:number()", ["TypeError"]),
        ("good.wsgi:fails", ["ValueError: no database here", "wsgi.py, line"]),
        ("bad_syntax", ["invalid", "bad_syntax.py, line 1"]),
        ("bad_import", ["No module named 'nowhere_at_all'", "bad_import.py, line 1"]),
        ("bad_import:application", ["No module named 'nowhere_at_all'", "bad_import.py, line 1"]),
        ("bad_import.application", ["No module named 'nowhere_at_all'", "bad_import.py, line 1"]),
        ("bad_value", ["RuntimeError: line one line two", "bad_value.py, line 1"]),
        ("bad_exit", ["sys.exit(3)"]),
        ("bad_django:application", ["ImproperlyConfigured: set SECRET_KEY"]),
        (":app", ["cannot import :app"]),
        ("", ["cannot import"]),
        (".x:app", ["cannot import .x:app"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(target, parts):
    with pytest.raises(ApplicationError) as caught:
        load(target, None)
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_the_settings_module_is_set_before_the_import(modules):
    (modules / "good" / "settled.py").write_text(
        "import os\nname = os.environ['DJANGO_SETTINGS_MODULE']\n"
        "def application(environ, start_response): return [name]\n"
    )
    try:
        assert load("good.settled", "mysite.settings")({}, None) == ["mysite.settings"]
    finally:
        del os.environ["DJANGO_SETTINGS_MODULE"]


def test_closing_database_connections_without_django_is_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "django.db", raising=False)
    close_database_connections()
