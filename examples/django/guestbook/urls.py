from django.urls import path

from . import views

urlpatterns = [
    path("", views.page, name="page"),
    path("who", views.who, name="who"),
    path("attachment/<int:entry>", views.attachment, name="attachment"),
    path("upload", views.upload, name="upload"),
    path("download", views.download, name="download"),
    path("broken", views.broken, name="broken"),
]
