"""Behind proxies end to end: forwarded headers over TCP and unix sockets, the PROXY protocol."""

import json
import struct
from contextlib import suppress

import gevent
import pytest
from contract.wsgi_site import until

SEEN = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "SERVER_PORT", "HTTP_HOST")
CLIENT = "203.0.113.7"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def application(environ, start_response):
    """Answers with what it knows of its client."""
    start_response("200 OK", [("Content-Type", "application/json")])
    seen = {key: environ.get(key) for key in SEEN}
    seen["forwarded"] = {key: environ[key] for key in environ if "FORWARDED" in key}
    return [json.dumps(seen).encode()]


def ask(site, **fields):
    return json.loads(site.get("/", **fields).body)


class TestForwarded:
    def test_a_trusted_proxy_is_believed(self, serve):
        site = serve(application, log_format="%a %{c}a %s")
        seen = ask(site, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https")
        assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == (CLIENT, None)
        assert (seen["wsgi.url_scheme"], seen["SERVER_PORT"]) == ("https", "443")
        assert set(seen["forwarded"]) == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}
        until(lambda: site.lines)
        assert site.lines == [f"{CLIENT} 127.0.0.1 200"]

    def test_a_stranger_is_not(self, serve):
        site = serve(application, trusted_proxies="", log_format="%a %s")
        seen = ask(
            site,
            X_Forwarded_For=CLIENT,
            X_Forwarded_Proto="https",
            X_Forwarded_Host="evil",
            Forwarded=f"for={CLIENT};proto=https",
        )
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert (seen["HTTP_HOST"], seen["SERVER_PORT"]) == ("x", str(site.address[1]))
        assert seen["REMOTE_PORT"].isdigit()
        assert seen["forwarded"] == {}
        until(lambda: site.lines)
        assert site.lines == ["127.0.0.1 200"]

    def test_what_the_client_itself_put_to_the_left_is_not_looked_at(self, serve):
        seen = ask(serve(application), X_Forwarded_For=f"127.0.0.1, 10.9.9.9, {CLIENT}, 127.0.0.1")
        assert seen["REMOTE_ADDR"] == CLIENT
        assert seen["forwarded"] == {"HTTP_X_FORWARDED_FOR": f"{CLIENT}, 127.0.0.1"}

    def test_two_fields_are_one_list(self, serve):
        client = serve(application).connect()
        client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\n"
            b"X-Forwarded-For: 203.0.113.7\r\n\r\n"
        )
        assert json.loads(client.read().body)["REMOTE_ADDR"] == CLIENT

    @pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For"])
    def test_a_name_that_is_spelt_with_underscores_is_not_read(self, serve, name):
        client = serve(application).connect()
        client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{name}: {CLIENT}\r\n\r\n".encode())
        assert json.loads(client.read().body)["REMOTE_ADDR"] == "127.0.0.1"

    @pytest.mark.parametrize("value", ["unknown", "", "999.1.1.1", "x" * 500, "\xff", "_hidden"])
    def test_what_is_no_address_is_no_error(self, serve, value):
        client = serve(application).connect()
        client.send(
            f"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {value}\r\n\r\n".encode("latin-1")
        )
        answer = client.read()
        assert json.loads(answer.body)["REMOTE_ADDR"] == "127.0.0.1"

    def test_forwarded_where_it_is_asked_for(self, serve):
        site = serve(application, forwarded_headers="forwarded")
        seen = ask(
            site,
            Forwarded=f'for="{CLIENT}:99";proto=https;host=a.example',
            X_Forwarded_For="1.2.3.4",
        )
        assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == (CLIENT, "99")
        assert (seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == ("https", "a.example")
        assert set(seen["forwarded"]) == {"HTTP_FORWARDED"}

    def test_each_request_of_a_connection_speaks_for_itself(self, serve):
        client = serve(application).connect()
        for number in range(1, 4):
            client.request("GET", "/", X_Forwarded_For=f"203.0.113.{number}")
            assert json.loads(client.read().body)["REMOTE_ADDR"] == f"203.0.113.{number}"
        client.request("GET", "/")
        assert json.loads(client.read().body)["REMOTE_ADDR"] == "127.0.0.1"

    def test_headers_of_a_refused_request_are_in_no_log(self, serve):
        site = serve(application)
        client = site.connect()
        client.send(b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
        assert client.read().status == 400
        assert CLIENT not in site.lines[0]


class TestUnixSocket:
    def test_its_peers_are_trusted_as_unix(self, serve, tmp_path):
        site = serve(application, path=tmp_path / "socket", log_format="%a %{c}a %s")
        seen = ask(site, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https")
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == (CLIENT, "https")
        until(lambda: site.lines)
        assert site.lines == [f"{CLIENT} - 200"]

    def test_or_not(self, serve, tmp_path):
        site = serve(
            application, path=tmp_path / "socket", trusted_proxies="127.0.0.1", log_format="%a %s"
        )
        seen = ask(site, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https")
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("", "http")
        assert seen["forwarded"] == {}
        until(lambda: site.lines)
        assert site.lines == ["- 200"]

    def test_a_proxy_header_over_it(self, serve, tmp_path):
        site = serve(application, path=tmp_path / "socket", proxy_protocol=True)
        client = site.connect()
        client.send(f"PROXY TCP4 {CLIENT} 192.0.2.1 4711 80\r\n".encode())
        client.request("GET", "/")
        seen = json.loads(client.read().body)
        assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == (CLIENT, "4711")


def version_2(command=1, family=0x11, addresses=None, extra=b""):
    """A header of version 2; the client is CLIENT, port 4711."""
    if addresses is None:
        addresses = bytes([203, 0, 113, 7, 192, 0, 2, 1]) + struct.pack("!HH", 4711, 80)
    return (
        SIGNATURE
        + bytes([0x20 | command, family])
        + struct.pack("!H", len(addresses) + len(extra))
        + addresses
        + extra
    )


V1 = f"PROXY TCP4 {CLIENT} 192.0.2.1 4711 80\r\n".encode()
V1_SIX = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n"
V2 = version_2()
V2_TLV = version_2(extra=b"\x04\0\x05hello")
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class TestProxyProtocol:
    @pytest.fixture
    def site(self, serve):
        return serve(application, proxy_protocol=True, log_format="%a %s")

    @pytest.mark.parametrize(
        ("header", "address"),
        [(V1, CLIENT), (V1_SIX, "2001:db8::7"), (V2, CLIENT), (V2_TLV, CLIENT)],
        ids=["1", "1 over IPv6", "2", "2 with more"],
    )
    @pytest.mark.parametrize("step", [None, 1, 10])
    def test_the_client_is_who_it_names(self, site, header, address, step):
        client = site.connect()
        data = header + REQUEST
        for at in range(0, len(data), step or len(data)):
            client.send(data[at : at + (step or len(data))])
            gevent.sleep(0)
        client.request("GET", "/")
        for _ in range(2):
            seen = json.loads(client.read().body)
            assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == (address, "4711")
        until(lambda: len(site.lines) == 2)
        assert site.lines == [f"{address} 200"] * 2

    def test_a_probe_behind_it(self, site):
        client = site.connect()
        client.send(V2 + b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.read().body == b"200 OK\n"

    @pytest.mark.parametrize(
        "data",
        [
            REQUEST,
            b"\r\n" + REQUEST,
            b"P" + REQUEST,
            b"PROXY \r\n" + REQUEST,
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n" + REQUEST,
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\n" + REQUEST,
            b"PROXY TCP4 300.0.113.7 192.0.2.1 4711 80\r\n" + REQUEST,
            b"PROXY TCP4 " + b"1" * 200,
            SIGNATURE + b"\x11\x11\0\x0c" + b"a" * 12 + REQUEST,
            version_2(extra=b"a" * 300) + REQUEST,
            b"\x16\x03\x01\x02\x00",
        ],
    )
    def test_without_a_proper_one_it_is_closed_without_a_word(self, site, data):
        client = site.connect()
        client.send(data)
        with suppress(ConnectionResetError):
            assert client.is_ended()
        assert (site.server.requests, site.lines) == (0, [])
        assert site.server.refusals == 1

    def test_one_that_never_ends_is_not_waited_for(self, serve, monkeypatch):
        monkeypatch.setattr("gpulse.connection.proxyheader.HEADER_TIMEOUT", 0.2)
        client = serve(application, proxy_protocol=True).connect()
        client.send(V1[:20])
        assert client.is_ended()

    def test_a_proxy_that_only_knocks_is_no_refusal(self, site):
        client = site.connect()
        client.finish_sending()
        assert client.is_ended()
        assert site.server.refusals == 0

    def test_that_of_a_stranger_is_not_read(self, serve):
        site = serve(application, proxy_protocol=True, trusted_proxies="192.0.2.1")
        client = site.connect()
        try:
            client.send(V1 + REQUEST)
            assert client.is_ended()
        except OSError:
            pass  # it was reset meanwhile
        until(lambda: not site.server.connections)
        assert (site.server.requests, site.server.refusals) == (0, 1)

    @pytest.mark.parametrize("first", [V1, V2])
    @pytest.mark.parametrize("second", [V1, V2])
    def test_a_second_one_is_a_bad_request(self, site, first, second):
        client = site.connect()
        client.send(first + second + REQUEST)
        assert client.read().status == 400
        assert client.is_ended()
        assert site.server.requests == 0

    @pytest.mark.parametrize("header", [V1, V2])
    def test_nor_does_one_come_behind_a_request(self, site, header):
        client = site.connect()
        client.send(V1 + REQUEST + header + REQUEST)
        assert client.read().status == 200
        assert client.read().status == 400
        assert client.is_ended()

    @pytest.mark.parametrize(
        "header",
        [
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 4711 80\r\n",
            version_2(command=0),
            version_2(command=0, family=0, addresses=b""),
            version_2(family=0, addresses=b""),
            version_2(family=0x31, addresses=b"a" * 216),
        ],
        ids=["UNKNOWN", "UNKNOWN with more", "LOCAL", "LOCAL empty", "unspecified", "unix"],
    )
    def test_one_that_names_nobody_leaves_the_peer_and_believes_no_header(self, site, header):
        client = site.connect()
        client.send(header)
        client.request("GET", "/", X_Forwarded_For=CLIENT, X_Forwarded_Proto="https")
        seen = json.loads(client.read().body)
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert seen["forwarded"] == {}

    def test_a_client_behind_it_is_believed_if_it_is_a_trusted_proxy(self, serve):
        """A load balancer that passes bytes on, and behind it a proxy that reads them."""
        site = serve(application, proxy_protocol=True, trusted_proxies="127.0.0.1,198.51.100.0/24")
        for source, address in (("198.51.100.9", CLIENT), ("192.0.2.9", "192.0.2.9")):
            client = site.connect()
            client.send(f"PROXY TCP4 {source} 192.0.2.1 4711 80\r\n".encode())
            client.request("GET", "/", X_Forwarded_For=CLIENT)
            assert json.loads(client.read().body)["REMOTE_ADDR"] == address

    def test_without_the_option_it_is_a_bad_request(self, serve):
        for header in (V1, V2):
            client = serve(application).connect()
            client.send(header + REQUEST)
            assert client.read().status == 400

    def test_many_that_leave_within_it_leave_nothing(self, site):
        for at in range(0, len(V2), 3):
            client = site.connect()
            client.send(V2[:at])
            client.reset() if at % 2 else client.close()
        until(lambda: not site.server.connections)
