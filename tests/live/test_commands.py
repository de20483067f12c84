"""Both commands as a user runs them: what they refuse, with which line and which exit status."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["gpulse"]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
GPULSE = {"backlog": 77}
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
"""
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
PLAIN = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
FILES = {
    "mysite/__init__.py": "",
    "mysite/settings.py": SETTINGS,
    "mysite/urls.py": "urlpatterns = []\n",
    "mysite/wsgi.py": WSGI,
    "manage.py": MANAGE,
    "plain.py": PLAIN,
}


class Site:
    """A directory with a Django project and a plain application."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name, content in FILES.items():
            self.write(name, content)

    def write(self, name: str, content: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content).lstrip())

    def environ(self, **variables: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GPULSE_", "DJANGO_"))
        }
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}

    def gpulse(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self._run(["-m", "gpulse", *words], variables)

    def manage(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self._run(["manage.py", "pulse", *words], variables)

    def _run(self, words: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.directory,
            env=self.environ(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def refused(done: subprocess.CompletedProcess[str], status: int, line: str) -> None:
    """One line on standard error that holds ``line``, and the status."""
    assert done.returncode == status, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert line in done.stderr


def printed(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """--print-config as option -> (value, origin)."""
    assert done.returncode == 0, done.stderr
    rows = [line.split(None, 2) for line in done.stdout.splitlines()[1:]]
    return {name: (value, origin) for name, value, origin in rows}


REFUSALS: list[tuple[list[str], int, str]] = [
    ([], 2, "gpulse: nothing to serve; give MODULE:ATTRIBUTE"),
    (["--nonsense"], 2, "gpulse: unrecognized arguments: --nonsense; see --help"),
    (["-w"], 2, "gpulse: argument -w/--workers: expected one argument; see --help"),
    (["-w", "0", "plain"], 2, "gpulse: --workers 0 (from the command line): must be 1 or more"),
    (
        ["--greenlet", "5", "--thread-workers", "5", "plain"],
        2,
        "gpulse: --greenlet 5 and --thread-workers 5 (from the command line) exclude each other",
    ),
    (["-b", "nowhere", "plain"], 2, "gpulse: --bind nowhere (from the command line): has no port"),
    (["--data-store", "http://x", "plain"], 2, "its scheme is none of memory://"),
    (["-c", "none.toml", "plain"], 7, "gpulse: cannot read the config file none.toml: No such"),
    (["nowhere:app"], 4, "gpulse: cannot import nowhere:app: "),
    (["plain:nothing"], 4, "gpulse: cannot import plain:nothing: plain has no attribute 'nothing'"),
    (
        ["--settings", "nowhere.settings"],
        4,
        "gpulse: cannot import nowhere.settings: No module named 'nowhere' (looked in ",
    ),
]


@pytest.mark.parametrize(("words", "status", "line"), REFUSALS)
def test_a_mistake_is_one_line_and_a_status(
    site: Site, words: list[str], status: int, line: str
) -> None:
    refused(site.gpulse(*words), status, line)


def test_a_variable_names_itself(site: Site) -> None:
    refused(
        site.gpulse("plain", GPULSE_TIMEOUT="soon"),
        2,
        "gpulse: GPULSE_TIMEOUT soon (from the environment): must be a number of seconds",
    )


def test_a_broken_settings_module_names_file_and_line(site: Site) -> None:
    site.write("mysite/settings.py", "SECRET_KEY = 'x'\nDEBUG = = 1\n")
    settings = site.directory / "mysite" / "settings.py"
    refused(
        site.gpulse("--settings", "mysite.settings"),
        4,
        f"gpulse: cannot import mysite.settings: SyntaxError: invalid syntax ({settings}, line 2)",
    )
    site.write("mysite/settings.py", "import os\nTOKEN = os.environ['NO_SUCH_TOKEN']\n")
    refused(
        site.gpulse("--settings", "mysite.settings"),
        4,
        f"cannot import mysite.settings: KeyError: 'NO_SUCH_TOKEN' ({settings}, line 2)",
    )
    site.write("mysite/settings.py", "import sys\nsys.exit('no')\n")
    refused(
        site.gpulse("--settings", "mysite.settings"),
        4,
        f"cannot import mysite.settings: it called sys.exit('no') ({settings}, line 2)",
    )
    site.write("mysite/settings.py", "import nosuchpackage\n")
    refused(
        site.gpulse("--settings", "mysite.settings"),
        4,
        "ModuleNotFoundError: No module named 'nosuchpackage'",
    )


def test_settings_that_hang_or_crash_have_an_end(site: Site) -> None:
    site.write("mysite/settings.py", "import time\ntime.sleep(100)\n")
    refused(
        site.gpulse("--settings", "mysite.settings", "--boot-timeout", "0.5"),
        4,
        "importing mysite.settings took more than 0.5 s",
    )
    site.write("mysite/settings.py", "import os\nos.write(2, b'oh\\nno\\n')\nos._exit(9)\n")
    refused(
        site.gpulse("--settings", "mysite.settings"),
        4,
        "importing mysite.settings ended the process with status 9: no",
    )


def test_a_bad_key_in_settings_is_refused_by_both_commands(site: Site) -> None:
    site.write("mysite/settings.py", f"{SETTINGS}\nGPULSE = {{'wrokers': 2}}\n")
    line = "wrokers (from GPULSE in mysite.settings): no such option; did you mean workers?"
    refused(site.gpulse("mysite.wsgi"), 2, f"gpulse: {line}")
    refused(site.manage(), 2, f"CommandError: {line}")


def test_django_s_check_reports_a_bad_key(site: Site) -> None:
    site.write("mysite/settings.py", f"{SETTINGS}\nGPULSE = {{'wrokers': 2}}\n")
    done = site._run(["manage.py", "check"], {})
    assert done.returncode == 1
    assert "(gpulse.E001) wrokers (from GPULSE in mysite.settings)" in done.stderr


def test_gpulse_that_is_no_dict(site: Site) -> None:
    site.write("mysite/settings.py", f"{SETTINGS}\nGPULSE = [1]\n")
    refused(site.gpulse("mysite.wsgi"), 2, "GPULSE in mysite.settings is a list; it must be a dict")
    refused(site.manage(), 2, "GPULSE in mysite.settings is a list; it must be a dict")


def test_where_each_value_came_from(site: Site) -> None:
    site.write("site.toml", "workers = 3\nkeep_alive = 1.5\n")
    rows = printed(
        site.gpulse(
            "--print-config", "--greenlet", "mysite.wsgi:application", "-c", "site.toml",
            GPULSE_WORKERS="4",
        )
    )  # fmt: skip
    assert rows["app"] == ("mysite.wsgi:application", "the command line")
    assert rows["settings"] == ("mysite.settings", "the application")
    assert rows["greenlet"] == ("100", "the command line")
    assert rows["workers"] == ("4", "the environment")
    assert rows["keep_alive"] == ("1.5", "site.toml")
    assert rows["backlog"] == ("77", "GPULSE in mysite.settings")
    assert rows["timeout"] == ("30", "the default")


def test_the_file_may_come_from_the_environment(site: Site) -> None:
    site.write("site.toml", 'app = "plain"\nbind = ["127.0.0.1:0", "[::1]:0"]\n')
    rows = printed(site.gpulse("--print-config", GPULSE_CONFIG="site.toml"))
    assert rows["app"] == ("plain", "site.toml")
    assert rows["bind"] == ("127.0.0.1:0,[::1]:0", "site.toml")
    assert rows["settings"] == ("none", "the default")


def test_manage_py_passes_everything_on(site: Site) -> None:
    rows = printed(site.manage("--print-config", "--greenlet", "7", "-b", ":0", "-b", "[::1]:0"))
    assert rows["app"] == ("mysite.wsgi.application", "WSGI_APPLICATION in mysite.settings")
    assert rows["settings"] == ("mysite.settings", "the command line")
    assert rows["greenlet"] == ("7", "the command line")
    assert rows["bind"] == (":0,[::1]:0", "the command line")
    assert rows["backlog"] == ("77", "GPULSE in mysite.settings")


def test_manage_py_keeps_django_s_own_options(site: Site) -> None:
    site.write("elsewhere/other.py", f"{SETTINGS}\nGPULSE = {{'backlog': 88}}\n")
    rows = printed(site.manage("--print-config", "--settings=other", "--pythonpath=elsewhere"))
    assert rows["settings"] == ("other", "the command line")
    assert rows["backlog"] == ("88", "GPULSE in other")
    assert site.manage("--version").stdout.startswith("gpulse ")


def test_manage_py_from_another_directory_finds_its_site(site: Site, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(site.directory / "manage.py"), "pulse", "--check-config"],
        cwd="/",
        env=site.environ(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gpulse: the configuration is good: 1 workers with 5 threads")


def test_manage_py_refuses_in_one_line_too(site: Site) -> None:
    refused(site.manage("-w", "0"), 2, "--workers 0 (from the command line): must be 1 or more")
    refused(site.manage("--nonsense"), 2, "gpulse: unrecognized arguments: --nonsense; see --help")
    refused(
        site.manage("--greenlet", "--thread-workers", "2"),
        2,
        "--greenlet 100 and --thread-workers 2 (from the command line) exclude each other",
    )


def test_check_config_says_everything_that_is_wrong(site: Site) -> None:
    done = site.gpulse("--check-config", "-w", "0", "-b", "x", "plain", GPULSE_TIMEOUT="soon")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 3
    done = site.manage("--check-config", "-w", "0", "-b", "x")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2


def test_check_config_loads_the_application(site: Site) -> None:
    assert site.gpulse("--check-config", "--settings", "mysite.settings").returncode == 0
    assert site.gpulse("--check-config", "plain").returncode == 0
    site.write("mysite/wsgi.py", "1 / 0\n")
    refused(site.gpulse("--check-config", "--settings", "mysite.settings"), 4, "ZeroDivisionError")


def test_check_config_looks_at_directories_and_accounts(site: Site) -> None:
    done = site.gpulse("--check-config", "-p", "none/pid", "-u", "nosuchuser", "plain")
    assert done.returncode == 8
    assert "user 'nosuchuser' does not exist" in done.stderr
    assert f"--pid-file none/pid: the directory {site.directory}/none does not exist" in done.stderr


@pytest.mark.parametrize(
    ("flag", "statuses"),
    [("--version", {141}), ("--help", {0, 141})],  # some releases of argparse ignore the error
)
def test_output_into_a_closed_pipe_leaves_no_traceback(
    site: Site, flag: str, statuses: set[int]
) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with os.fdopen(write_fd, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "gpulse", flag],
            cwd=site.directory,
            env=site.environ(),
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode in statuses


def test_an_interrupt_while_the_site_is_imported_is_quiet(site: Site) -> None:
    site.write("mysite/settings.py", "import time\nopen('started', 'w').close()\ntime.sleep(100)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "gpulse", "--settings", "mysite.settings"],
        cwd=site.directory,
        env=site.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as command:
        for _ in range(int(DEADLINE * 100)):
            if (site.directory / "started").exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                command.wait(0.01)
        command.send_signal(signal.SIGINT)
        assert command.communicate(timeout=DEADLINE) == ("", "")
        assert command.returncode == 130


def test_the_process_that_becomes_the_master_is_cold(site: Site) -> None:
    script = """
        import sys
        from gpulse import cli
        assert cli.main(["--print-config", "mysite.wsgi"]) == 0
        warm = {"gevent", "django", "mysite", "redis", "hiredis", "httptools"} & set(sys.modules)
        sys.exit(f"warm: {warm}" if warm else 0)
    """
    done = site._run(["-c", textwrap.dedent(script)], {})
    assert done.returncode == 0, done.stderr
