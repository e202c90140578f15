from django.contrib import admin

from .models import Entry


@admin.register(Entry)
class EntryAdmin(admin.ModelAdmin):
    list_display = ["name", "text", "attachment", "written"]
    list_filter = ["written"]
    search_fields = ["name", "text"]
