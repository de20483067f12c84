"""The unit and the proxy's file agree with the defaults and deadlines in the code."""

import re
from pathlib import Path

from gpulse import cli
from gpulse.config import Config
from gpulse.http.limits import Limits
from gpulse.master.policy import DRAIN_GRACE, LASTING
from gpulse.master.sidecar import STOP_SECONDS
from gpulse.websocket.limits import SocketLimits

DEPLOY = Path(__file__).parents[3] / "docs" / "deploy"


def setting(name: str, unit: str = "gpulse.service") -> str:
    """The value of a unit's one line ``name=``."""
    found = re.findall(rf"^{name}=(.*)$", (DEPLOY / unit).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_systemd_waits_longer_than_the_master_does() -> None:
    longest = Config.defaults().graceful_timeout + DRAIN_GRACE + STOP_SECONDS
    assert float(setting("TimeoutStopSec")) > longest
    assert float(setting("TimeoutStartSec")) > Config.defaults().boot_timeout


def test_systemd_does_not_restart_after_lasting_failures() -> None:
    assert {int(status) for status in setting("RestartPreventExitStatus").split()} == LASTING


def test_only_the_master_is_told_to_stop_and_may_notify() -> None:
    assert (setting("KillMode"), setting("NotifyAccess")) == ("mixed", "main")


def test_the_command_line_of_the_unit_is_understood() -> None:
    words = setting("ExecStart").split()[1:]
    given = vars(cli.parser().parse_args(words))
    assert Config.defaults(**given).settings == "mysite.settings"


def test_descriptors_suffice_for_all_websockets() -> None:
    assert int(setting("LimitNOFILE")) > Config.defaults().max_websockets


def test_the_socket_unit_has_the_default_backlog() -> None:
    assert int(setting("Backlog", "gpulse.socket")) == Config.defaults().backlog


def test_the_proxy_closes_first_and_outwaits_a_ping() -> None:
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    seconds = {
        name: float(value) for name, value in re.findall(r"^\s*(\w+) (\d+)s;", text, re.MULTILINE)
    }
    assert seconds["keepalive_timeout"] < Config.defaults().keep_alive
    assert seconds["proxy_read_timeout"] > 2 * SocketLimits().ping_interval
    assert seconds["proxy_read_timeout"] > Limits().queue_timeout
