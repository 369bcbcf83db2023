import assert from "node:assert/strict";
import { test } from "node:test";

import {
  aheadS, current, forget, jump, replaceFrom, steer, Switches,
} from "../../../../../doors/http/page/assets/logic/playout.mjs";

const FPS = 24;
const CHUNK_S = 8 / FPS;
const steering = { leadS: 1, chunkS: CHUNK_S, rate: 1, live: true, returned: false };

const replacing = { fps: FPS, chunk: 8, received: 64, expectedS: 0.25, playing: true };

test("what is replaced begins with the first chunk that has hardly begun when its replacement comes", () => {
  const from = (time, given = {}) => replaceFrom({ ...replacing, time, ...given });
  assert.equal(from(24 / FPS), 32, "frame 30 plays when it comes");
  assert.equal(from(28 / FPS), 32, "frame 34 plays");
  assert.equal(from(29 / FPS), 40, "frame 35 plays");
  assert.equal(from(29 / FPS, { playing: false }), 32, "nothing plays on meanwhile");
  assert.equal(from(29 / FPS, { received: 67 }), 35, "chunks begin where what is here ends, less whole chunks");
  assert.equal(from(32 / FPS, { playing: false }), 40, "of chunk 32 a picture was seen");
});

test("the last chunk that is here is replaced however long it takes, unless it plays", () => {
  const from = (time, expectedS) => replaceFrom({ ...replacing, time, expectedS });
  assert.equal(from(40 / FPS, 5), 56);
  assert.equal(from(55 / FPS, 0.25), 56);
  assert.equal(from(56 / FPS, 0.25), null);
  assert.equal(from(70 / FPS, 0.25), null, "all of it was played");
});

test("one slow change of prompt does not make the next one late", () => {
  // The first change of a session takes long where a replica makes its first. With the slowest of the last four, the second one replaced
  // nothing, and was seen when all that was here had been played.
  const switches = new Switches();
  took(switches, 1, 0.9);
  const second = replaceFrom({ ...replacing, time: 30 / FPS, received: 30 + 28, expectedS: switches.expectedS });
  assert.ok(second !== null && second < 58, `it replaces what is here from ${second} on`);
  took(switches, 2, 0.25);
  took(switches, 3, 0.25);
  assert.equal(replaceFrom({ ...replacing, time: 24 / FPS, expectedS: switches.expectedS }), 32);
});

test("a replacement is seen by a jump to where the video is, or back to where some of it is left", () => {
  const to = (frame, end = 40) => jump({ firstFrame: 32, end, time: frame / FPS, fps: FPS });
  assert.equal(to(20), 20, "it comes later");
  assert.equal(to(32), 32);
  assert.equal(to(35), 35, "five are left");
  assert.equal(to(36), 35);
  assert.equal(to(45), 35, "the old prompt plays already where the new one has nothing yet");
  assert.equal(to(45, 56), 45, "the next chunks are here, too");
  assert.equal(to(45, 34), 32, "not before the first");
});

function took(switches, id, seconds) {
  switches.asked(id, 10);
  switches.applied(id, 48, true);
  switches.arrived(40, 10);
  switches.arrived(48, 10 + seconds);
}

test("the expected time is that of half of the last few prompts", () => {
  const switches = new Switches();
  assert.equal(switches.expectedS, 0.25);
  took(switches, 1, 0.5);
  assert.equal(switches.expectedS, 0.5);
  took(switches, 2, 0.25);
  took(switches, 3, 0.25);
  assert.equal(switches.expectedS, 0.25);
  for (let id = 4; id <= 8; id += 1) took(switches, id, 0.5);
  assert.equal(switches.expectedS, 0.5);
  for (let id = 9; id <= 13; id += 1) took(switches, id, 0.01);
  assert.equal(switches.expectedS, 0.1, "never less");
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
