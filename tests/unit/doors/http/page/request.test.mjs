import assert from "node:assert/strict";
import { test } from "node:test";

import { lookAgainMs, news, over, told } from "../../../../../doors/http/page/assets/logic/jobs.mjs";
import {
  accepted, chosen, complaint, job, lengths, seedOf, shareLink, socketUrl, start, watched,
} from "../../../../../doors/http/page/assets/logic/request.mjs";

const MODELS = [
  { id: "a", default: false, media: [] },
  { id: "b", default: true, max_stream_seconds: 40, media: [{ kind: "image", required: false, max_bytes: 2e6 }] },
];
const FIELDS = { prompt: " a star ", model: "b", seconds: 0, seed: 7, leadS: 1, beginning: null };

test("a start holds what the fields say, and nothing that was left out", () => {
  assert.deepEqual(start(FIELDS), { prompt: "a star", model: "b", seconds: 0, seed: 7, codec: "fmp4", max_lead_seconds: 1 });
  const bare = start({ ...FIELDS, model: "", seed: null, beginning: { kind: "image", data: "data:image/png;base64,AA" } });
  assert.deepEqual(bare, { prompt: "a star", seconds: 0, image: "data:image/png;base64,AA", codec: "fmp4", max_lead_seconds: 1 });
});

test("a job has a length", () => {
  assert.deepEqual(job(FIELDS), { prompt: "a star", model: "b", seconds: 4, seed: 7 });
  assert.equal(job({ ...FIELDS, seconds: 10 }).seconds, 10);
});

test("the default model is chosen where none is", () => {
  assert.equal(chosen(MODELS, "").id, "b");
  assert.equal(chosen(MODELS, "a").id, "a");
  assert.equal(chosen([], "a"), null);
});

test("a beginning is of a kind that the model takes, and not too large", () => {
  assert.deepEqual(accepted(MODELS[0]), []);
  assert.equal(complaint(MODELS[1], { type: "image/png", size: 100 }), "");
  assert.match(complaint(MODELS[1], { type: "video/mp4", size: 100 }), /PNG, JPEG, WEBP/);
  assert.match(complaint(MODELS[1], { type: "image/png", size: 3e6 }), /up to 2 MB; this has 3.0 MB/);
  assert.match(complaint(MODELS[0], { type: "image/png", size: 3 }), /nothing but a prompt/);
});

test("a seed is any whole number of 64 bits", () => {
  assert.deepEqual(["", " 7 ", "00", "18446744073709551615"].map(seedOf), [null, "7", "0", "18446744073709551615"]);
  assert.deepEqual(["-1", "1.5", "seven", "18446744073709551616", "9".repeat(30)].map(seedOf), Array(5).fill(undefined));
});

test("lengths end where the model does", () => {
  assert.deepEqual(lengths(MODELS[1]).map(([seconds]) => seconds), [0, 5, 10, 30]);
  assert.equal(lengths(null).at(-1)[1], "5 minutes");
});

test("addresses", () => {
  assert.equal(watched("?watch=abc-1._~"), "abc-1._~");
  assert.deepEqual(["", "?watch=", "?watch=%2F..%2Fetc", `?watch=${"a".repeat(600)}`].map(watched), ["", "", "", ""]);
  assert.equal(shareLink("https://example.org/video/?x=1#y", "t"), "https://example.org/video/?watch=t");
  assert.equal(socketUrl("https://example.org/video/", "v1/live"), "wss://example.org/video/v1/live");
  assert.equal(socketUrl("http://127.0.0.1:8080/?watch=t", "v1/watch/t"), "ws://127.0.0.1:8080/v1/watch/t");
});

const JOB = { id: "j", prompt: "a star", status: "running", progress: 0.42, frames_done: 10, seconds: 4, size_bytes: 51234, error: null };

test("jobs in words", () => {
  assert.equal(told(JOB), "42 % made");
  assert.equal(told({ ...JOB, status: "queued", progress: 0, frames_done: 0 }), "waits for a free place");
  assert.equal(told({ ...JOB, status: "completed" }), "4.0 s, 51 kB");
  assert.equal(told({ ...JOB, status: "failed", error: { message: "no room" } }), "failed: no room");
  assert.equal(told({ ...JOB, cancelling: true }), "is being cancelled");
});

test("a shelf is looked at while something is made", () => {
  assert.equal(over(JOB), false);
  assert.ok(lookAgainMs([JOB], false) < lookAgainMs([{ ...JOB, status: "completed" }], false));
  assert.equal(lookAgainMs([JOB], true), null);
});

test("what became of jobs is said once", () => {
  const done = { ...JOB, status: "completed" };
  assert.equal(news([JOB], [done]), "Video “a star” is finished.");
  assert.equal(news([done], [done]), "");
  assert.equal(news([], [done]), "", "it was there before the page was");
});
