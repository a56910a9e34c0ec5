// `node clients.mjs http|undici URL static|dynamic`: what clients.py does, with Node's own client or with undici.

import assert from "node:assert/strict";
import http from "node:http";
import { createRequire } from "node:module";
import { gunzipSync } from "node:zlib";

const [name, url, kind] = process.argv.slice(2);
const big = Buffer.from("0123456789abcdef".repeat(187_500));
const upload = Buffer.alloc(1_536_000, "0123456789\r\n0\r\n\r\n");

const agent = new http.Agent({ keepAlive: true });
function byHttp(method, path, headers = {}, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method, headers, agent, timeout: 20_000 }, (response) => {
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
  const undici = createRequire(process.env.TIDEGATE_NODE_MODULES + "/")("undici");
  const { expect, ...others } = headers;
  const response = await undici.request(url + path, { method, headers: others, body });
  return [response.statusCode, response.headers, Buffer.from(await response.body.arrayBuffer())];
}

const fetch = name === "http" ? byHttp : byUndici;
let count = 0;
async function check(method, path, status, body, headers, sent) {
  const [got, fields, data] = await fetch(method, path, headers, sent);
  assert.equal(got, status, `${method} ${path}`);
  const decoded = fields["content-encoding"] === "gzip" ? gunzipSync(data) : data;
  assert.ok(decoded.equals(Buffer.from(body)), `${method} ${path}: ${decoded.length} bytes`);
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
if (kind !== "static") {
  await check("GET", "/chunked", 200, "one\ntwo\nthree\n");
  await check("GET", "/sse", 200, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
  await check("POST", "/echo", 200, upload, { "content-length": String(upload.length) }, upload);
  await check("POST", "/echo", 200, upload, { "transfer-encoding": "chunked", expect: "100-continue" }, upload).catch(
    (e) => (name === "undici" && e.code === "UND_ERR_INVALID_ARG" ? undefined : Promise.reject(e)),
  );
  await check("GET", "/nowhere", 404, "");
}
await check("GET", "/hello", 200, "hello\n");
console.log(name, count, "checks");
process.exit(0);
