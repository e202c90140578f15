"""The guest book's pages."""

import hashlib
import os
import socket
import time

from django.http import FileResponse, Http404, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from .forms import EntryForm
from .models import Entry

try:
    import uwsgi
except ImportError:  # started with `manage.py runserver`
    uwsgi = None

STARTED = uwsgi.started_on if uwsgi else time.time()
BLOCK = bytes(range(256)) * 256


def who_answered(request):
    return {
        "backend": request.META.get("PAAS_BACKEND") or socket.gethostname(),
        "pid": os.getpid(),
        "uid": os.getuid(),
        "requests": (uwsgi.total_requests() if uwsgi else 0) + 1,
        "awake": round(time.time() - STARTED, 1),
    }


@require_http_methods(["GET", "HEAD", "POST"])
def page(request):
    form = EntryForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        entry = form.save()
        answer = redirect("page")
        answer.status_code = 303
        answer.set_signed_cookie("visitor", entry.name, httponly=True, samesite="Lax", secure=request.is_secure())
        return answer
    visitor = request.get_signed_cookie("visitor", default="")
    context = {"form": form, "visitor": visitor, "entries": Entry.objects.all()[:20], "who": who_answered(request)}
    return render(request, "guestbook/page.html", context, status=400 if form.errors else 200)


@require_safe
def who(request):
    return JsonResponse(who_answered(request))


@require_safe
def attachment(request, entry):
    """A guest's file, as a download: a stranger's HTML must not run as this site's."""
    found = get_object_or_404(Entry, pk=entry)
    if not found.attachment:
        raise Http404("this entry has no file")
    return FileResponse(found.attachment.open("rb"), as_attachment=True)


@csrf_exempt  # for programs: it reads no cookie and changes nothing
@require_POST
def upload(request):
    """The bare body: how long it is and its SHA-256."""
    digest, length = hashlib.sha256(), 0
    while chunk := request.read(65536):
        digest.update(chunk)
        length += len(chunk)
    return JsonResponse({"length": length, "sha256": digest.hexdigest()})


@require_safe
def download(request):
    """`mb` MiB of a known pattern, streamed."""
    try:
        megabytes = min(int(request.GET.get("mb", "1")), 1024)
    except ValueError:
        raise Http404("mb is a number of MiB")
    answer = StreamingHttpResponse((BLOCK for _ in range(megabytes * 16)), content_type="application/octet-stream")
    answer["Content-Length"] = str(megabytes << 20)
    answer["Content-Disposition"] = f"attachment; filename={megabytes}mb.bin"
    return answer


def broken(request):
    raise RuntimeError("this page fails on purpose")
