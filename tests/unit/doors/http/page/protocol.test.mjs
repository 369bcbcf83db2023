import assert from "node:assert/strict";
import { test } from "node:test";

import {
  decoded, encoded, mediaType, ProtocolError, Reader, statusOf, subprotocols,
} from "../../../../../doors/http/page/assets/logic/protocol.mjs";

const bytes = (...values) => Uint8Array.from(values).buffer;

test("an event of frames comes with its bytes, cut into items", () => {
  const reader = new Reader();
  assert.equal(reader.text('{"event":"frames","first_frame":8,"frame_count":8,"sizes":[2,1]}'), null);
  const event = reader.bytes(bytes(1, 2, 3));
  assert.deepEqual(event.items.map((item) => [...item]), [[1, 2], [3]]);
  assert.equal(event.first_frame, 8);
});

test("other events come at once, between frames too", () => {
  const reader = new Reader();
  assert.deepEqual(reader.text('{"event":"paused","next_frame":3}'), { event: "paused", next_frame: 3 });
  reader.text('{"event":"frames","sizes":[1]}');
  reader.bytes(bytes(1));
  assert.equal(reader.text('{"event":"resumed","next_frame":3}').event, "resumed");
});

test("what is not the protocol is said", () => {
  assert.throws(() => new Reader().text("no"), ProtocolError);
  assert.throws(() => new Reader().text("[]"), ProtocolError);
  assert.throws(() => new Reader().text("null"), ProtocolError);
  assert.throws(() => new Reader().bytes(bytes(1)), /must follow/);
  for (const size of [1, 3]) {
    const reader = new Reader();
    reader.text(`{"event":"frames","sizes":[${size}]}`);
    assert.throws(() => reader.bytes(bytes(1, 2)), /announced/);
  }
  const early = new Reader();
  early.text('{"event":"frames","sizes":[1]}');
  assert.throws(() => early.text('{"event":"usage"}'), /bytes were to follow/);
});

test("profile and level come from avcC", () => {
  const header = Uint8Array.from([0, 0, 0, 40, 0x61, 0x76, 0x63, 0x43, 1, 0x42, 0xc0, 0x0a, 0xff]);
  assert.equal(mediaType(header), 'video/mp4; codecs="avc1.42C00A"');
  assert.throws(() => mediaType(Uint8Array.from([1, 2, 3])), ProtocolError);
});

test("a ticket is one of the subprotocols", () => {
  assert.deepEqual(subprotocols(""), ["headrace.v1"]);
  assert.deepEqual(subprotocols("abc"), ["headrace.v1", "ticket.abc"]);
});

test("codes of closes stand for statuses of HTTP", () => {
  assert.deepEqual([4401, 4503, 1000, 1006, 1012, 4000].map(statusOf), [401, 503, 0, 0, 0, 0]);
});

test("base64 becomes bytes", () => {
  assert.deepEqual([...decoded("AAH/")], [0, 1, 255]);
});

test("no digit of a seed is lost", () => {
  const seed = "17379707708204921337";
  const start = { prompt: 'a star "seed":"5"', seed };
  assert.equal(encoded({ start }), `{"start":{"prompt":"a star \\"seed\\":\\"5\\"","seed":${seed}}}`);
  assert.equal(encoded({ prompt: "a" }), '{"prompt":"a"}');
  assert.equal(new Reader().text(`{"event":"started","model":"a","seed":${seed}}`).seed, seed);
});
