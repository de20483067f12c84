"""Whom gpulse believes: the parsers of the two options, and the matching of addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse import trust
from gpulse.trust import (
    DEFAULT_HEADERS,
    DEFAULT_PROXIES,
    TrustedProxies,
    forwarded_headers,
    read_address,
    trusted_proxies,
)


class TestTrustedProxies:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("127.0.0.1", ("127.0.0.1",)),
            ("127.0.0.1, ::1 unix", ("127.0.0.1", "::1", "unix")),
            (["127.0.0.1", "10.0.0.0/8 unix"], ("127.0.0.1", "10.0.0.0/8", "unix")),
            (("UNIX",), ("unix",)),
            ("2001:DB8:0::/32", ("2001:db8::/32",)),
            ("192.0.2.1/32 2001:db8::1/128", ("192.0.2.1", "2001:db8::1")),
            ("10.0.0.0/255.0.0.0", ("10.0.0.0/8",)),
            ("0.0.0.0/0,::/0", ("0.0.0.0/0", "::/0")),
            ("::ffff:192.0.2.1", ("192.0.2.1",)),
            ("::ffff:10.0.0.0/104", ("10.0.0.0/8",)),
            ("", ()),
            ([], ()),
            (" , ", ()),
        ],
    )
    def test_taken(self, raw, value):
        assert trusted_proxies(raw) == value
        assert trusted_proxies(value) == value
        assert trusted_proxies(",".join(value)) == value

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("proxy.example", "names proxy.example, which is no IP address, no network such as "),
            ("*", "which is no IP address"),
            ("10.0.0.0/33", "which is no IP address"),
            ("10.0.0.0/", "which is no IP address"),
            ("10.0.0", "which is no IP address"),
            ("010.0.0.1", "which is no IP address"),
            ("fe80::1%eth0", "which is no IP address"),
            ("127.0.0.1:8060", "which is no IP address"),
            ("[::1]", "which is no IP address"),
            ("unix:/run/site.sock", "which is no IP address"),
            ("\x1b[0m", r"names '\x1b[0m', which"),
            ("10.0.0.1/8", "names 10.0.0.1/8, an address within 10.0.0.0/8; write the one or the"),
            ("2001:db8::1/32", "an address within 2001:db8::/32"),
            ("::1 0:0::1", "names ::1 twice"),
            ("127.0.0.1 ::ffff:127.0.0.1", "names 127.0.0.1 twice"),
            ("unix,unix", "names unix twice"),
            (7, "must be a list of addresses, networks and the word unix"),
            (True, "must be a list"),
            (None, "must be a list"),
            ([2130706433], "must be a list"),
            ([["127.0.0.1"]], "must be a list"),
            (b"127.0.0.1", "must be a list"),
        ],
    )
    def test_refused(self, raw, reason):
        with pytest.raises(ValueError, match=r"^(names|must) ") as caught:
            trusted_proxies(raw)
        assert reason in str(caught.value)
        assert str(caught.value).isprintable()

    def test_the_default_is_this_machine(self):
        assert trusted_proxies(DEFAULT_PROXIES) == DEFAULT_PROXIES


class TestForwardedHeaders:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("X-Forwarded-For, x-forwarded-proto", DEFAULT_HEADERS),
            (["x-forwarded-host x-forwarded-port"], ("x-forwarded-host", "x-forwarded-port")),
            ("Forwarded", ("forwarded",)),
            ("", ()),
            ((), ()),
        ],
    )
    def test_taken(self, raw, value):
        assert forwarded_headers(raw) == value

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("x-real-ip", "names x-real-ip, which is none of x-forwarded-for, x-forwarded-proto, "),
            ("x_forwarded_for", "which is none of"),
            ("x-forwarded-ssl", "which is none of"),
            ("\x7f", r"names '\x7f', which"),
            ("x-forwarded-for X-Forwarded-For", "names x-forwarded-for twice"),
            ("forwarded forwarded", "names forwarded twice"),
            ("forwarded x-forwarded-for", "must be forwarded alone or x-forwarded-* alone"),
            ("x-forwarded-host,forwarded", "must be forwarded alone or x-forwarded-* alone"),
            (False, "must be a list of names of headers"),
            ({"forwarded": 1}, "must be a list"),
        ],
    )
    def test_refused(self, raw, reason):
        with pytest.raises(ValueError, match=r"^(names|must) ") as caught:
            forwarded_headers(raw)
        assert reason in str(caught.value)
        assert str(caught.value).isprintable()

    def test_the_default_is_taken(self):
        assert forwarded_headers(DEFAULT_HEADERS) == DEFAULT_HEADERS


class TestMatching:
    @pytest.mark.parametrize(
        ("peer", "trusted"),
        [
            (("127.0.0.1", 4000), True),
            (("127.0.0.2", 4000), False),
            (("10.0.0.0", 1), True),
            (("10.255.255.255", 1), True),
            (("9.255.255.255", 1), False),
            (("11.0.0.0", 1), False),
            (("::ffff:10.1.2.3", 1, 0, 0), True),
            (("::ffff:11.1.2.3", 1, 0, 0), False),
            (("::ffff:a01:203", 1, 0, 0), True),
            (("::10.1.2.3", 1, 0, 0), False),
            (("fe80::1%eth0", 1, 0, 2), True),
            (("fe81::1%eth0", 1, 0, 2), False),
            (("fe80::1", 1, 0, 2), True),
            (("localhost", 1), False),
            (("", 1), False),
            (("1" * 100_000, 1), False),
            ("", True),
            ("/run/proxy.sock", True),
            (b"\0abstract", True),
            (None, False),
            (["127.0.0.1", 1], False),
        ],
    )
    def test_peers(self, peer, trusted):
        proxies = TrustedProxies(("127.0.0.1", "10.0.0.0/8", "fe80::/16", "unix"))
        assert proxies.is_trusted(peer) is trusted
        assert proxies.is_trusted(peer) is trusted  # from what was kept, too

    @pytest.mark.parametrize("peer", ["", b"", ("127.0.0.1", 1), ("::1", 1, 0, 0), None])
    def test_nobody(self, peer):
        assert not TrustedProxies(()).is_trusted(peer)

    def test_everybody(self):
        proxies = TrustedProxies(("0.0.0.0/0", "::/0"))
        assert proxies.is_trusted(("198.51.100.1", 1))
        assert proxies.is_trusted(("2001:db8::1", 1, 0, 0))
        assert not proxies.is_trusted("")

    def test_all_ipv6_is_not_all_ipv4(self):
        assert not TrustedProxies(("::/0",)).is_trusted(("::ffff:192.0.2.1", 1, 0, 0))

    def test_what_is_kept_is_bounded(self, monkeypatch):
        monkeypatch.setattr(trust, "ADDRESSES_KEPT", 5)
        proxies = TrustedProxies(("192.0.2.3",))
        for last in range(256):
            assert proxies.is_trusted((f"192.0.2.{last}", 1)) is (last == 3)
            assert len(proxies._verdicts) <= 5
        assert proxies.is_trusted(("192.0.2.3", 1))

    def test_long_text_is_not_kept(self):
        proxies = TrustedProxies(())
        assert proxies.verdict("a" * 65) is None
        assert not proxies._verdicts

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1 ", None),
            ("192.0.2.01", None),
            ("3221225985", None),
            ("0xc0.0.2.1", None),
            ("192.0.2.1:80", None),
            ("[::1]", None),
            ("fe80::1%<script>", None),
            ("٣.0.2.1", None),
            ("unknown", None),
            ("", None),
        ],
    )
    def test_addresses(self, text, address):
        assert read_address(text) == (address and ipaddress.ip_address(address))

    @given(st.ip_addresses(), st.integers(0, 128))
    def test_the_same_as_ipaddress(self, address, bits):
        network = ipaddress.ip_network((address, min(bits, address.max_prefixlen)), strict=False)
        proxies = TrustedProxies(trusted_proxies(str(network)))
        plain = getattr(address, "ipv4_mapped", None) or address
        inside = address in network and (plain is address or network.prefixlen >= 96)
        assert proxies.is_trusted((str(address), 1)) is inside
        beyond = ipaddress.ip_address(int(address) ^ 1 << address.max_prefixlen - 1)
        if getattr(beyond, "ipv4_mapped", None) is None and address.version == beyond.version:
            assert proxies.is_trusted((str(beyond), 1)) is (beyond in network)
