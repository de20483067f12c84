"""The addresses of the chat.  A WebSocket stands in the table like any other view."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from chat import views
from chat.consumers import MessageSocket, RoomSocket
from chat.models import LOBBY
from chat.views import for_visitor

urlpatterns = [
    path("", for_visitor(views.page), {"slug": LOBBY}, name="page"),
    path("message", for_visitor(MessageSocket.as_view()), name="message"),
    path("rooms/", for_visitor(views.rooms), name="rooms"),
    path("rooms/<slug>/", for_visitor(views.page), name="room"),
    path("rooms/<slug>/socket", for_visitor(RoomSocket.as_view()), name="socket"),
    path("rooms/<slug>/messages/<order>/<int:pk>", for_visitor(views.messages), name="messages"),
    path("rooms/<slug>/read/<int:pk>", for_visitor(views.read), name="read"),
    path("accounts/login/", for_visitor(LoginView.as_view()), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
]
