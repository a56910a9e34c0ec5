// The same site on Node's own server: `node origin.mjs PORT`.

import { createServer } from "node:http";
import { gzipSync } from "node:zlib";

const big = Buffer.from("0123456789abcdef".repeat(187_500));
const text = gzipSync("a text that compresses well, ".repeat(200));

const waiting = new Map();

createServer((request, response) => {
  const whole = (status, data, fields = {}) => {
    response.writeHead(status, { "content-length": data.length, ...fields });
    response.end(request.method === "HEAD" ? undefined : data);
  };
  const parts = (all, fields = {}) => {
    response.writeHead(200, fields);
    all.forEach((part) => response.write(part));
    response.end();
  };
  const [, verb, name] = request.url.split("/");
  if (verb === "live") {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("data: 1\n\n");
    return waiting.set(name, () => response.end("data: 2\n\n"));
  }
  if (verb === "go") {
    waiting.get(name)();
    return whole(200, Buffer.alloc(0));
  }
  switch (request.url) {
    case "/hello":
      return whole(200, Buffer.from("hello\n"), { etag: '"1"' });
    case "/big":
      return whole(200, big);
    case "/chunked":
      return parts(["one\n", "two\n", "three\n"]);
    case "/gzip":
      return whole(200, text, { "content-encoding": "gzip" });
    case "/range":
      return whole(206, big.subarray(2, 6), { "content-range": `bytes 2-5/${big.length}` });
    case "/etag":
      response.writeHead(304, { etag: '"1"' });
      return response.end();
    case "/sse":
      return parts(["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"], { "content-type": "text/event-stream" });
    case "/echo": {
      const body = [];
      request.on("data", (piece) => body.push(piece));
      return request.on("end", () => whole(200, Buffer.concat(body)));
    }
    default:
      return whole(404, Buffer.alloc(0));
  }
}).listen(Number(process.argv[2]), "127.0.0.1");
