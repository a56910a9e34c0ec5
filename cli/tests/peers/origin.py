"""One small site, as a WSGI application (gunicorn) and as an ASGI one (uvicorn).

/hello /big /chunked /gzip /range /etag /sse /echo, and with ASGI a WebSocket echo at /ws. /live/NAME sends one event, and
the second when somebody has asked for /go/NAME.
"""

import asyncio
import gzip
import time

HELLO = b"hello\n"
BIG = b"0123456789abcdef" * 187_500
TEXT = b"a text that compresses well, " * 200
PARTS = [b"one\n", b"two\n", b"three\n"]
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


gone = set()


def goes(name):
    """Whether somebody has asked /live/NAME to go on; once."""
    if name not in gone:
        return False
    gone.remove(name)
    return True


def live(name):
    yield EVENTS[0]
    while not goes(name):
        time.sleep(0.01)
    yield EVENTS[1]


def answer(path, headers, body):
    """Status, fields, and the parts of the body; a length is given unless the body is to be chunked."""

    def whole(status, data, *fields):
        return status, [("Content-Length", str(len(data))), *fields], [data]

    if path == "/hello":
        return whole(200, HELLO, ("ETag", '"1"'))
    if path == "/big":
        return whole(200, BIG)
    if path == "/chunked":
        return 200, [], PARTS
    if path == "/gzip":
        return whole(200, gzip.compress(TEXT), ("Content-Encoding", "gzip"))
    if path == "/range" and headers.get("range") == "bytes=2-5":
        return whole(206, BIG[2:6], ("Content-Range", f"bytes 2-5/{len(BIG)}"))
    if path == "/etag" and headers.get("if-none-match") == '"1"':
        return 304, [("ETag", '"1"')], []
    if path == "/sse":
        return 200, [("Content-Type", "text/event-stream")], EVENTS
    if path.startswith("/live/"):
        return 200, [("Content-Type", "text/event-stream")], live(path[6:])
    if path.startswith("/go/"):
        gone.add(path[4:])
        return whole(200, b"")
    if path == "/echo":
        return whole(200, body)
    return whole(404, b"")


def wsgi(environ, start_response):
    headers = {k[5:].lower().replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_")}
    status, fields, parts = answer(environ["PATH_INFO"], headers, environ["wsgi.input"].read())
    start_response(f"{status} -", fields)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else iter(parts)


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            echo = {k: v for k, v in message.items() if k in ("bytes", "text") and v is not None}
            await send({"type": "websocket.send", **echo})
        return
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
    status, fields, parts = answer(scope["path"], headers, body)
    fields = [(k.lower().encode(), v.encode()) for k, v in fields]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    if scope["path"].startswith("/live/"):
        parts = []
        await send({"type": "http.response.body", "body": EVENTS[0], "more_body": True})
        while not goes(scope["path"][6:]):
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": EVENTS[1], "more_body": True})
    for part in [] if scope["method"] == "HEAD" else parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
