"""The addresses of the chat.  A WebSocket stands in the table like any other view."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from chat.consumers import Room
from chat.views import page
from chat.visitors import named

urlpatterns = [
    path("", named(page), name="page"),
    path("message", named(Room.as_view()), name="message"),
    path("accounts/login/", LoginView.as_view(), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
]
