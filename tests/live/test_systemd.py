"""systemd's protocols with the whole program: sd_notify(3), the watchdog, socket activation.

The master is what answers to the service manager, and ``manage.py pulse`` becomes it by an exec:
process id, descriptors and variables must come through.
"""

import http.client
import shutil
import socket
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pulse import DEADLINE, Pulse, until

Start = Callable[..., Pulse]

# The first worker to come imports the site at once, the others wait for a file; ``manage.py``,
# which looks at the URLconf too, does not.
SLOW_TO_IMPORT = """
    import os, sys, time
    from pathlib import Path

    VERSION = "slow"
    HERE = Path(__file__).parent
    if Path(sys.argv[0]).name == "__main__.py":
        try:
            os.close(os.open(HERE / "first", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            while not (HERE / "go").exists():
                time.sleep(0.01)
"""


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.messages: list[list[str]] = []
        """The datagrams so far, as lines."""
        self.address = address
        self.receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.bind(address.replace("@", "\0"))
        self.receiver.settimeout(DEADLINE)

    def receive(self, wanted: str) -> list[str]:
        """The next datagram with a line that begins with ``wanted``."""
        while True:
            lines = self.receiver.recv(4096).decode().split("\n")
            self.messages.append(lines)
            if any(line.startswith(wanted) for line in lines):
                return lines

    def heard(self, line: str) -> bool:
        return any(line in lines for lines in self.messages)


@pytest.fixture
def listen() -> Iterator[Callable[[str], Manager]]:
    """Be the service manager at an address, a path or ``@`` and an abstract name."""
    with ExitStack() as opened:

        def be_manager(address: str) -> Manager:
            manager = Manager(address)
            opened.enter_context(manager.receiver)
            return manager

        yield be_manager


def test_the_manager_hears_each_stage_when_it_is_true(
    start: Start, listen: Callable[[str], Manager], tmp_path: Path
) -> None:
    manager = listen(str(tmp_path / "notify"))
    site = tmp_path / "site"
    shutil.copytree(Path(__file__).with_name("site"), site)
    (site / "mysite/version.py").write_text(textwrap.dedent(SLOW_TO_IMPORT))
    pulse = start(
        *("-w", "2", "--greenlet", "5"),
        site=site,
        environ={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"},
    )

    manager.receive("STATUS=1 of 2 workers serve")
    pulse.text("/pid")
    assert not manager.heard("READY=1"), "one worker is not the site"
    (site / "mysite/go").touch()
    ready = manager.receive("READY=1")
    assert "STATUS=2 of 2 workers serve" in ready
    assert f"MAINPID={pulse.pid}" in ready, "the exec keeps the process id"
    workers = {str(pid) for pid in pulse.workers()}
    answering: set[str] = set()
    until(lambda: answering.add(pulse.text("/pid")) or answering == workers, "both answer")

    for _ in range(3):
        manager.receive("WATCHDOG=1")

    pulse.send_signal("HUP")
    reloading = manager.receive("RELOADING=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)
    manager.receive("READY=1")
    assert not workers & {pulse.text("/pid") for _ in range(10)}, "ready again, with the new ones"

    pulse.children()
    pulse.send_signal("TERM")
    manager.receive("STOPPING=1")
    assert pulse.process.wait(DEADLINE) == 0
    pulse.assert_gone()


@pytest.mark.parametrize("program", ["manage.py", "gpulse"])
def test_it_serves_on_the_sockets_that_systemd_opened(
    start: Start, listen: Callable[[str], Manager], program: str, tmp_path: Path
) -> None:
    manager = listen(f"@{tmp_path}")
    activate = shutil.which("systemd-socket-activate")
    assert activate, "systemd-socket-activate is missing: apt install systemd"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path, unwanted = tmp_path / "site.sock", tmp_path / "bind.sock"
    # It hands on nothing but these and PATH.
    names = ("TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET")
    pulse = start(
        *(["--settings", "mysite.settings"] if program == "gpulse" else []),
        *("-w", "2", "--greenlet", "5"),
        program=program,
        bind=f"unix:{unwanted}",
        environ={"NOTIFY_SOCKET": manager.address},
        prefix=[
            activate,
            *(word for name in names for word in ("-E", name)),
            *("-l", f"127.0.0.1:{port}", "-l", str(path)),
        ],
    )
    # The first connection, which has the program started, is served like any other.
    pulse.logged(f"Listening on {path}")
    over_tcp = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    over_tcp.request("GET", "/version")
    assert over_tcp.getresponse().read() == b"one", pulse.log
    over_tcp.close()
    assert f"MAINPID={pulse.pid}" in manager.receive("READY=1")
    over_unix = pulse.connect_unix(path)
    over_unix.request("GET", "/version")
    assert over_unix.getresponse().read() == b"one", pulse.log
    over_unix.close()
    assert f"listening on http://127.0.0.1:{port}" in pulse.log
    assert f"listening on unix:{path}" in pulse.log
    assert not unwanted.exists(), "--bind is not opened"
    assert f"listening on unix:{unwanted}" not in pulse.log
    assert pulse.stop() == 0
    assert path.is_socket(), "it is systemd's to remove"
