from django.urls import path

from . import views

urlpatterns = [
    path("", views.page),
    path("publish", views.publish),
    path("socket", views.Room.as_view()),
    path("blocked", views.blocked),
    path("refused", views.Refusing.as_view()),
    path("refused-blocked", views.refused_and_blocked),
]
