"""The site that the tests ask what really arrived: plain WSGI, no dependencies.

Every answer is computed from the request alone. What must be counted is appended to files in
STATE (the environment's PROBE_STATE, or `state/` beside this file), one line an event, so that
several processes, and generations of them, count together:

    state/attempts    one line for each time uWSGI began to load this app (an import by anything else is no start)
    state/starts      one line for each time it had loaded it
    state/count-KEY   one line for each request that named `count=KEY` in its query

A file `on-start` beside this one says how loading it goes: `error`, `syntax`, `exit`, `kill`, `no-callable`,
or `sleep MILLISECONDS`, one word or pair a line.

Every route takes `count=KEY` and `sleep=MILLISECONDS` (counted first, then slept, then answered):

    /                    "probe" and who answered
    /echo                JSON: method, path, query, and the body's length and SHA-256
    /mirror              the body itself
    /download?mb=N       N MiB; byte number i is i % 251; `length=no` leaves Content-Length out
    /status/CODE         that status and a body that names it
    /raise               an exception
    /redirect?to=URI     `code` is 302 unless given
    /cookie?set=VALUE    sets the cookie `probe`, answers the Cookie header that came, as JSON
    /headers             JSON: every HTTP_* and what the server says of the request
    /crash               this process kills itself in the middle of the request
    /ignore              answers without reading the body
    /sleep?ms=N          answers after N milliseconds
    /xaccel?to=URI       tries to steer nginx by X-Accel-* and X-Paas-* headers
    /count?count=KEY     how often KEY was counted (this request included)
    /counted?key=KEY     the same without counting
"""

import hashlib
import json
import os
import re
import signal
import sys
import time
from urllib.parse import parse_qsl

HERE = os.path.dirname(os.path.abspath(__file__))
STATE = os.environ.get("PROBE_STATE") or os.path.join(HERE, "state")
CHUNK = bytes(i % 251 for i in range(251 * 512))


def append(name, text):
    """One line at the end of a file of STATE, whole even when several processes write."""
    os.makedirs(STATE, exist_ok=True)
    descriptor = os.open(os.path.join(STATE, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (text + "\n").encode())
    finally:
        os.close(descriptor)


def lines(name):
    """How many lines a file of STATE has."""
    try:
        with open(os.path.join(STATE, name), "rb") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def counter(key):
    """The file that counts KEY; no key leads out of STATE."""
    return "count-" + re.sub(r"[^A-Za-z0-9_-]", "_", key)[:100]


def obey_on_start():
    """Do what the file `on-start` says; True if there is to be an application."""
    try:
        with open(os.path.join(HERE, "on-start")) as file:
            orders = [line.split() for line in file if line.strip()]
    except FileNotFoundError:
        return True
    wanted = True
    for word, *rest in orders:
        if word == "sleep":
            time.sleep(int(rest[0]) / 1000)
        elif word == "error":
            raise RuntimeError("the probe was told to fail while it is imported")
        elif word == "syntax":
            compile("def (:", os.path.join(HERE, "on-start"), "exec")
        elif word == "exit":
            os._exit(3)
        elif word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "no-callable":
            wanted = False
        else:
            raise ValueError(f"on-start: {word!r} is no order the probe knows")
    return wanted


class Request:
    """What the routes look at."""

    def __init__(self, environ):
        self.environ = environ
        self.method = environ["REQUEST_METHOD"]
        self.path = environ.get("PATH_INFO", "")
        self.query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))

    def chunks(self):
        body = self.environ["wsgi.input"]
        while chunk := body.read(65536):
            yield chunk


def answer(status, body, content_type="text/plain; charset=utf-8", headers=()):
    if isinstance(body, str):
        body = body.encode()
    return status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers], [body]


def answer_json(value, headers=()):
    return answer("200 OK", json.dumps(value, sort_keys=True) + "\n", "application/json", headers)


def root(request):
    return answer("200 OK", f"probe pid={os.getpid()} uid={os.getuid()} gid={os.getgid()}\n")


def echo(request):
    digest, length = hashlib.sha256(), 0
    for chunk in request.chunks():
        digest.update(chunk)
        length += len(chunk)
    environ = request.environ
    return answer_json({
        "method": request.method,
        "path": request.path,
        "query": environ.get("QUERY_STRING", ""),
        "content_type": environ.get("CONTENT_TYPE", ""),
        "content_length": environ.get("CONTENT_LENGTH", ""),
        "length": length,
        "sha256": digest.hexdigest(),
        "pid": os.getpid(),
    })


