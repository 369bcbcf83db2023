import assert from "node:assert/strict";
import { test } from "node:test";

import { IDLE, live, PHASES, reduced, running } from "../../../../../doors/http/page/assets/logic/state.mjs";
import { bytes, failed, ms, seconds, sentence, short } from "../../../../../doors/http/page/assets/logic/words.mjs";

const STARTED = { event: "started", width: 64, height: 64, fps: 24, frames_per_chunk: 8, steps: 4, seed: 7, degraded: false };
const after = (...events) => events.reduce(reduced, IDLE);
const BEGUN = [{ event: "begin", prompt: "a star", fullSteps: 4 }, STARTED, { event: "frames" }];

test("a session from its line to its end", () => {
  let state = after({ event: "begin", prompt: "a star" });
  assert.equal(state.phase, "connecting");
  state = reduced(state, { event: "queue_position", position: 3 });
  assert.equal(sentence(state), "In line: 2 before you.");
  state = reduced(state, STARTED);
  assert.equal(state.phase, "preparing");
  state = reduced(state, { event: "frames" });
  assert.equal(sentence(state), "Playing “a star”.");
  state = reduced(state, { event: "ended", reason: "completed", usage: { video_seconds: 12.2 } });
  assert.equal(sentence(state), "Finished after 12 s.");
  assert.equal(running(state), false);
});

test("a prompt is being changed until it is applied or refused", () => {
  const asked = after(...BEGUN, { event: "ask", requestId: 2, prompt: "a ring" });
  assert.equal(sentence(asked), "Changing to “a ring”.");
  const overtaken = reduced(asked, { event: "prompt_applied", request_id: 1, prompt: "a dot" });
  assert.equal(overtaken.asked.requestId, 2);
  const applied = reduced(overtaken, { event: "prompt_applied", request_id: 2, prompt: "a ring" });
  assert.deepEqual([applied.asked, applied.prompt], [null, "a ring"]);
  const refused = reduced(asked, { event: "prompt_refused", request_id: 2, message: "too long" });
  assert.deepEqual([refused.asked, refused.prompt, refused.refusal.message], [null, "a star", "too long"]);
});

test("a connection that breaks and is mended leaves a session as it was", () => {
  const mended = after(...BEGUN, { event: "broken" }, STARTED);
  assert.deepEqual([mended.phase, mended.mends], ["playing", 1]);
  const paused = after(...BEGUN, { event: "paused" }, { event: "broken" }, STARTED, { event: "frames" });
  assert.equal(paused.phase, "paused", "its viewer paused it");
  assert.equal(reduced(paused, { event: "resumed" }).phase, "playing");
  assert.equal(after({ event: "begin", prompt: "a" }, { event: "broken" }).phase, "connecting", "nothing had begun");
});

test("a session with fewer steps says so, until it has them again", () => {
  const fewer = after(...BEGUN, { event: "quality_changed", steps: 3, reason: "load" });
  assert.match(sentence(fewer), /fewer steps/);
  assert.equal(reduced(fewer, { event: "quality_changed", steps: 4, reason: "recovered" }).degraded, false);
});

test("every phase has a sentence", () => {
  const error = { status: 503, message: "all places are taken", violations: [], retryAfterS: 4 };
  for (const phase of PHASES) assert.ok(sentence({ ...IDLE, phase, error, position: 1 }).length > 5, phase);
});

test("frames come while a session runs and is not paused", () => {
  assert.equal(live(after(...BEGUN)), true);
  assert.equal(live(after(...BEGUN, { event: "paused" })), false);
  assert.equal(running(after(...BEGUN, { event: "paused" })), true);
});

test("an event that nobody knows changes nothing", () => {
  const state = after(...BEGUN);
  assert.equal(reduced(state, { event: "of a later version" }), state);
});

test("errors say what to do", () => {
  const error = { message: "it is wrong", violations: [], retryAfterS: null };
  const wrong = { ...error, status: 400, violations: [{ field: "spec.max_lead_seconds", description: "must be at most 30; got 31" }] };
  assert.equal(failed(wrong, false), "This cannot be made: max lead seconds must be at most 30; got 31.");
  assert.equal(failed({ ...error, status: 503, retryAfterS: 4 }, false), "The server is busy: it is wrong. Try again in 4.0 s.");
  for (const status of [-1, 0, 401, 403, 404, 409, 413, 429, 500, 501]) assert.match(failed({ ...error, status }, true), /\.$/);
});

test("figures are written as people read them", () => {
  assert.deepEqual([ms(420.4), ms(1300), seconds(12.3), seconds(125)], ["420 ms", "1.3 s", "12 s", "2 min 5 s"]);
  assert.deepEqual([bytes(512), bytes(8e6), bytes(1.24e6)], ["1 kB", "8 MB", "1.2 MB"]);
  assert.equal(short("a".repeat(80), 10), `${"a".repeat(9)}…`);
});
