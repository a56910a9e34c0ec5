"""`clients.py URL KIND NAME...`: each client does everything that the site offers, on as few connections as it likes.

KIND is `static` if the origin serves files, and takes them by PUT, else `dynamic`. Says how many checks each client has
made and exits 0, or fails by assertion.
"""

import asyncio
import os
import subprocess
import sys

BIG = b"0123456789abcdef" * 187_500
TEXT = b"a text that compresses well, " * 200
UPLOAD = bytes(range(256)) * 6000


def pieces():
    for at in range(0, len(UPLOAD), 100_000):
        yield UPLOAD[at : at + 100_000]


async def apieces():
    for piece in pieces():
        yield piece


async def site(name, fetch, events, static, streams):
    """`fetch(method, path, headers, body)` returns status, fields by lower-case name, and the decoded body.

    `events(path)` yields the pieces of a response's body as they come.
    """
    count = 0

    async def check(method, path, status, body, headers=None, sent=None):
        nonlocal count
        got, fields, data = await fetch(method, path, headers or {}, sent)
        assert got == status, (method, path, got)
        assert data == body, (method, path, len(data), data[:80])
        count += 1
        return fields

    for _ in range(3):
        fields = await check("GET", "/hello", 200, b"hello\n")
    assert fields["content-length"] == "6", fields
    assert "date" in fields and "connection" not in fields, fields
    fields = await check("HEAD", "/hello", 200, b"")
    assert fields["content-length"] == "6", fields
    await check("GET", "/hello", 200, b"hello\n")
    await check("GET", "/big", 200, BIG)
    await check("GET", "/gzip", 200, TEXT, {"Accept-Encoding": "gzip"})
    await check("GET", "/range", 206, BIG[2:6], {"Range": "bytes=2-5", "Accept-Encoding": "identity"})
    etag = (await check("GET", "/hello", 200, b"hello\n")).get("etag")
    path = "/hello" if static else "/etag"
    await check("GET", path, 304, b"", {"If-None-Match": etag})
    await check("GET", "/hello", 200, b"hello\n")
    if not static:
        await check("GET", "/chunked", 200, b"one\ntwo\nthree\n")
        await check("GET", "/sse", 200, b"data: 1\n\ndata: 2\n\ndata: 3\n\n")
        await check("POST", "/echo", 200, UPLOAD, {}, UPLOAD)
        if streams:
            await check("POST", "/echo", 200, UPLOAD, {}, streams())
        if name in ("aiohttp", "curl"):
            await check("POST", "/echo", 200, UPLOAD, {"Expect": "100-continue"}, UPLOAD)
        await check("POST", "/echo", 200, b"", {}, b"")
        await check("GET", "/nowhere", 404, b"")
        # The second event is only sent when the first one has been seen.
        seen, asked = b"", False
        async for piece in events(f"/live/{name}"):
            seen += piece
            if seen == b"data: 1\n\n" and not asked:
                asked = True
                await check("GET", f"/go/{name}", 200, b"")
        assert asked and seen == b"data: 1\n\ndata: 2\n\n", seen
        count += 1
    else:
        for n, body in enumerate([UPLOAD, streams()]):
            status, _, _ = await fetch("PUT", f"/up-{name}-{n}", {}, body)
            assert status in (201, 204), status
            await check("GET", f"/up-{name}-{n}", 200, UPLOAD)
    await check("GET", "/hello", 200, b"hello\n")
    return count


async def by_requests(url, static):
    import requests

    with requests.Session() as session:

        async def fetch(method, path, headers, body):
            r = session.request(method, url + path, headers=headers, data=body, timeout=20)
            return r.status_code, {k.lower(): v for k, v in r.headers.items()}, r.content

        async def events(path):
            with session.get(url + path, stream=True, timeout=20) as r:
                for piece in r.iter_content(None):
                    yield piece

        return await site("requests", fetch, events, static, pieces)


async def by_httpx(url, static):
    import httpx

    async with httpx.AsyncClient(timeout=20, trust_env=False) as session:

        async def fetch(method, path, headers, body):
            r = await session.request(method, url + path, headers=headers, content=body)
            return r.status_code, dict(r.headers), r.content

        async def events(path):
            async with session.stream("GET", url + path) as r:
                async for piece in r.aiter_raw():
                    yield piece

        return await site("httpx", fetch, events, static, apieces)


async def by_aiohttp(url, static):
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:

        async def fetch(method, path, headers, body):
            waits = headers.pop("Expect", None) is not None
            async with session.request(method, url + path, headers=headers, data=body, expect100=waits) as r:
                return r.status, {k.lower(): v for k, v in r.headers.items()}, await r.read()

        async def events(path):
            async with session.get(url + path) as r:
                async for piece in r.content.iter_any():
                    yield piece

        return await site("aiohttp", fetch, events, static, apieces)


async def by_curl(url, static):
    curl = [os.environ["TIDEGATE_CURL"], "-sS", "-m", "20", "--noproxy", "*"]

    async def fetch(method, path, headers, body):
        args = [*curl, "-D", "/dev/stderr", "--compressed", url + path]
        args += [part for k, v in headers.items() for part in ("-H", f"{k}: {v}")]
        args += ["-I", "-o", "/dev/null"] if method == "HEAD" else []
        if body is not None:
            # Large bodies make curl wait for a 100 by itself; from a pipe it sends chunks.
            chunked = not isinstance(body, bytes)
            args += ["-X", method, "-H", "Expect: 100-continue"]
            args += ["-H", "Transfer-Encoding: chunked"] if chunked else []
            args += ["--data-binary", "@-"]
            body = b"".join(body) if chunked else body
        done = subprocess.run(args, input=body, capture_output=True)
        assert done.returncode == 0, (path, done)
        head = done.stderr.decode().rstrip().split("\r\n\r\n")[-1].split("\r\n")
        fields = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        if body:
            assert b"100 Continue" in done.stderr, done.stderr
        return int(head[0].split()[1]), fields, done.stdout

    async def events(path):
        with subprocess.Popen([*curl, "-N", url + path], stdout=subprocess.PIPE) as running:
            while piece := running.stdout.read1():
                yield piece

    return await site("curl", fetch, events, static, pieces)


async def by_websockets(url, static):
    import websockets

    async with websockets.connect(url.replace("http", "ws") + "/ws", proxy=None, max_size=None) as socket:
        for message in ["hello", b"\x00\xff" * 100_000, "\u00e9" * 70_000]:
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), 10)
    assert socket.close_code == 1000
    return 4


if __name__ == "__main__":
    url, kind, *names = sys.argv[1:]
    for name in names:
        print(name, asyncio.run(globals()["by_" + name](url, kind == "static")), "checks")
