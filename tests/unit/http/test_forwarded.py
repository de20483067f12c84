"""What the environ shows of a client behind proxies, and what nobody can make it show."""

import ipaddress
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.http.forwarded import KEYS, MAX_ELEMENT, MAX_HOPS, Trust
from gpulse.trust import DEFAULT_HEADERS, DEFAULT_PROXIES, HEADERS

PROXY = ("10.0.0.1", 50000)
STRANGER = ("203.0.113.9", 50001)
PROXIES = ("10.0.0.0/8", "2001:db8:f::/48", "unix")
X_FORWARDED = HEADERS[:-1]

FOR = "HTTP_X_FORWARDED_FOR"
PROTO = "HTTP_X_FORWARDED_PROTO"
HOST = "HTTP_X_FORWARDED_HOST"
PORT = "HTTP_X_FORWARDED_PORT"
FORWARDED = "HTTP_FORWARDED"


def base(peer):
    """The environ as it is before anything is believed."""
    environ = {
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8060",
        "REMOTE_ADDR": "",
        "HTTP_HOST": "site.example",
    }
    if isinstance(peer, tuple):
        environ |= {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])}
    return environ


def applied(fields, peer=PROXY, headers=X_FORWARDED, proxies=PROXIES):
    environ = base(peer) | fields
    Trust(proxies, headers).apply(environ, peer)
    return environ


def changes(fields, peer=PROXY, headers=X_FORWARDED, proxies=PROXIES):
    """What differs from an environ without any header; None for a key that is gone."""
    before = base(peer)
    after = applied(fields, peer, headers, proxies)
    return {key: after.get(key) for key in before | after if after.get(key) != before.get(key)}


def client(value, **kwargs):
    return applied({FOR: value}, **kwargs)["REMOTE_ADDR"]


class TestWhoIsBelieved:
    @pytest.mark.parametrize("headers", [DEFAULT_HEADERS, X_FORWARDED, ("forwarded",), ()])
    @pytest.mark.parametrize("key", sorted(KEYS))
    def test_a_stranger_says_nothing(self, key, headers):
        fields = {key: "https" if "PROTO" in key else "198.51.100.1"}
        assert changes(fields, peer=STRANGER, headers=headers) == {}

    def test_a_peer_of_which_nothing_is_known_says_nothing(self):
        environ = base(PROXY) | {FOR: "198.51.100.1"}
        Trust(PROXIES, X_FORWARDED).apply(environ, None)
        assert environ == base(PROXY)

    @pytest.mark.parametrize("key", sorted(KEYS))
    def test_what_no_option_names_is_removed_from_a_proxy_s_request_too(self, key):
        assert changes({key: "198.51.100.1"}, headers=()) == {}

    def test_headers_that_the_options_do_not_name_are_not_read(self):
        fields = {PROTO: "https", HOST: "evil.example", PORT: "1", FORWARDED: "for=192.0.2.1"}
        assert changes(fields, headers=("x-forwarded-for",)) == {}
        assert changes(fields | {FOR: "192.0.2.1"}, headers=("forwarded",)) == {
            FORWARDED: "for=192.0.2.1",
            "REMOTE_ADDR": "192.0.2.1",
            "REMOTE_PORT": None,
        }

    def test_other_keys_are_left_alone(self):
        fields = {"HTTP_X_FORWARDED": "a", "HTTP_VIA": "b", "HTTP_X_FORWARDED_FOR_": "c"}
        assert changes(fields, peer=STRANGER) == fields

    @pytest.mark.parametrize("peer", ["", b"", "/run/nginx.sock"])
    def test_a_unix_socket_s_peer(self, peer):
        environ = applied({FOR: "198.51.100.1"}, peer=peer)
        assert environ["REMOTE_ADDR"] == "198.51.100.1"
        assert "REMOTE_PORT" not in environ
        assert changes({FOR: "198.51.100.1"}, peer=peer, proxies=("10.0.0.0/8",)) == {}

    def test_by_default_this_machine_is_believed(self):
        for peer in (("127.0.0.1", 1), ("::1", 1, 0, 0), ("::ffff:127.0.0.1", 1, 0, 0), ""):
            environ = base(peer) | {FOR: "198.51.100.1", PROTO: "https", HOST: "evil.example"}
            Trust(DEFAULT_PROXIES, DEFAULT_HEADERS).apply(environ, peer)
            assert environ["REMOTE_ADDR"] == "198.51.100.1"
            assert environ["wsgi.url_scheme"] == "https"
            assert environ["HTTP_HOST"] == "site.example"

    def test_two_of_the_same_options_are_equal(self):
        assert Trust(PROXIES, X_FORWARDED) == Trust(PROXIES, X_FORWARDED)
        assert Trust(PROXIES, X_FORWARDED) != Trust(PROXIES, ())


