#!/usr/bin/env python3
"""Starts sites for backend.conf: GET /start?site=NAME answers 204 when the site of that name listens.

A site is a directory /srv/sites/NAME with app.py in it. To start it is to write a vassal file for the uWSGI Emperor; to
stop it, to remove that file. Usage: starter.py [RUN [SITES]], if not /run/sites and /srv/sites.
"""
import http.server
import os
import pathlib
import re
import socket
import socketserver
import sys
import threading
import time
import urllib.parse

RUN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/run/sites")
SITES = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "/srv/sites")
PATIENCE = 25  # seconds, less than nginx waits
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

VASSAL = """[uwsgi]
plugin = python3
master = true
chdir = {site}
wsgi-file = {site}/app.py
socket = {run}/socket
chmod-socket = 666
vacuum = true
; Tells nginx whether the site accepts requests.
hook-accepting1-once = write:{run}/accepting yes
hook-as-user-atexit = unlink:{run}/accepting
"""

starts = {}
starts_lock = threading.Lock()


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            return True
        except OSError:
            return False


def start(name):
    """Starts a site unless it is being started; true when it listens."""
    run, vassal = RUN / name, RUN / "vassals" / (name + ".ini")
    with starts_lock:  # one start, however many visitors wait for it
        lock = starts.setdefault(name, threading.Lock())
    with lock:
        if (run / "accepting").exists() and listens(run / "socket"):
            return True
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        (run / "accepting").unlink(missing_ok=True)
        draft = vassal.with_suffix(".new")
        draft.write_text(VASSAL.format(site=SITES / name, run=run))
        draft.rename(vassal)  # the Emperor sees all of it or nothing
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if (run / "accepting").exists() and listens(run / "socket"):
                return True
            time.sleep(0.02)
        vassal.unlink()
        return False


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = query.get("site", [""])[0]
        if not NAME.fullmatch(name) or not (SITES / name / "app.py").is_file():
            return self.answer(503)  # nginx has no page for "there is no such site" here: a refusal is 502, 503 or 504
        self.answer(204 if start(name) else 503)

    def answer(self, status):
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "30")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self):
        return "nginx"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    (RUN / "vassals").mkdir(mode=0o755, parents=True, exist_ok=True)
    path = RUN / "starter.sock"
    path.unlink(missing_ok=True)
    server = Server(str(path), Handler)
    os.chmod(path, 0o666)
    server.serve_forever()


main()
