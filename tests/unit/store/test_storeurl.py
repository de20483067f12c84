"""gpulse/storeurl.py: which URLs are taken, and that no password is ever shown."""

import subprocess
import sys

import pytest

from gpulse.errors import StoreError
from gpulse.storeurl import StoreURL, parse, redact


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://", StoreURL("memory")),
        ("redis://127.0.0.1:6379/3", StoreURL("redis", "127.0.0.1", 6379, db=3)),
        ("redis://", StoreURL("redis", "127.0.0.1", 6379)),
        ("REDIS://Cache/", StoreURL("redis", "cache", 6379)),
        ("valkey://cache:7000?db=2", StoreURL("redis", "cache", 7000, db=2)),
        ("redis://cache/2?db=2", StoreURL("redis", "cache", 6379, db=2)),
        ("redis://[::1]:7000/1", StoreURL("redis", "::1", 7000, db=1)),
        ("redis://:p%40ss@h", StoreURL("redis", "h", 6379, password="p@ss")),
        (
            "redis://ann:p%2Fw%3A@h:1/0",
            StoreURL("redis", "h", 1, username="ann", password="p/w:"),
        ),
        ("rediss://h", StoreURL("rediss", "h", 6379, tls=True)),
        (
            "valkeys://h?ssl_cert_reqs=none&db=4",
            StoreURL("rediss", "h", 6379, db=4, tls=True, tls_options=(("ssl_cert_reqs", "none"),)),
        ),
        ("unix:///run/store.sock", StoreURL("unix", path="/run/store.sock")),
        ("unix:///run/a@b.sock?db=3", StoreURL("unix", path="/run/a@b.sock", db=3)),
        ("unix://:pw@/run/s", StoreURL("unix", path="/run/s", password="pw")),
        (
            "redis+sentinel://a,b:7000,[::1]:1/site",
            StoreURL(
                "redis+sentinel", nodes=(("a", 26379), ("b", 7000), ("::1", 1)), service="site"
            ),
        ),
        (
            "valkeys+sentinel://u:p%2C@a:1/my%2Fsite/3?sentinel_username=s&sentinel_password=t"
            "&ssl_check_hostname=false",
            StoreURL(
                "rediss+sentinel",
                db=3,
                username="u",
                password="p,",
                tls=True,
                tls_options=(("ssl_check_hostname", "false"),),
                nodes=(("a", 1),),
                service="my/site",
                sentinel_username="s",
                sentinel_password="t",
            ),
        ),
        (
            "redis+sentinel://a/site?db=2",
            StoreURL("redis+sentinel", db=2, nodes=(("a", 26379),), service="site"),
        ),
        (
            "Valkey+Cluster://:pw@a:1,b",
            StoreURL("redis+cluster", password="pw", nodes=(("a", 1), ("b", 6379))),
        ),
        (
            "redis+cluster://a/?replicas=2",
            StoreURL("redis+cluster", nodes=(("a", 6379),), replicas=2),
        ),
        ("unix:///s?db=1&replicas=1", StoreURL("unix", path="/s", db=1, replicas=1)),
        (
            "rediss+cluster://a/?ssl_ca_certs=/ca.pem",
            StoreURL(
                "rediss+cluster",
                tls=True,
                tls_options=(("ssl_ca_certs", "/ca.pem"),),
                nodes=(("a", 6379),),
            ),
        ),
    ],
)
def test_a_url_is_read(url: str, expected: StoreURL) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "no scheme"),
        ("localhost:6379", "no scheme"),
        ("http://h", "scheme is none of"),
        ("redis://h ", "a space"),
        ("redis://h\n", "control character"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:http", "port"),
        ("redis://[::1", "IPv6"),
        ("redis://h/a", "database"),
        ("redis://h/1/2", "database"),
        ("redis://h/-1", "database"),
        ("redis://h/" + "9" * 5000, "database"),
        ("redis://h/1?db=2", "two databases"),
        ("redis://h?db=1&db=1", "db is given twice"),
        ("redis://h?socket_timeout=5", "its query"),
        ("redis://h?ssl_cert_reqs=none", "its query"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("memory://x", "takes nothing"),
        ("unix://", "names no socket"),
        ("unix:///", "names no socket"),
        ("unix://run/s", "not absolute"),
        ("unix:///" + "a" * 107, "longer than 107"),
        ("redis+sentinel://a:1", "name the service"),
        ("redis+sentinel://a:1/", "name the service"),
        ("redis+sentinel://a:1/s/x", "database"),
        ("redis+sentinel://a:1/s/1/2", "database"),
        ("redis+sentinel://a:1/s?sentinel_username=x", "no sentinel_password"),
        ("redis+sentinel://a:1,,b/s", "a host is missing"),
        ("redis+sentinel:///s", "a host is missing"),
        ("redis+sentinel://a:1,a:1/s", "a host twice"),
        ("redis+sentinel://a:x,b/s", "port"),
        ("redis+sentinel://" + ",".join(f"h{n}" for n in range(51)) + "/s", "more than 50 hosts"),
        ("redis+cluster://a:1/0", "database 0 only"),
        ("redis+cluster://a:1?db=0", "may hold replicas and nothing else"),
        ("redis://h?replicas=10", "replicas is not a number from 0 to 9"),
        ("redis://h?replicas=", "replicas is not"),
        ("memory://?replicas=1", "takes nothing"),
        ("redis+cluster://[::1", "IPv6"),
        ("redis+cluster://", "a host is missing"),
        ("redis+proxy://a", "scheme is none of"),
    ],
)
def test_a_bad_url_is_refused_by_its_part_in_one_line(url: str, part: str) -> None:
    with pytest.raises(StoreError, match=part) as caught:
        parse(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h/3",
        "redis://ann:hunter2@h/x",
        "redis://hunter2@h",
        "redis://:hun/ter2@h",
        "redis://:hunter2#@h",
        "redis://:hunter2?@h",
        "redis://:hunter2",
        "redis://:hunter2@h:port",
        "redis://:hunter2@[::1",
        "rediss://:hunter2@h?password=hunter2",
        "unix://:hunter2@/run/s",
        "unix://:hunter2/run/s",
        "hunter2",
        "redi://:hunter2@h",
        "redis+cluster://:hunter2@a,b",
        "redis+cluster://:hun,ter2@a,b/x",
        "redis+cluster://:hun/ter2@a,b",
        "redis+cluster://:hunter2",
        "redis+sentinel://:hunter2@a/s?sentinel_password=hunter2",
        "redis+sentinel://a/s?sentinel_username=ter2&sentinel_pass=hunter2",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    shown = redact(url)
    try:
        shown += repr(parse(url))
    except StoreError as error:
        shown += str(error)
    assert "hunter2" not in shown
    assert "ter2" not in shown


def test_the_shown_url_is_the_url_but_for_the_password() -> None:
    for url in ("redis://h:7000/3", "unix:///run/s?db=3", "memory://", "redis://[::1]:1/0"):
        assert str(parse(url)) == redact(url) == url
    assert redact("redis://ann:secret@h:1/2") == "redis://ann:***@h:1/2"
    for url in ("redis+sentinel://a:1,[::1]:2/s/0", "rediss+cluster://a:1?ssl_cert_reqs=none"):
        assert str(parse(url)) == url
    url = "redis+sentinel://:x@a:1/s/0?sentinel_username=u&sentinel_password="
    assert redact(url + "y") == url.replace(":x@", ":***@") + "***"
    assert redact("redis://h:port") == "redis://***"


def test_it_costs_a_cold_process_neither_gevent_nor_redis() -> None:
    code = (
        "import sys, gpulse.storeurl, gpulse.store; "
        "sys.exit(not {'gevent', 'redis', 'django'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
