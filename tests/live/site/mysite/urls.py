from django.urls import path

from gpulse.sse import EventStream

from . import views

urlpatterns = [
    path("pid", views.pid),
    path("scheme", views.scheme),
    path("version", views.version),
    path("sleep", views.sleep),
    path("pg_sleep", views.pg_sleep),
    path("facts", views.facts),
    path("body", views.echo_body),
    path("stream", views.stream),
    path("file", views.file),
    path("fail", views.fail),
    path("block", views.block),
    path("publish", views.publish),
    path("echo", views.Echo.as_view()),
    path("room/<slug:name>", views.Room.as_view()),
    path("lobby", views.Lobby.as_view()),
    path("events", EventStream.as_view(channels=["kept:news", "plain:news"])),
    path("legacy", views.legacy),
]
