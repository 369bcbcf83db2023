import assert from "node:assert/strict";
import { test } from "node:test";

import { Figures } from "../../../../../doors/http/page/assets/logic/figures.mjs";
import { area, bars, line, stairs } from "../../../../../doors/http/page/assets/logic/plots.mjs";
import { quantile, Series } from "../../../../../doors/http/page/assets/logic/series.mjs";

const FRAME_MS = 1000 / 24;
const STARTED = { fps: 24, frames_per_chunk: 8, steps: 4 };

function playing(frames = 8) {
  const figures = new Figures(1000);
  figures.started(STARTED, 1200);
  for (let n = 0; n < frames; n += 1) figures.painted(n / 24, 1500 + n * FRAME_MS);
  return figures;
}

test("the first picture counts from the asking", () => {
  assert.equal(playing(1).firstPictureMs, 500);
  assert.equal(new Figures(0).firstPictureMs, null);
});

test("a prompt is on screen when its first frame is", () => {
  const figures = playing(24);
  figures.asked(1, 2500);
  figures.applied(1, 40);
  figures.arrived(40, 30 / 24, 2900);
  assert.equal(figures.painted(41 / 24, 2950), "", "it is not known yet from where on it is seen");
  figures.replaced(42);
  assert.equal(figures.painted(41 / 24, 3000), "");
  assert.equal(figures.painted(42 / 24, 3042), "switch");
  assert.deepEqual(figures.switches.values, [542]);
});

test("frames that replace others are not late, wherever the video is", () => {
  const figures = playing(24);
  figures.asked(1, 2500);
  figures.applied(1, 40);
  figures.arrived(40, 42 / 24, 2900);
  assert.deepEqual([figures.chunks, figures.late], [1, 0]);
});

test("of prompts that overtake each other the last one counts, and a refused one does not", () => {
  const figures = playing(24);
  figures.asked(1, 2000);
  figures.asked(2, 2500);
  figures.applied(1, 40);
  figures.arrived(40, 1, 2600);
  figures.replaced(40);
  assert.equal(figures.painted(40 / 24, 2700), "");
  figures.refused(2);
  assert.equal(figures.painted(60 / 24, 2800), "");
  assert.equal(figures.switches.length, 0);
});

test("a chunk is late when what was there has been played", () => {
  const figures = playing(8);
  figures.arrived(8, 2 / 24, 1600);
  figures.arrived(16, 16 / 24, 2600);
  assert.deepEqual([figures.late, figures.margins.length], [1, 2]);
});

test("a picture that stands too long is counted, one that is paused is not", () => {
  const figures = playing(8);
  const last = 1500 + 7 * FRAME_MS;
  figures.painted(8 / 24, last + 500);
  assert.equal(figures.standstillMs, 500);
  assert.equal(Math.round(figures.stoodMs), Math.round(500 - FRAME_MS));
  figures.still();
  figures.painted(9 / 24, last + 9000);
  assert.equal(figures.standstillMs, 500);
});

test("a series forgets what is old", () => {
  const series = new Series(3);
  for (let n = 0; n < 5; n += 1) series.add(n, 10 * n);
  assert.deepEqual(series.values, [20, 30, 40]);
  assert.deepEqual(series.since(3.5), [[3, 30], [4, 40]], "with the one before the edge");
  assert.deepEqual(series.since(9), [[4, 40]]);
  assert.equal(new Series(3).last, null);
});

test("quantiles", () => {
  assert.equal(quantile([], 0.5), null);
  assert.equal(quantile([3, 1, 2], 0.5), 2);
  assert.equal(quantile([3, 1, 2], 0.99), 3);
  assert.equal(quantile([5], 0), 5);
});

test("plots stay within their box", () => {
  const box = { from: 0, to: 10, low: 0, high: 1, width: 100, height: 20 };
  const points = [[-5, 0.5], [5, 0], [15, 7]];
  assert.equal(line(points, box), "M0 10L50 19L100 1");
  assert.equal(area(points, box), "M0 10L50 19L100 1L100 20L0 20Z");
  assert.equal(stairs([[0, 0], [5, 1]], box), "M0 19H50V1H100");
  assert.equal(line([[0, 1]], box), "");
  assert.equal(stairs([], box), "");
  const drawn = bars([0, 0.5, 2], { most: 2, low: 0, high: 1, width: 20, height: 10, good: (value) => value > 0.6 });
  assert.deepEqual(drawn.map(({ x, y, height, good }) => [x, y, height, good]), [[0, 5, 5, false], [10, 0, 10, true]]);
});
