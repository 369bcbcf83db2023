import assert from "node:assert/strict";
import { test } from "node:test";

import {
  aheadS, current, decodedAhead, forget, replaceFrom, seenFrom, steer, Switches,
} from "../../../../../doors/http/page/assets/logic/playout.mjs";

const FPS = 24;
const AHEAD = 6;
const CHUNK_S = 8 / FPS;
const steering = { leadS: 1, chunkS: CHUNK_S, rate: 1, live: true, returned: false };

test("what can be replaced begins behind what plays, what comes meanwhile, and what the decoder has read", () => {
  assert.equal(replaceFrom({ time: 1, fps: FPS, expectedS: 0.25, ahead: AHEAD, playing: true }), 24 + 6 + 6 + 1);
  assert.equal(replaceFrom({ time: 1, fps: FPS, expectedS: 0.25, ahead: AHEAD, playing: false }), 24 + 6 + 1, "nothing plays on meanwhile");
});

test("a replacement that comes before the decoder is seen from its first frame, a late one from the next chunk", () => {
  const at = (time) => seenFrom({ firstFrame: 32, chunk: 8, time, fps: FPS, ahead: AHEAD });
  assert.equal(at(24 / FPS), 32);
  assert.equal(at(25 / FPS), 32, "frame 31 was read");
  assert.equal(at(26 / FPS), 40, "frame 32 was read");
  assert.equal(at(33 / FPS), 40);
  assert.equal(at(34 / FPS), 48);
});

test("what replaceFrom says is seen from its first frame if it comes in the time that was expected", () => {
  for (let frame = 0; frame < 200; frame += 1) {
    for (const expectedS of [0.15, 0.25, 0.61]) {
      const time = frame / FPS;
      const first = replaceFrom({ time, fps: FPS, expectedS, ahead: AHEAD, playing: true });
      assert.equal(seenFrom({ firstFrame: first, chunk: 8, time: time + expectedS, fps: FPS, ahead: AHEAD }), first);
    }
  }
});

test("the expected time is that of the slowest of the last few prompts", () => {
  const switches = new Switches();
  assert.equal(switches.expectedS, 0.25);
  const took = (id, seconds) => {
    switches.asked(id, 10);
    switches.applied(id, 48, true);
    switches.arrived(40, 10);
    switches.arrived(48, 10 + seconds);
  };
  took(1, 0.5);
  took(2, 0.25);
  assert.equal(switches.expectedS, 0.5);
  for (let id = 3; id <= 5; id += 1) took(id, 0.25);
  assert.equal(switches.expectedS, 0.25);
  for (let id = 6; id <= 10; id += 1) took(id, 0.01);
  assert.equal(switches.expectedS, 0.15, "never less");
});

test("a prompt that replaced nothing does not tell how soon it could have come", () => {
  const switches = new Switches();
  switches.asked(1, 0);
  switches.applied(1, 48, false);
  switches.arrived(48, 5);
  assert.equal(switches.expectedS, 0.25);
});

test("how much is there", () => {
  assert.equal(aheadS([[0, 2]], 0.5), 1.5);
  assert.equal(aheadS([[0, 2]], 2), 0);
  assert.equal(aheadS([], 2), 0);
  assert.deepEqual(current([[0, 1], [2, 3]], 2.5), [2, 3]);
  assert.equal(current([[0, 1], [2, 3]], 1.5), null);
});

test("a gap that nothing fills is jumped over; a joined session begins where its frames begin", () => {
  assert.deepEqual(steer({ ...steering, time: 1, ranges: [[0, 1], [1.5, 3]] }), { seek: 1.5, rate: 1 });
  assert.deepEqual(steer({ ...steering, time: 0, ranges: [[70, 71]] }), { seek: 70, rate: 1 });
  assert.deepEqual(steer({ ...steering, time: 1, ranges: [[0, 1]] }), { seek: null, rate: 1 }, "the next frames are on their way");
  assert.deepEqual(steer({ ...steering, time: 0, ranges: [] }), { seek: null, rate: 1 });
});

test("who comes back to the page sees what is made now", () => {
  const ranges = [[0, 30]];
  assert.deepEqual(steer({ ...steering, time: 10, ranges, returned: true }), { seek: 29, rate: 1 });
  assert.deepEqual(steer({ ...steering, time: 27.9, ranges, returned: true }), { seek: 29, rate: 1 });
  assert.deepEqual(steer({ ...steering, time: 29, ranges, returned: true }), { seek: null, rate: 1 });
  assert.deepEqual(steer({ ...steering, time: 10, ranges, returned: true, live: false }), { seek: null, rate: 1 }, "the end is all there");
});

test("a viewer who fell behind catches up, a little faster, or by a jump", () => {
  const ranges = [[0, 30]];
  const usual = 1 + CHUNK_S + 0.3;
  assert.equal(steer({ ...steering, time: 30 - usual - 0.4, ranges }).rate, 1);
  assert.equal(steer({ ...steering, time: 30 - usual - 0.6, ranges }).rate, 1.05);
  assert.equal(steer({ ...steering, time: 30 - usual - 0.2, ranges, rate: 1.05 }).rate, 1.05, "until it is back");
  assert.equal(steer({ ...steering, time: 30 - usual + 0.1, ranges, rate: 1.05 }).rate, 1);
  assert.deepEqual(steer({ ...steering, time: 20, ranges }), { seek: 29, rate: 1 });
});

test("what was played is forgotten, and what nobody saw", () => {
  const given = { keepS: 20, hidden: false, leadS: 1 };
  assert.equal(forget({ ...given, time: 25, ranges: [[0, 26]] }), null);
  assert.deepEqual(forget({ ...given, time: 40, ranges: [[0, 41]] }), [0, 20]);
  assert.deepEqual(forget({ ...given, time: 40, ranges: [[0, 600]], hidden: true }), [0, 578]);
  assert.equal(forget({ ...given, time: 40, ranges: [] }), null);
  assert.deepEqual(forget({ ...given, keepS: 1, time: 4, ranges: [[0, 5]] }), [0, 3]);
  assert.equal(forget({ ...given, keepS: 1, time: 1, ranges: [[0, 5]] }), null);
});

test("browsers decode ahead by different numbers of frames", () => {
  assert.ok(decodedAhead("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0") > decodedAhead("Chrome/156.0"));
});