class TestFor:
    @pytest.mark.parametrize(
        ("value", "address"),
        [
            ("198.51.100.1", "198.51.100.1"),
            ("  198.51.100.1\t", "198.51.100.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("198.51.100.1:5678", "198.51.100.1"),
            ("198.51.100.1:_hidden", "198.51.100.1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("[::ffff:c633:6401]:80", "198.51.100.1"),
            # the client's own claim, in front of the proxy's word
            ("192.0.2.66, 198.51.100.1", "198.51.100.1"),
            ("192.0.2.66,198.51.100.1", "198.51.100.1"),
            ("unknown, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.9, 198.51.100.1", "198.51.100.1"),
            (",,,198.51.100.1", "198.51.100.1"),
            # over trusted proxies
            ("198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("192.0.2.66, 198.51.100.1, 10.0.0.3:80, [2001:db8:f::2]", "198.51.100.1"),
            ("10.0.0.4, 10.0.0.3, 10.0.0.2", "10.0.0.4"),
            # something broken ends the walk
            ("198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("198.51.100.1, _hidden, 10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("198.51.100.1, , 10.0.0.2", "10.0.0.2"),
            ("198.51.100.1, 10.0.0.2:99999, 10.0.0.3", "10.0.0.3"),
        ],
    )
    def test_the_client(self, value, address):
        environ = applied({FOR: value})
        assert environ["REMOTE_ADDR"] == address
        assert "REMOTE_PORT" not in environ

    @pytest.mark.parametrize(
        "value",
        [
            "",
            ",",
            "unknown",
            "_hidden",
            "198.51.100.1,",
            "198.51.100.1, unknown",
            "198.51.100",
            "198.51.100.256",
            "198.51.100.01",
            "198.51.100.1:",
            "198.51.100.1:65536",
            "198.51.100.1:8x",
            "198.51.100.1:+80",
            "198.51.100.1 198.51.100.2",
            "198.51.100.1;198.51.100.2",
            "[198.51.100.1]:80]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "2001:db8::1::2",
            "fe80::1%eth0",
            "fe80::1%<script>",
            "[fe80::1%25eth0]",
            "\xb9\xb2\xb3.0.2.1",
            "localhost",
            "for=198.51.100.1",
            '"198.51.100.1"',
            "1" * 60_000,
            ":" * 60_000,
        ],
    )
    def test_no_address_at_the_right_end_leaves_the_peer(self, value):
        assert changes({FOR: value}) == {}

    def test_what_stays_is_the_chain_that_was_verified(self):
        value = "1.1.1.1,  198.51.100.1:99 ,[2001:DB8:F::2]:80,10.0.0.2"
        assert applied({FOR: value})[FOR] == "198.51.100.1, 2001:db8:f::2, 10.0.0.2"
        assert applied({FOR: "1.1.1.1, 198.51.100.1"})[FOR] == "198.51.100.1"
        assert applied({FOR: "1.1.1.1, x, 10.0.0.2"})[FOR] == "10.0.0.2"

    def test_a_line_of_the_client_s_own_before_the_proxy_s(self):
        # Two lines arrive joined by a comma, in their order.
        own, added = "127.0.0.1, 10.0.0.7", "198.51.100.1"
        assert client(f"{own},{added}") == client(added) == "198.51.100.1"

    def test_the_walk_is_bounded(self):
        assert client("198.51.100.1," + ",".join(["10.0.0.2"] * (MAX_HOPS - 1))) == "198.51.100.1"
        value = "198.51.100.1," + ",".join(f"10.0.0.{hop % 200}" for hop in range(20_000))
        assert client(value) == f"10.0.0.{(20_000 - MAX_HOPS) % 200}"

    def test_the_port_stays_where_the_address_does(self):
        assert changes({FOR: "10.0.0.1"}) == {FOR: "10.0.0.1"}


class TestProto:
    @pytest.mark.parametrize(
        ("value", "scheme"),
        [
            ("https", "https"),
            ("HTTPS", "https"),
            (" https\t", "https"),
            ("wss", "https"),
            ("ws", "http"),
            ("http", "http"),
            ("https, http", "http"),
            ("http,https", "https"),
        ],
    )
    def test_the_scheme(self, value, scheme):
        environ = applied({FOR: "198.51.100.1", PROTO: value})
        assert environ["wsgi.url_scheme"] == scheme
        assert environ[PROTO] == scheme  # for SECURE_PROXY_SSL_HEADER
        assert environ["SERVER_PORT"] == {"https": "443", "http": "8060"}[scheme]

    @pytest.mark.parametrize(
        "value", ["", ",", "https,", "ftp", "on", "https:", "http\xb9", "s" * 9]
    )
    def test_anything_else_is_removed(self, value):
        assert changes({PROTO: value}) == {}

    @pytest.mark.parametrize(
        ("addresses", "value", "scheme"),
        [
            ("198.51.100.1, 10.0.0.2", "https, http", "https"),
            ("198.51.100.1, 10.0.0.2", "http, https", "http"),
            ("198.51.100.1, 10.0.0.3, 10.0.0.2", "https,http,http", "https"),
            ("10.0.0.3, 10.0.0.2", "https, http", "https"),
            # a client that sent both headers with one element, in front of its own place
            ("1.1.1.1, 198.51.100.1, 10.0.0.2", "https, http, https", "http"),
            # lists that do not go together: the right end is the peer's word
            ("198.51.100.1, 10.0.0.2", "https, https, http", "http"),
            ("198.51.100.1, 10.0.0.2", "https", "https"),
            ("198.51.100.1, 10.0.0.3, 10.0.0.2", "http, https", "https"),
            # no client
            ("198.51.100.1, unknown", "http, https", "https"),
        ],
    )
    def test_the_element_of_the_client_s_hop(self, addresses, value, scheme):
        assert applied({FOR: addresses, PROTO: value})["wsgi.url_scheme"] == scheme

    def test_without_an_address(self):
        assert changes({PROTO: "http, https"}) == {
            PROTO: "https",
            "wsgi.url_scheme": "https",
            "SERVER_PORT": "443",
        }

    @pytest.mark.parametrize(
        ("host", "port"),
        [
            ("site.example:8443", "8443"),
            ("site.example", "443"),
            ("[::1]:8443", "8443"),
            ("[::1]", "443"),
            ("site.example:", "443"),
            ("site.example:0", "443"),
            ("", "443"),
        ],
    )
    def test_the_port_of_https_is_the_host_s(self, host, port):
        assert applied({PROTO: "https", "HTTP_HOST": host})["SERVER_PORT"] == port

    def test_http_1_0_without_a_host(self):
        environ = base(PROXY) | {PROTO: "https"}
        del environ["HTTP_HOST"]
        Trust(PROXIES, X_FORWARDED).apply(environ, PROXY)
        assert environ["SERVER_PORT"] == "443"


class TestHostAndPort:
    @pytest.mark.parametrize(
        ("value", "host"),
        [
            ("shop.example", "shop.example"),
            ("shop.example:8443", "shop.example:8443"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("evil.example, shop.example", "shop.example"),
        ],
    )
    def test_the_host(self, value, host):
        assert changes({HOST: value}) == {HOST: host, "HTTP_HOST": host}

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "shop.example,",
            "a b",
            "shop.example:0",
            "shop.example:65536",
            "shop.example:",
            "shop.example:80:80",
            "user@shop.example",
            "shop.example/path",
            "http://shop.example",
            "2001:db8::1",
            "sh\xf6p.example",
            "<script>",
            "a" * 254,
        ],
    )
    def test_no_host(self, value):
        assert changes({HOST: value}) == {}

    def test_the_host_and_the_port_of_the_client_s_hop(self):
        fields = {FOR: "198.51.100.1, 10.0.0.2", HOST: "a.example, b.example", PORT: "1,2"}
        environ = applied(fields)
        assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == ("a.example", "1")

    @pytest.mark.parametrize(
        ("value", "port"), [("8443", "8443"), ("1, 65535", "65535"), ("0080", "80")]
    )
    def test_the_port(self, value, port):
        assert changes({PORT: value}) == {PORT: port, "SERVER_PORT": port}

    @pytest.mark.parametrize(
        "value", ["", "0", "65536", "443,", "-1", "+443", "4_4", "\xb2", "9" * 5000]
    )
    def test_no_port(self, value):
        assert changes({PORT: value}) == {}

    def test_the_port_wins_over_that_of_https(self):
        fields = {PROTO: "https", PORT: "8443", HOST: "shop.example:444"}
        assert applied(fields)["SERVER_PORT"] == "8443"
        assert applied(fields | {PORT: "x"})["SERVER_PORT"] == "444"


class TestForwarded:
    def changes(self, value, peer=PROXY):
        return changes({FORWARDED: value}, peer, ("forwarded",))

    @pytest.mark.parametrize(
        ("value", "address"),
        [
            ("for=198.51.100.1", "198.51.100.1"),
            ("FOR=198.51.100.1", "198.51.100.1"),
            ('for="198.51.100.1"', "198.51.100.1"),
            (r'for="198\.51.100.\1"', "198.51.100.1"),
            ('for="[2001:db8::1]"', "2001:db8::1"),
            ("by=10.0.0.1;for=198.51.100.1", "198.51.100.1"),
            (";for=198.51.100.1;;x=y;", "198.51.100.1"),
            ('x="a, for=1.1.1.1";for=198.51.100.1', "198.51.100.1"),
            (r'for=198.51.100.1;x="\", for=1.1.1.1"', "198.51.100.1"),
            (r'for=198.51.100.1;x="a, y=\"b\\"', "198.51.100.1"),
            ("for=192.0.2.66, for=198.51.100.1", "198.51.100.1"),
            ("for=198.51.100.1 ,\tfor=10.0.0.2", "198.51.100.1"),
            ('for=198.51.100.1,for="[2001:db8:f::1]:80",for=10.0.0.2', "198.51.100.1"),
            ("for=10.0.0.3, for=10.0.0.2", "10.0.0.3"),
            ("for=198.51.100.1, for=unknown, for=10.0.0.2", "10.0.0.2"),
            ("for=198.51.100.1, for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("for=198.51.100.1, proto=http, for=10.0.0.2", "10.0.0.2"),
            ("for=198.51.100.1, , for=10.0.0.2", "10.0.0.2"),
            # what breaks the grammar ends the walk where it stands
            ("for=198.51.100.1, for=1.1.1.1;, for 1, for=10.0.0.2", "10.0.0.2"),
            ("for=198.51.100.1, for=1.1.1.1;for=1.1.1.2, for=10.0.0.2", "10.0.0.2"),
            ('for=1.1.1.1;x=", for=198.51.100.1', "198.51.100.1"),
            ('for="1.1.1.1, for="198.51.100.1"', "198.51.100.1"),
            ('x="\\, for="198.51.100.1";host="a.example"', "198.51.100.1"),
            ('", for="198.51.100.1:80"', "198.51.100.1"),
            ("\xff\x00;;=, for=198.51.100.1", "198.51.100.1"),
        ],
    )
    def test_the_client(self, value, address):
        assert self.changes(value)["REMOTE_ADDR"] == address

    @pytest.mark.parametrize(
        "value",
        [
            "198.51.100.1",
            "for",
            "for=",
            "for=198.51.100.1:80",
            "for=[2001:db8::1]",
            "for = 198.51.100.1",
            "for=198.51.100.1; proto=https",
            "for=198.51.100.1;for=198.51.100.1",
            "for=198.51.100.1;FOR=10.0.0.2",
            'for="198.51.100.1',
            'for=198.51.100.1"',
            "for='198.51.100.1\x00'",
            'for="198.51.100.1\\"',
            'for="a""b"',
            "for=198.51.100.1;proto=\xe9",
            "for=198.51.100.1;x=" + "y" * MAX_ELEMENT,
            'for=198.51.100.1;x="' + "," * 60_000 + '"',
            " " * 60_000 + "=",
        ],
    )
    def test_what_breaks_the_grammar_at_the_right_end_is_removed(self, value):
        assert self.changes(value) == {}

    def test_a_port(self):
        assert self.changes('for="198.51.100.1:4711"') == {
            "REMOTE_ADDR": "198.51.100.1",
            "REMOTE_PORT": "4711",
            FORWARDED: 'for="198.51.100.1:4711"',
        }

    @pytest.mark.parametrize("port", ["_hidden", "0"])
    def test_no_port(self, port):
        assert self.changes(f'for="198.51.100.1:{port}"')["REMOTE_PORT"] is None

    def test_a_port_that_is_none_is_no_address(self):
        assert self.changes('for="198.51.100.1:65536"') == {FORWARDED: 'for="198.51.100.1:65536"'}

    def test_all_of_the_client_s_element(self):
        value = (
            'for=6.6.6.6;proto=http;host=evil.example, for=198.51.100.1;Proto=HTTPS;HOST="a.example'
            ':8443", for=10.0.0.2;proto=http;host=b.example'
        )
        assert self.changes(value) == {
            "REMOTE_ADDR": "198.51.100.1",
            "REMOTE_PORT": None,
            "wsgi.url_scheme": "https",
            "HTTP_HOST": "a.example:8443",
            "SERVER_PORT": "8443",
            FORWARDED: value.partition(", ")[2],
        }

    def test_an_element_without_an_address_is_the_peer_s_word_all_the_same(self):
        assert self.changes("for=1.1.1.1, proto=https;for=unknown") == {
            "wsgi.url_scheme": "https",
            "SERVER_PORT": "443",
            FORWARDED: "proto=https;for=unknown",
        }

    def test_bad_values_of_good_pairs_are_left_out(self):
        assert self.changes('for=10.0.0.1;proto=gopher;host="a b"') == {
            FORWARDED: 'for=10.0.0.1;proto=gopher;host="a b"'
        }

    def test_an_empty_element_says_nothing(self):
        assert self.changes("") == {}
        assert self.changes("for=198.51.100.1,") == {}

    def test_the_walk_is_bounded(self):
        proxies = ", ".join(["for=10.0.0.2"] * (MAX_HOPS - 1))
        assert self.changes(f"for=198.51.100.1, {proxies}")["REMOTE_ADDR"] == "198.51.100.1"
        proxies = ", ".join(["for=10.0.0.2"] * 4000)
        assert self.changes(f"for=198.51.100.1, {proxies}")["REMOTE_ADDR"] == "10.0.0.2"

    def test_a_stranger(self):
        assert self.changes("for=198.51.100.1;proto=https;host=a.example", STRANGER) == {}


# Any text that a header's value can be, and text that looks like what is read.
LATIN = st.text(st.characters(max_codepoint=255))
LIKELY = st.text(st.sampled_from(string.ascii_lowercase[:6] + '0123456789.:,;=" \\[]%_-'))
ADDRESS = st.ip_addresses().map(str)
ELEMENT = st.one_of(
    ADDRESS,
    ADDRESS.map("[{}]:80".format),
    st.sampled_from(["10.0.0.2", "unknown", "https", "http", "443", "for=10.0.0.2", ""]),
    ADDRESS.map('for="[{}]";proto=https'.format),
    LIKELY,
    LATIN,
)
VALUE = st.lists(ELEMENT, max_size=5).map(",".join)
FIELDS = st.dictionaries(st.sampled_from(sorted(KEYS)), VALUE)
PEERS = st.sampled_from([PROXY, STRANGER, ("2001:db8:f::1", 1, 0, 0), "", None])
HEADER_SETS = st.sampled_from([DEFAULT_HEADERS, X_FORWARDED, ("forwarded",), ()])


class TestWhateverAClientSends:
    @given(FIELDS, PEERS, HEADER_SETS)
    def test_what_the_environ_shows_is_what_its_keys_promise(self, fields, peer, headers):
        environ = applied(fields, peer, headers)
        if environ["REMOTE_ADDR"] != base(peer)["REMOTE_ADDR"]:
            address = environ["REMOTE_ADDR"]
            assert str(ipaddress.ip_address(address)) == address
            assert "%" not in address
        assert 0 < int(environ.get("REMOTE_PORT", "1")) < 65536
        assert 0 < int(environ["SERVER_PORT"]) < 65536
        assert environ["wsgi.url_scheme"] in ("http", "https")
        assert environ["HTTP_HOST"].isascii()
        assert environ["HTTP_HOST"].isprintable()
        assert environ.get(PROTO, environ["wsgi.url_scheme"]) == environ["wsgi.url_scheme"]
        for address in environ[FOR].split(", ") if FOR in environ else ():
            ipaddress.ip_address(address)

    @given(FIELDS, HEADER_SETS, st.sampled_from([STRANGER, ("::ffff:11.0.0.1", 1, 0, 0), None]))
    def test_a_stranger_changes_nothing(self, fields, headers, peer):
        assert changes(fields, peer, headers) == {}

    @given(VALUE, st.sampled_from(["198.51.100.1", "198.51.100.1:80", " [2001:db8::1]"]))
    def test_the_left_of_an_untrusted_address_changes_nothing(self, left, address):
        fields = {FOR: address, PROTO: "https"}
        assert applied(fields | {FOR: f"{left},{address}"}) == applied(fields)

    @given(VALUE, st.sampled_from(["for=198.51.100.1;proto=https", 'for="[2001:db8::1]";host=a']))
    def test_the_left_of_an_untrusted_element_changes_nothing(self, left, element):
        alone = applied({FORWARDED: element}, headers=("forwarded",))
        assert applied({FORWARDED: f"{left},{element}"}, headers=("forwarded",)) == alone

    @given(
        st.lists(
            st.lists(st.text(st.sampled_from('ab,;=" \\'), max_size=6), max_size=3), max_size=3
        )
    )
    def test_quoted_text_is_never_taken_for_elements(self, elements):
        written = ["for=198.51.100.1"]
        for texts in elements:
            quoted = ['"' + re.sub(r'(["\\])', r"\\\1", text) + '"' for text in texts]
            pairs = [f"{name}={text}" for name, text in zip("xyz", quoted, strict=False)]
            written.append(";".join(["for=10.0.0.2", *pairs]))
        environ = applied({FORWARDED: ", ".join(written)}, headers=("forwarded",))
        assert environ["REMOTE_ADDR"] == "198.51.100.1"
