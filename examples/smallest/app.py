"""The smallest site: one WSGI callable, nothing to install."""

import html
import os
import socket
import time

STARTED = time.time()
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>The smallest site</title>
<style>
body {{ font: 1.125rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1.5rem; color: #1c2430 }}
h1 {{ font-size: 2.25rem; margin: 0 }} p {{ color: #5a6675 }} dl {{ display: grid; grid-template-columns: 9rem 1fr }}
dt {{ color: #5a6675 }} dd {{ margin: 0; font-family: ui-monospace, monospace }}
</style>
<h1>It runs.</h1>
<p>{story}</p>
<dl><dt>Backend<dd>{backend}<dt>Process<dd>{pid}<dt>User<dd>uid {uid}<dt>Awake for<dd>{age:.1f} s</dl>
"""
answered = 0


def application(environ, start_response):
    global answered
    answered += 1
    if environ.get("PATH_INFO", "/") not in ("", "/"):
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"This site has one page.\n"]
    page = PAGE.format(
        story="Your visit woke this process." if answered == 1 else f"This process has answered {answered} requests.",
        backend=html.escape(environ.get("PAAS_BACKEND") or socket.gethostname()),
        pid=os.getpid(),
        uid=os.getuid(),
        age=time.time() - STARTED,
    ).encode()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))])
    return [page] if environ["REQUEST_METHOD"] != "HEAD" else []
