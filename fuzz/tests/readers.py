"""Reads HTTP/1.1 streams with h11 and with llhttp (httptools) and prints what each has understood.

Input and output are length-prefixed (4 bytes, big endian) strings on standard input and output. A case is three of
them: `request` or the methods that the responses answer, space-separated (`GET/1.0` for an old client); the stream;
`fin` if the connection ends after it. For each case two strings come back, one a parser: a line for each message that
is whole, and `rest` if a message has begun and is not whole, or `error` and why.
"""

import struct
import sys

import h11
import httptools


def take(stream):
    size = stream.read(4)
    return stream.read(struct.unpack(">I", size)[0]) if size else None


def give(text):
    data = text.encode()
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)


def line(start, fields, body):
    """Start-line, fields in order with names in lower case, body: nothing that two readings could share by chance."""
    fields = [name.lower().hex() + ":" + value.strip(b" \t").hex() for name, value in fields]
    return " ".join([*start, ",".join(fields) or "-", bytes(body).hex() or "-"])


def by_h11(role, stream, fin):
    lines, at = [], 0
    server = role == "request"
    methods = iter([] if server else role.split())
    conn, method = None, None
    data = stream
    while data or conn is not None:
        if conn is None:
            conn = h11.Connection(h11.SERVER if server else h11.CLIENT, max_incomplete_event_size=1 << 20)
            if not server:
                method = next(methods, "GET").split("/")[0]
                asks = h11.Request(method=method, target="/", headers=[("host", "h"), ("upgrade", "websocket")])
                conn.send(asks)
                conn.send(h11.EndOfMessage())
            conn.receive_data(data)
            if fin:
                conn.receive_data(b"")
        head, body, start = None, b"", None
        while True:
            try:
                event = conn.next_event()
            except h11.RemoteProtocolError as e:
                if fin and "without sending complete message body" in str(e):
                    return lines + ["rest"]
                if fin and "incomplete" in str(e):
                    return lines + ["rest"]
                return lines + ["error " + str(e)]
            if event is h11.NEED_DATA:
                left = conn.trailing_data[0]
                return lines + (["rest"] if head or left else [])
            if event is h11.PAUSED:
                # A switch of protocols: what follows is no HTTP any more.
                if event is h11.PAUSED and start is not None:
                    break
                return lines + ["error paused"]
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    tunnel = conn.trailing_data[0]
                    return lines + [line(["101"], event.headers.raw_items(), tunnel)]
                lines.append(line([str(event.status_code)], event.headers.raw_items(), b""))
            elif isinstance(event, h11.Request):
                head, start = event, [event.method.decode(), event.target.decode()]
            elif isinstance(event, h11.Response):
                head, start = event, [str(event.status_code)]
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                return lines + (["rest"] if head else [])
        lines.append(line(start, head.headers.raw_items(), body))
        data, conn = conn.trailing_data[0], None
    return lines


class Collect:
    def __init__(self):
        self.done, self.clear = [], None
        self.reset()

    def reset(self):
        self.target, self.fields, self.body, self.begun = b"", [], b"", False

    def on_message_begin(self):
        self.reset()
        self.begun = True

    def on_url(self, url):
        self.target += url

    def on_header(self, name, value):
        self.fields.append((name, value))

    def on_headers_complete(self):
        self.headers_complete()

    def headers_complete(self):
        pass

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.complete()
        self.reset()


def by_llhttp(role, stream, fin):
    if role == "request":
        return llhttp_requests(stream)
    lines = []
    for asked in role.split():
        # One response after the other: llhttp must be told which have no body.
        head_only = asked.startswith("HEAD")
        while stream:
            end = stream.find(b"\r\n\r\n")
            if end < 0:
                return lines + ["rest"]
            collect = Collect()
            parser = httptools.HttpResponseParser(collect)
            seen = []
            collect.complete = lambda: seen.append((list(collect.fields), collect.body))
            headers = []
            collect.headers_complete = lambda: headers.append((parser.get_status_code(), list(collect.fields)))
            used = None
            try:
                parser.feed_data(stream[: end + 4])
                if not headers:
                    return lines + ["error no head"]
                status, fields = headers[0]
                if head_only and status >= 200 or status in (204, 304) or 100 <= status < 200 and status != 101:
                    lines.append(line([str(status)], fields, b""))
                    stream = stream[end + 4 :]
                    if status >= 200:
                        break
                    continue
                at = end + 4
                # Byte by byte, so that the place where the message ends is known.
                while not seen and at < len(stream):
                    parser.feed_data(stream[at : at + 1])
                    at += 1
                used = at
            except httptools.HttpParserUpgrade:
                status, fields = headers[0]
                if status != 101:
                    return lines + ["error upgrade"]
                return lines + [line(["101"], fields, stream[end + 4 :])]
            except httptools.HttpParserError as e:
                return lines + ["error " + str(e)]
            if not seen:
                framed = {name.lower() for name, _ in fields} & {b"content-length", b"transfer-encoding"}
                if framed or not fin:
                    return lines + ["rest"]
                seen.append((fields, collect.body))
            lines.append(line([str(status)], seen[0][0], seen[0][1]))
            stream = stream[used:]
            break
    return lines + (["error a response that nobody asked for"] if stream else [])


def llhttp_requests(stream):
    lines = []
    collect = Collect()
    parser = httptools.HttpRequestParser(collect)

    def complete():
        start = [parser.get_method().decode(), collect.target.decode()]
        lines.append(line(start, collect.fields, collect.body))

    collect.complete = complete
    try:
        parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        return lines
    except httptools.HttpParserError as e:
        return lines + ["error " + str(e)]
    return lines + (["rest"] if collect.begun else [])


def main():
    while (role := take(sys.stdin.buffer)) is not None:
        stream = take(sys.stdin.buffer)
        fin = take(sys.stdin.buffer) == b"fin"
        for parser in (by_h11, by_llhttp):
            try:
                lines = parser(role.decode(), stream, fin)
            except Exception as e:
                lines = [f"error {type(e).__name__}: {e}"]
            give("\n".join(lines))
    sys.stdout.buffer.flush()


main()
