"""A small Flask site: a page that says who answered, a form, a cookie, an upload and a download."""

import hashlib
import os
import socket
import time

from flask import Flask, Response, jsonify, make_response, redirect, render_template, request, stream_with_context, url_for

try:
    import uwsgi
except ImportError:  # started with `flask run`
    uwsgi = None

app = Flask(__name__)
STARTED = uwsgi.started_on if uwsgi else time.time()
BLOCK = bytes(range(256)) * 256


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
    return render_template("page.html", who=who_answered(), visitor=request.cookies.get("visitor"))


@app.get("/who")
def who():
    return jsonify(who_answered())


@app.post("/")
def greet():
    answer = make_response(redirect(url_for("page"), code=303))
    answer.set_cookie("visitor", request.form.get("name", "").strip()[:40], httponly=True, samesite="Lax")
    return answer


@app.post("/upload")
def upload():
    """A form's file, or the bare body: how long it is and its SHA-256."""
    file = request.files["file"] if request.mimetype == "multipart/form-data" else request
    digest, length = hashlib.sha256(), 0
    while chunk := file.stream.read(65536):
        digest.update(chunk)
        length += len(chunk)
    return jsonify(length=length, sha256=digest.hexdigest())


@app.get("/download")
def download():
    """`mb` MiB of a known pattern, streamed."""
    megabytes = min(request.args.get("mb", 1, type=int), 1024)
    body = (BLOCK for _ in range(megabytes * 16))
    headers = {"Content-Length": megabytes << 20, "Content-Disposition": f"attachment; filename={megabytes}mb.bin"}
    return Response(stream_with_context(body), mimetype="application/octet-stream", headers=headers)


@app.get("/broken")
def broken():
    raise RuntimeError("this page fails on purpose")


@app.errorhandler(404)
def not_found(error):
    return render_template("error.html", title="No such page", text="This is the site's own 404 page."), 404


@app.errorhandler(500)
def failed(error):
    return render_template("error.html", title="It failed", text="This is the site's own 500 page."), 500
