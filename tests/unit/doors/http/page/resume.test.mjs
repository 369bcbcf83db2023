import assert from "node:assert/strict";
import { test } from "node:test";

import { Arrived, delayMs, next, POLICY, Unanswered } from "../../../../../doors/http/page/assets/logic/resume.mjs";

const frames = (first_frame, frame_count = 8) => ({ event: "frames", first_frame, frame_count });
const applied = (first_frame, change) => ({ event: "prompt_applied", prompt: `p${change}`, first_frame, request_id: change, change });

test("a resume asks for the frame after the last one, and repeats what was received", () => {
  const arrived = new Arrived();
  assert.equal(arrived.resumable, false);
  arrived.note({ event: "started", resume_token: "t" });
  arrived.note(frames(0));
  arrived.note({ event: "quality_changed", steps: 3, first_frame: 8, reason: "load" });
  arrived.note(frames(8));
  assert.equal(arrived.resumable, true);
  assert.deepEqual(arrived.resume(), {
    token: "t",
    next_frame: 16,
    acknowledged: [],
    quality_changes: [{ steps: 3, first_frame: 8, reason: "load" }],
  });
});

test("an applied prompt takes back the frames behind it, and the changes that it overrides", () => {
  const arrived = new Arrived();
  arrived.note({ event: "started", resume_token: "t" });
  for (const first of [0, 8, 16, 24]) arrived.note(frames(first));
  arrived.note(applied(24, 1));
  arrived.note(applied(16, 2));
  assert.equal(arrived.resume().next_frame, 16);
  assert.deepEqual(arrived.resume().acknowledged, [{ prompt: "p2", first_frame: 16, request_id: 2, change: 2 }]);
});

test("no more acknowledgements are kept than a server takes", () => {
  const arrived = new Arrived();
  for (let n = 1; n <= 40; n += 1) arrived.note(applied(8 * n, n));
  assert.equal(arrived.resume().acknowledged.length, 32);
  assert.equal(arrived.resume().acknowledged.at(-1).change, 40);
});

test("controls without an answer are said again, a pause that is in force first", () => {
  const unanswered = new Unanswered();
  unanswered.add({ pause: {} });
  assert.equal(unanswered.answered({ event: "paused" }), true);
  unanswered.add({ prompt: { prompt: "a", request_id: 1 } });
  unanswered.add({ prompt: { prompt: "b", request_id: 2 } });
  assert.deepEqual(unanswered.again(), [{ pause: {} }, { prompt: { prompt: "b", request_id: 2 } }]);
  assert.equal(unanswered.answered({ event: "paused" }), false, "it was had already");
  assert.equal(unanswered.answered({ event: "prompt_applied", request_id: 2 }), true);
  assert.deepEqual(unanswered.again(), [{ pause: {} }]);
  unanswered.add({ resume: {} });
  unanswered.answered({ event: "resumed" });
  assert.deepEqual(unanswered.again(), []);
});

test("the first try is immediate, and later ones spread", () => {
  assert.equal(delayMs(POLICY, 0, 0.5), 0);
  assert.equal(delayMs(POLICY, 1, 0), POLICY.firstDelayMs);
  assert.equal(delayMs(POLICY, 1, 1), POLICY.firstDelayMs / 2);
  assert.equal(delayMs(POLICY, 3, 0), 4 * POLICY.firstDelayMs);
  assert.equal(delayMs(POLICY, 1000, 0), POLICY.maxDelayMs);
});

test("what follows the end of a connection", () => {
  const cases = [
    [{ status: 0, begun: true, reason: "completed" }, "over"],
    [{ status: 0, begun: true, reason: "stopped" }, "over"],
    [{ status: 0, begun: true, reason: "draining" }, "again"],
    [{ status: 0, begun: true, reason: "paused" }, "away"],
    [{ status: 0, begun: true }, "again"],
    [{ status: 0, begun: false }, "again"],
    [{ status: 408, begun: true }, "again"],
    [{ status: 503, begun: true }, "again"],
    [{ status: 503, begun: false }, "over"],
    [{ status: 503, begun: false, retryAfterS: 2 }, "again"],
    [{ status: 400, begun: false }, "over"],
    [{ status: 401, begun: true }, "over"],
    [{ status: 404, begun: true }, "over"],
    [{ status: 429, begun: false, retryAfterS: 2 }, "over"],
  ];
  for (const [end, expected] of cases) assert.equal(next(end), expected, JSON.stringify(end));
});
