import assert from "node:assert/strict";
import { test } from "node:test";
import { absoluteUrl, connectionUrl } from "../../src/transport/urls.js";

test("a prefix is relative to the page, or absolute", () => {
  assert.equal(absoluteUrl("/eventbus", "https://app.example/a/b?c#d").href, "https://app.example/eventbus");
  assert.equal(absoluteUrl("eventbus/", "https://app.example/a/b").href, "https://app.example/a/eventbus/");
  assert.equal(absoluteUrl("https://bus.example:8443/x/?y", undefined).href, "https://bus.example:8443/x/");
  assert.throws(() => absoluteUrl("/eventbus", undefined), TypeError);
});

test("cursor and topics are escaped, and omitted when empty", () => {
  const prefix = absoluteUrl("https://app.example/eventbus", undefined);
  assert.equal(connectionUrl(prefix, "/ws").href, "https://app.example/eventbus/ws");
  const { searchParams, pathname } = connectionUrl(prefix, "/sse", "user:a+b@c.d=5f.17", ["collection:7:*", "collection:8:x"]);
  assert.equal(pathname, "/eventbus/sse");
  assert.equal(searchParams.get("cursor"), "user:a+b@c.d=5f.17");
  assert.deepEqual(searchParams.getAll("topic"), ["collection:7:*", "collection:8:x"]);
  assert.ok(!connectionUrl(prefix, "/sse", "user:a+b=0").href.includes("+"), "a server reads a plus as a space");
});

test("a prefix can be the root of a host", () => {
  assert.equal(connectionUrl(absoluteUrl("/", "http://h/x"), "/ws").href, "http://h/ws");
});

test("slashes at the end of the prefix are removed", () => {
  assert.equal(connectionUrl(absoluteUrl("http://h/eventbus//", undefined), "/ws").href, "http://h/eventbus/ws");
});
