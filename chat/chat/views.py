"""The pages of the chat, and what their script asks for over plain HTTP."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.models import Case, Count, F, Q, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from chat.consumers import MESSAGE_LIMIT
from chat.models import Message, ReadMark, Room
from chat.visitors import Visitor

PAGE, MOST_ROOMS = 100, 500  # messages of one answer, rooms of a list
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What the browser may load and run: our own files.  What strangers wrote is put on the page as
text, never as HTML; should that ever fail, this is the second lock."""


def for_visitor(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Decorate a view that is for one visitor, who has a name before it runs: the session's cookie
    is set on the response, and for a WebSocket that is the 101 of the handshake."""

    @wraps(view)
    def view_for_visitor(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        Visitor.of(request)
        response = view(request, *args, **kwargs)
        response["Content-Security-Policy"] = POLICY
        return response

    return never_cache(view_for_visitor)


def read_marks(request: HttpRequest) -> dict[int, int]:
    """Room -> the message up to which this visitor has read it, both as ids."""
    if request.user.is_authenticated:
        return dict(ReadMark.objects.filter(user=request.user).values_list("room", "message"))
    return {int(room): message for room, message in request.session.get("read", {}).items()}


def rooms_of(request: HttpRequest) -> QuerySet[Room]:
    """The rooms; ``unread`` counts what others said after this visitor's mark."""
    marks = (When(pk=room, then=Value(message)) for room, message in read_marks(request).items())
    new = Q(messages__id__gt=F("mark"), messages__deleted=False)
    mine = Q(messages__author=Visitor.of(request).member)
    rooms = Room.objects.alias(mark=Case(*marks, default=Value(0)))
    rooms = rooms.annotate(unread=Count("messages", filter=new & ~mine))
    return rooms.order_by("title")[:MOST_ROOMS]


def rooms(request: HttpRequest) -> HttpResponse:
    """``/rooms/``: the list, as a page or with ``?json`` for the script; POST makes a room."""
    title = request.POST.get("title", "").replace("\0", "").strip()[:50]
    if slug := slugify(title, allow_unicode=True)[:50]:
        room, is_new = Room.objects.get_or_create(slug=slug, defaults={"title": title})
        if is_new:
            room.announce()
        return redirect("room", slug)
    found = rooms_of(request)
    if "json" in request.GET:
        return JsonResponse({"rooms": list(found.values("slug", "title", "unread"))})
    return render(request, "chat/rooms.html", {"rooms": found, "visitor": Visitor.of(request)})


def page(request: HttpRequest, slug: str) -> HttpResponse:
    """``/rooms/SLUG/``: a room, which its script fills."""
    room = get_object_or_404(Room, slug=slug)
    context = {"room": room, "rooms": rooms_of(request), "limit": MESSAGE_LIMIT}
    context |= {"visitor": Visitor.of(request), "read": read_marks(request).get(room.pk, 0)}
    return render(request, "chat/page.html", context)


def messages(request: HttpRequest, slug: str, order: str, pk: int) -> HttpResponse:
    """A page of messages, oldest first: those next ``after`` or ``before`` the one with an id.  By
    ids and not by page numbers, so that what is said meanwhile moves nothing."""
    found = get_object_or_404(Room, slug=slug).messages.order_by("id")
    found = found.filter(id__gt=pk) if order == "after" else found.filter(id__lt=pk).reverse()
    chosen = list(found[: PAGE + 1])
    frames = sorted((each.frame() for each in chosen[:PAGE]), key=lambda frame: frame["id"])
    return JsonResponse({"messages": frames, "more": len(chosen) > PAGE})


@require_POST
def read(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Remember that this visitor has read the room up to the message with an id."""
    room = get_object_or_404(Message, room__slug=slug, pk=pk).room_id
    if pk > (marks := read_marks(request)).get(room, 0):
        if request.user.is_authenticated:
            mark = {"user": request.user, "room_id": room}
            ReadMark.objects.update_or_create(**mark, defaults={"message": pk})
        else:
            request.session["read"] = marks | {room: pk}
    return HttpResponse(status=204)