def mirror(request):
    return answer("200 OK", b"".join(request.chunks()), "application/octet-stream")


def download(request):
    total = int(float(request.query.get("mb", "1")) * 1024 * 1024)
    headers = [("Content-Type", "application/octet-stream")]
    if request.query.get("length") != "no":
        headers.append(("Content-Length", str(total)))

    def stream():
        left = total
        while left > 0:
            yield CHUNK[:left]
            left -= len(CHUNK)

    return "200 OK", headers, stream()


def status(request):
    code = request.path.rpartition("/")[2]
    if not re.fullmatch(r"[2-5][0-9][0-9]", code):
        return answer("400 Bad Request", "not a status\n")
    return answer(f"{code} Probe", "" if code in ("204", "304") else f"the probe's own {code}\n")


def fail(request):
    raise RuntimeError("the probe was told to fail")


def redirect(request):
    code = request.query.get("code", "302")
    return answer(f"{code} Probe", "elsewhere\n", headers=[("Location", request.query.get("to", "/echo"))])


def cookie(request):
    headers = []
    if "set" in request.query:
        value = re.sub(r"[^A-Za-z0-9_.-]", "_", request.query["set"])
        headers = [("Set-Cookie", f"probe={value}; Path=/; HttpOnly"), ("Set-Cookie", "second=2; Path=/")]
    return answer_json({"cookie": request.environ.get("HTTP_COOKIE", "")}, headers)


def headers(request):
    environ = request.environ
    found = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REQUEST_SCHEME",
                 "HTTPS", "REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "SCRIPT_NAME", "QUERY_STRING",
                 "DOCUMENT_ROOT", "CONTENT_TYPE", "CONTENT_LENGTH"):
        if name in environ:
            found[name] = environ[name]
    found["wsgi.url_scheme"] = environ.get("wsgi.url_scheme")
    return answer_json({name: value for name, value in found.items() if isinstance(value, str)})


def crash(request):
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def ignore(request):
    return answer("200 OK", "not read\n")


def sleep(request):
    time.sleep(int(request.query.get("ms", "0")) / 1000)
    return answer("200 OK", "slept\n")


def xaccel(request):
    return answer("200 OK", "the site's own body\n", headers=[
        ("X-Accel-Redirect", request.query.get("to", "/secret")),
        ("X-Accel-Expires", "3600"),
        ("X-Accel-Limit-Rate", "1"),
        ("X-Accel-Charset", "koi8-r"),
        ("X-Accel-Buffering", "no"),
        ("X-Paas-Reason", "forged"),
        ("X-Paas-Id", "forged"),
        ("X-Paas-Anything", "forged"),
    ])


def counted(request):
    key = request.query.get("key", request.query.get("count", ""))
    return answer("200 OK", f"{lines(counter(key))}\n")


ROUTES = {
    "/": root,
    "/echo": echo,
    "/mirror": mirror,
    "/download": download,
    "/raise": fail,
    "/redirect": redirect,
    "/cookie": cookie,
    "/headers": headers,
    "/crash": crash,
    "/ignore": ignore,
    "/sleep": sleep,
    "/xaccel": xaccel,
    "/count": counted,
    "/counted": counted,
}


def probe(environ, start_response):
    request = Request(environ)
    if "count" in request.query:
        append(counter(request.query["count"]), f"{os.getpid()} {time.time():.6f} {request.method} {request.path}")
    if "sleep" in request.query:
        time.sleep(int(request.query["sleep"]) / 1000)
    if request.path.startswith("/status/"):
        found = status(request)
    elif request.path in ROUTES:
        found = ROUTES[request.path](request)
    else:
        found = answer("404 Not Found", "the probe has no such page\n")
    line, header_list, body = found
    start_response(line, header_list)
    return [] if request.method == "HEAD" else body


UNDER_UWSGI = "uwsgi" in sys.modules

if UNDER_UWSGI:
    append("attempts", f"{os.getpid()} {time.time():.6f}")
if obey_on_start():
    application = probe
if UNDER_UWSGI:
    append("starts", f"{os.getpid()} {time.time():.6f}")
