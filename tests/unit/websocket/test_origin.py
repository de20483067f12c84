"""Which pages may open a socket with the user's cookies."""

import pytest
from django.conf import settings
from django.test import RequestFactory, override_settings

from gpulse.websocket.consumer import origin_is_trusted


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()


TRUSTED = ["https://app.example", "https://*.shop.example", "http://10.0.0.1:8000"]


@pytest.mark.parametrize(
    ("origin", "host", "secure", "trusted"),
    [
        (None, "x.example", False, True),
        ("http://x.example", "x.example", False, True),
        ("http://X.example", "x.EXAMPLE", False, True),
        ("https://x.example", "x.example", True, True),
        ("https://x.example", "x.example", False, True),  # a proxy ends TLS
        ("http://x.example:8060", "x.example:8060", False, True),
        ("http://x.example", "x.example", True, False),  # a page that was tampered with
        ("http://x.example:81", "x.example", False, False),
        ("http://evil.example", "x.example", False, False),
        ("http://x.example.evil.example", "x.example", False, False),
        ("http://evil.example/x.example", "x.example", False, False),
        ("http://x.example@evil.example", "x.example", False, False),
        ("ftp://x.example", "x.example", False, False),
        ("null", "x.example", False, False),
        ("", "x.example", False, False),
        ("file://", "x.example", False, False),
        ("http://[::1", "x.example", False, False),
        ("http://x.example", "evil host", False, False),
        ("https://app.example", "x.example", True, True),
        ("http://app.example", "x.example", False, False),
        ("https://a.shop.example", "x.example", True, True),
        ("https://shop.example", "x.example", True, True),
        ("https://evilshop.example", "x.example", True, False),
        ("http://10.0.0.1:8000", "x.example", False, True),
        ("http://10.0.0.1", "x.example", False, False),
    ],
)
def test_an_origin(origin, host, secure, trusted):
    fields = {"HTTP_HOST": host} | ({} if origin is None else {"HTTP_ORIGIN": origin})
    with override_settings(ALLOWED_HOSTS=["x.example"], CSRF_TRUSTED_ORIGINS=TRUSTED):
        request = RequestFactory().get("/", secure=secure, **fields)
        assert origin_is_trusted(request) is trusted
