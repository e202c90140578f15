from django import forms

from .models import Entry


class EntryForm(forms.ModelForm):
    class Meta:
        model = Entry
        fields = ["name", "text", "attachment"]
        widgets = {
            "name": forms.TextInput(attrs={"placeholder": "Your name"}),
            "text": forms.Textarea(attrs={"rows": 3, "placeholder": "Your words"}),
        }
