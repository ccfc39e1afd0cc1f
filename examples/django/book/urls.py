from django.urls import path

from book import views

urlpatterns = [
    path("users/<owner>/contacts/<contact>", views.one),
    path("users/<owner>/contacts", views.every),
]
