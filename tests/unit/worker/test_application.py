"""Every way to name an application, and what is said when it cannot be found."""

import json
import os
import subprocess
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


SITE = {
    "shop/__init__.py": "",
    "shop/static/shop/style.css": "body {}",
    "shop/urls.py": """
from django.http import HttpResponse
from django.urls import re_path
urlpatterns = [re_path("", lambda request: HttpResponse("the site"))]
""",
    "shop/settings.py": """
SECRET_KEY = "only for tests"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["shop", "django.contrib.staticfiles"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
STATIC_URL = "static/"
LOGGING_CONFIG = None
""",
    "shop/wsgi.py": """
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application
handler = get_wsgi_application()
def application(environ, start_response): return handler(environ, start_response)
def other(environ, start_response): return handler(environ, start_response)
def make(): return application
def own(): return StaticFilesHandler(handler)
""",
    # Asks the site for one path under each case's settings.
    "ask.py": """
import json, logging, sys
from wsgiref.util import setup_testing_defaults
import django
from django.conf import settings
from django.test import override_settings
from gpulse.worker.application import load
logging.lastResort = None
warnings = []
class Kept(logging.Handler):
    def emit(self, record): warnings.append(record.getMessage())
logging.getLogger("gpulse.worker").addHandler(Kept())
django.setup()
answers = {}
for name, (target, path, changed) in json.loads(sys.argv[1]).items():
    changed = {"STATIC_URL": "static/", **changed}
    warnings.clear()
    with override_settings(**changed):
        application = load(target, None)
        environ = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        said = []
        response = application(environ, lambda status, headers: said.append(status))
        body = b"".join(response)
        response.close()
        answers[name] = {
            "status": int(said[0][:3]),
            "is_site": body == b"the site",
            "is_file": body == b"body {}",
            "static_url": settings.STATIC_URL,
            "layers": type(application).__name__,
            "warnings": list(warnings),
        }
print(json.dumps(answers))
""",
}
STYLE = "/static/shop/style.css"
APPS = ["shop", "django.contrib.staticfiles"]
FILES = {
    "Django's handler": (None, STYLE, {}),
    "what WSGI_APPLICATION names": ("shop.wsgi.application", STYLE, {}),
    "the same with a colon": ("shop.wsgi:application", STYLE, {}),
    "the same by its module": ("shop.wsgi", STYLE, {}),
    "a factory": ("shop.wsgi.make", STYLE, {"WSGI_APPLICATION": "shop.wsgi.make"}),
    "the site wraps its handler itself": ("shop.wsgi:own", STYLE, {}),
    "below a script name": (None, STYLE, {"FORCE_SCRIPT_NAME": "/app"}),
    "below a script name with a slash": (None, STYLE, {"FORCE_SCRIPT_NAME": "/app/"}),
    "below a script name, from the root": (
        None,
        STYLE,
        {"FORCE_SCRIPT_NAME": "/app", "STATIC_URL": "/static/"},
    ),
}
MISSING = {
    "no such file": "/static/shop/none.css",
    "a directory": "/static/shop",
    "the directory": "/static/",
    "out of the directories": "/static/../settings.py",
    "far out of the directories": "/static/shop/../../../../../../etc/passwd",
    "an absolute path": "/static//etc/passwd",
    "a NUL": STYLE + "\0",
    "a NUL and the way out": "/static/\0/../../settings.py",
    "no UTF-8": "/static/\xff.css",
    "a name that is too long": "/static/" + "x" * 5000,
}
LEFT_ALONE = {
    "another path": (None, "/page", {}),
    "DEBUG is off": (None, STYLE, {"DEBUG": False}),
    "no staticfiles": (None, STYLE, {"INSTALLED_APPS": ["shop"]}),
    "WhiteNoise does it": (
        None,
        STYLE,
        {"INSTALLED_APPS": ["whitenoise.runserver_nostatic", *APPS]},
    ),
    "an application of the site's that it does not name": ("shop.wsgi:other", STYLE, {}),
    "no WSGI_APPLICATION": ("shop.wsgi:other", STYLE, {"WSGI_APPLICATION": None}),
    "another host": (None, STYLE, {"STATIC_URL": "https://files.example/static/"}),
}
REFUSED = {
    "no STATIC_URL": (None, STYLE, {"STATIC_URL": None}),
    "MEDIA_URL is the same": (None, STYLE, {"STATIC_URL": "/static/", "MEDIA_URL": "/static/"}),
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The answers of a Django site; a process can be only one, so all cases share one process."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in SITE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    missing = {name: (None, path, {}) for name, path in MISSING.items()}
    cases = json.dumps(FILES | missing | LEFT_ALONE | REFUSED)
    done = subprocess.run(
        [sys.executable, "-W", "error", "ask.py", cases],
        cwd=folder,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", FILES)
def test_a_site_with_debug_on_serves_its_static_files(asked, case):
    assert (asked[case]["status"], asked[case]["is_file"]) == (200, True)


@pytest.mark.parametrize("case", MISSING)
def test_a_path_that_names_no_static_file_is_404(asked, case):
    assert (asked[case]["status"], asked[case]["is_site"]) == (404, False)


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_runserver_leaves_to_the_site_is_left_to_it(asked, case):
    assert (asked[case]["status"], asked[case]["is_site"]) == (200, True)
    assert not asked[case]["warnings"]


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_staticfiles_refuses_are_a_warning(asked, case):
    assert asked[case]["is_site"]
    (warning,) = asked[case]["warnings"]
    assert "static files are not served" in warning
    assert "STATIC_URL" in warning


def test_a_handler_that_serves_files_is_not_wrapped_again(asked):
    assert asked["the site wraps its handler itself"]["layers"] == "StaticFilesHandler"


@pytest.mark.parametrize("case", [case for case in FILES if "script name" in case])
def test_looking_at_static_url_early_does_not_lose_the_script_name(asked, case):
    wanted = "/static/" if "from the root" in case else "/app/static/"
    assert asked[case]["static_url"] == wanted
