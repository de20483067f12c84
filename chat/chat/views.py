"""The one page of the chat.  All that moves on it comes through the WebSocket, see consumers.py."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from chat.consumers import MESSAGE_LIMIT
from chat.visitors import Visitor

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",  # the WebSocket
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the browser may load and run here: our own files.  The page shows text that strangers wrote;
it is put in as text, never as HTML, and should that ever fail, this is the second lock."""


@never_cache  # it holds the visitor's name
def page(request: HttpRequest) -> HttpResponse:
    """``/``: the message box, the users, the messages."""
    context = {"visitor": Visitor.of(request), "limit": MESSAGE_LIMIT}
    response = render(request, "chat/page.html", context)
    response["Content-Security-Policy"] = POLICY
    return response
