"""A small Bottle site: a page that says who answered, a form, a cookie, an upload and a download."""

import hashlib
import os
import socket
import time

from bottle import Bottle, TEMPLATE_PATH, redirect, request, response, static_file, template

try:
    import uwsgi
except ImportError:  # started with `bottle.py app:app`
    uwsgi = None

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATE_PATH.insert(0, os.path.join(HERE, "views"))
STARTED = uwsgi.started_on if uwsgi else time.time()
BLOCK = bytes(range(256)) * 256

app = Bottle()


def who_answered():
    return {
        "backend": request.environ.get("PAAS_BACKEND") or socket.gethostname(),
        "pid": os.getpid(),
        "uid": os.getuid(),
        "requests": (uwsgi.total_requests() if uwsgi else 0) + 1,
        "awake": round(time.time() - STARTED, 1),
    }


@app.get("/")
def page():
    return template("page", who=who_answered(), visitor=request.cookies.getunicode("visitor"))


@app.get("/who")
def who():
    return who_answered()


@app.post("/")
def greet():
    name = "".join(c for c in request.forms.getunicode("name", "") if c.isalnum() or c == "-")[:40]
    response.set_cookie("visitor", name, path="/", httponly=True, samesite="lax")
    redirect("/", 303)


@app.post("/upload")
def upload():
    """A form's file, or the bare body: how long it is and its SHA-256."""
    multipart = request.content_type.startswith("multipart/form-data")
    file = request.files["file"].file if multipart else request.body
    digest, length = hashlib.sha256(), 0
    while chunk := file.read(65536):
        digest.update(chunk)
        length += len(chunk)
    return {"length": length, "sha256": digest.hexdigest()}


@app.get("/download")
def download():
    """`mb` MiB of a known pattern, streamed."""
    megabytes = min(request.query.get("mb", 1, type=int), 1024)
    response.content_type = "application/octet-stream"
    response.content_length = megabytes << 20
    response.set_header("Content-Disposition", f"attachment; filename={megabytes}mb.bin")
    return (BLOCK for _ in range(megabytes * 16))


@app.get("/broken")
def broken():
    raise RuntimeError("this page fails on purpose")


@app.get("/static/<path:path>")
def static(path):
    return static_file(path, root=os.path.join(HERE, "static"))


@app.error(404)
def not_found(error):
    return template("error", title="No such page", text="This is the site's own 404 page.")


@app.error(500)
def failed(error):
    return template("error", title="It failed", text="This is the site's own 500 page.")


def application(environ, start_response):
    """`app`, but for the third argument of start_response: with it the uWSGI of Debian 12 (2.0.21) leaves a 500 page empty."""
    return app(environ, lambda status, headers, exc_info=None: start_response(status, headers))
