import assert from "node:assert/strict";
import { test } from "node:test";

import { cameraTrouble, cut, Source } from "../../../../../doors/http/page/assets/logic/source.mjs";

const picture = (n) => new Uint8Array([n]);

function begun(until = 8) {
  const source = new Source(4);
  assert.deepEqual(source.started({ next_frame: 0, until_frame: until }), []);
  return source;
}

test("frames are numbered one after the other, and none is sent that the server does not take", () => {
  const source = new Source();
  assert.equal(source.wanted, false, "before the session has begun");
  source.started({ next_frame: 0, until_frame: 2 });
  assert.deepEqual([source.add(picture(1)).frame, source.add(picture(2)).frame], [0, 1]);
  assert.equal(source.wanted, false);
  source.note({ event: "source_taken", next_frame: 2, until_frame: 10 });
  assert.equal(source.wanted, true);
});

test("what was dropped is made up for by what follows", () => {
  const source = begun();
  for (let n = 0; n < 6; n += 1) source.add(picture(n));
  source.note({ event: "source_dropped", first_frame: 4, frames: 2, reason: "gap", next_frame: 4 });
  assert.equal(source.add(picture(9)).frame, 4);
  source.note({ event: "source_dropped", first_frame: 1, frames: 1, reason: "late", next_frame: 3 });
  assert.equal(source.add(picture(9)).frame, 5, "the server has it already");
});

test("after a break the newest frames are sent again, from the one that the server lacks", () => {
  const source = begun();
  for (let n = 0; n < 6; n += 1) source.add(picture(n));
  const again = source.started({ next_frame: 3, until_frame: 20 });
  assert.deepEqual(again.map(({ frame, bytes }) => [frame, bytes[0]]), [[3, 3], [4, 4], [5, 5]]);
  assert.equal(source.add(picture(6)).frame, 6);
  assert.equal(source.started({ next_frame: 0, until_frame: 20 }), null, "which is not kept any more");
});

test("of a picture the middle is sent", () => {
  assert.deepEqual(cut({ width: 640, height: 480 }, { width: 64, height: 64 }), { x: 80, y: 0, width: 480, height: 480 });
  assert.deepEqual(cut({ width: 480, height: 640 }, { width: 128, height: 64 }), { x: 0, y: 200, width: 480, height: 240 });
});

test("a camera that cannot be used is a sentence", () => {
  assert.match(cameraTrouble("", false), /https/);
  assert.match(cameraTrouble("NotAllowedError", true), /did not let/);
  assert.match(cameraTrouble("NotFoundError", true), /no camera/);
  assert.match(cameraTrouble("AbortError", true), /no picture/);
});
