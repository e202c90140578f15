"""What the guest book keeps."""

from django.db import models


class Entry(models.Model):
    name = models.CharField(max_length=60)
    text = models.TextField(max_length=2000)
    attachment = models.FileField(upload_to="%Y/%m", blank=True)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-written", "-id"]
        verbose_name_plural = "entries"

    def __str__(self):
        return f"{self.name}, {self.written:%Y-%m-%d %H:%M}"
