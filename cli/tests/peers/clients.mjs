// `node clients.mjs URL static|dynamic NAME...`: what clients.py does, with Node's own client (http) or with undici, and
// undici's WebSocket.

import assert from "node:assert/strict";
import http from "node:http";
import { createRequire } from "node:module";
import { Readable } from "node:stream";
import { gunzipSync } from "node:zlib";

const [url, kind, ...names] = process.argv.slice(2);
const modules = process.env.TIDEGATE_NODE_MODULES;
const undici = modules && createRequire(modules + "/")("undici");
const big = Buffer.from("0123456789abcdef".repeat(187_500));
const upload = Buffer.alloc(1_536_000, "0123456789\r\n0\r\n\r\n");

const agent = new http.Agent({ keepAlive: true });
let reused = 0;
function byHttp(method, path, headers = {}, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method, headers, agent, timeout: 20_000 }, (response) => {
      reused += request.reusedSocket;
      const data = [];
      response.on("data", (piece) => data.push(piece));
      response.on("error", reject);
      response.on("end", () => resolve([response.statusCode, response.headers, Buffer.concat(data)]));
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", reject);
    if (headers.expect) {
      request.on("continue", () => request.end(body));
      request.flushHeaders();
    } else {
      request.end(body);
    }
  });
}

async function byUndici(method, path, headers = {}, body) {
  const { expect, ...others } = headers;
  const response = await undici.request(url + path, { method, headers: others, body });
  return [response.statusCode, response.headers, Buffer.from(await response.body.arrayBuffer())];
}

// The pieces of a response's body as they come.
const events = {
  http: (path) => new Promise((resolve, reject) => http.get(url + path, { agent }, resolve).on("error", reject)),
  undici: async (path) => (await undici.request(url + path)).body,
};

async function site(name, fetch) {
  let count = 0;
  async function check(method, path, status, body, headers, sent) {
    const [got, fields, data] = await fetch(method, path, headers, sent);
    assert.ok([status].flat().includes(got), `${method} ${path} ${got}`);
    const decoded = fields["content-encoding"] === "gzip" ? gunzipSync(data) : data;
    if (body !== undefined) assert.ok(decoded.equals(Buffer.from(body)), `${method} ${path}: ${decoded.length} bytes`);
    count += 1;
    return fields;
  }

  for (let i = 0; i < 3; i += 1) await check("GET", "/hello", 200, "hello\n");
  assert.equal((await check("HEAD", "/hello", 200, ""))["content-length"], "6");
  await check("GET", "/big", 200, big);
  await check("GET", "/gzip", 200, "a text that compresses well, ".repeat(200), { "accept-encoding": "gzip" });
  await check("GET", "/range", 206, big.subarray(2, 6), { range: "bytes=2-5" });
  const { etag } = await check("GET", "/hello", 200, "hello\n");
  await check("GET", kind === "static" ? "/hello" : "/etag", 304, "", { "if-none-match": etag });
  const length = { "content-length": String(upload.length) };
  // undici refuses to send Expect.
  const waits = name === "http" ? { expect: "100-continue" } : {};
  const chunked = name === "http" ? { "transfer-encoding": "chunked" } : {};
  const stream = () => (name === "http" ? upload : Readable.from([upload.subarray(0, 99_999), upload.subarray(99_999)]));
  if (kind === "static") {
    for (const [n, headers, sent] of [[0, length, upload], [1, { ...chunked, ...waits }, stream()]]) {
      await check("PUT", `/up-${name}-${n}`, [201, 204], undefined, headers, sent);
      await check("GET", `/up-${name}-${n}`, 200, upload);
    }
  } else {
    await check("GET", "/chunked", 200, "one\ntwo\nthree\n");
    await check("GET", "/sse", 200, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    await check("POST", "/echo", 200, upload, length, upload);
    await check("POST", "/echo", 200, upload, { ...length, ...waits }, upload);
    await check("POST", "/echo", 200, upload, { ...chunked, ...waits }, stream());
    await check("GET", "/nowhere", 404, "");
    // The second event is only sent when the first one has been seen.
    let seen = "";
    for await (const piece of await events[name](`/live/${name}`)) {
      seen += piece;
      if (seen === "data: 1\n\n") await check("GET", `/go/${name}`, 200, "");
    }
    assert.equal(seen, "data: 1\n\ndata: 2\n\n");
    count += 1;
  }
  await check("GET", "/hello", 200, "hello\n");
  return count;
}

async function webSocket() {
  const socket = new undici.WebSocket(url.replace("http", "ws") + "/ws");
  const on = (event) => new Promise((resolve, reject) => {
    socket.addEventListener(event, resolve, { once: true });
    socket.addEventListener("error", reject, { once: true });
  });
  await on("open");
  for (const message of ["hello", "\u00e9".repeat(70_000)]) {
    const answer = on("message");
    socket.send(message);
    assert.equal((await answer).data, message);
  }
  const closed = on("close");
  socket.close(1000);
  assert.equal((await closed).code, 1000);
  return 3;
}

const clients = {
  http: async () => {
    const checks = await site("http", byHttp);
    // All but the first, and those beside a response that is still open.
    assert.ok(reused >= checks / 2, `${reused} of ${checks} on a connection that was kept`);
    return checks;
  },
  undici: () => site("undici", byUndici),
  "undici.WebSocket": webSocket,
};
for (const name of names) console.log(name, await clients[name](), "checks");
process.exit(0);
