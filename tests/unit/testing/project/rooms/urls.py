"""Where everything is."""

from django.urls import path

from gpulse.sse import EventStream

from . import consumers, moved, views

urlpatterns = [
    path("rooms/<slug:slug>/socket", consumers.Room.as_view()),
    path("rooms/<slug:slug>/channel", consumers.RoomChannel.as_view()),
    path("rooms/<slug:slug>/events", EventStream.as_view(channels=["room:lobby"])),
    path("rooms/<slug:slug>/say", views.say),
    path("moved/<slug:room_name>/", moved.ChatConsumer.as_view()),
]
