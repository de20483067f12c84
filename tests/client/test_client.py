"""The JavaScript client: its own tests in Node, its types, and what it shares with the server.

The ``.test.mjs`` files beside this one run on written fakes of time, page, sockets and HTTP, so no
second is waited for.  The client against the real server is in tests/browser.
"""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpulse.websocket.channels import SUBPROTOCOL
from gpulse.websocket.closecodes import CODES, comes_back

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "gpulse/static/gpulse/gpulse.js"
TYPES = CLIENT.with_suffix(".d.ts")
GZIPPED = 8_192
"""Most bytes of the module on the wire, comments and all."""


def run(program: str, package: str, *arguments: str) -> str:
    """Standard output; fails the test with what the program said."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"no {program} here: apt-get install {package}")
    done = subprocess.run(
        [path, *arguments], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return done.stdout


def asked_in_node(expression: str) -> object:
    """The value of a JavaScript expression in which ``client`` is the module."""
    script = (
        f"import * as client from {json.dumps(CLIENT.as_uri())};"
        f"console.log(JSON.stringify({expression}));"
        "process.exit()"  # a client that was made would go on
    )
    return json.loads(run("node", "nodejs", "--input-type=module", "--eval", script))


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_in_node(file: str) -> None:
    report = run("node", "nodejs", "--test", "--test-reporter=tap", file)
    passed = re.search(r"^# pass (\d+)$", report, re.MULTILINE)
    assert passed
    written = len(re.findall(r"^ *test\(", (HERE / file).read_text(), re.MULTILINE))
    assert int(passed[1]) >= written > 0, report


def test_the_close_codes_are_the_servers() -> None:
    found = asked_in_node("Array.from({length: 5000}, (_, code) => client.comesBack(code))")
    assert found == [comes_back(code) for code in range(5000)]
    table = re.search(r"COMES_BACK = \{(.*?)\}", CLIENT.read_text(), re.DOTALL)
    assert table
    named = [int(code) for code in re.findall(r"(\d+):", table[1])]
    assert named == [row.code for row in CODES], "codes are named in one table and not the other"


def test_the_subprotocol_is_the_servers() -> None:
    assert f'PROTOCOL = "{SUBPROTOCOL}"' in CLIENT.read_text()


def test_it_stays_small_and_alone() -> None:
    code = CLIENT.read_text()
    assert len(gzip.compress(code.encode(), 9)) <= GZIPPED
    assert re.findall(r"^import\b.*", code, re.MULTILINE) == []
    assert re.findall(r"\b(?:eval|Function|innerHTML|localStorage|cookie)\b *[(=]", code) == []


def test_every_declared_name_is_there() -> None:
    """And the other way round: exports, methods of a client, of a subscription, handlers."""
    types, code = TYPES.read_text(), CLIENT.read_text()
    exports = set(re.findall(r"^export (?:class|function) (\w+)", types, re.MULTILINE))
    assert set(asked_in_node("Object.keys(client)")) == exports  # type: ignore[call-overload]
    made = "client.connect('ws://127.0.0.1/', {WebSocket: class { close() {} }})"
    for interface, expression in {
        "Pulse": f"Object.getOwnPropertyNames(Object.getPrototypeOf({made}))",
        "Subscription": f"Object.keys({made}.subscribe('a'))",
    }.items():
        found = asked_in_node(f"{expression}.filter((name) => name !== 'constructor')")
        assert set(found) == members(types, interface), interface  # type: ignore[call-overload]
    called = set(re.findall(r'call\("(on\w+)"', code)) | set(re.findall(r"handlers\.(\w+)", code))
    assert called == members(types, "Handlers")
    told = set(re.findall(r"\{ state, attempt: this\.#attempt, (transport), ", code))
    assert told | {"state", "attempt", "code", "reason", "retryIn"} == members(types, "StateChange")


def members(types: str, interface: str) -> set[str]:
    """The names that an interface of the declarations has."""
    body = re.search(rf"^export interface {interface}\b.*?\{{\n(.*?)^\}}", types, re.M | re.S)
    assert body
    return set(re.findall(r"^  (?:readonly )?(\w+)[?(<:]", body[1], re.MULTILINE))


def test_the_types_hold() -> None:
    """What usage.ts does compiles, and what it must not do does not."""
    run("tsc", "node-typescript", "--noEmit", "--strict", "--target", "es2022", "usage.ts")
