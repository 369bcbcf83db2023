// The figures of a session, each with a small plot. A plot says in words, too, what it shows.

import { area, bars, line, stairs } from "../logic/plots.mjs";
import { ms, seconds } from "../logic/words.mjs";
import { at, drawn, made, say, show } from "./dom.mjs";

const WIDTH = 120;
const HEIGHT = 32;
const SPAN_MS = 30000;
const BARS = 24;
const EVERY_MS = 250;

/** One figure: its name, its value, a remark, and a plot. */
class Tile {
  constructor(name, kind = "") {
    this.value = made("span", { className: "value", textContent: "–" });
    this.remark = made("span", { className: "remark" });
    this.plot = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "plot" });
    const words = made("dd", {}, this.value, this.remark, this.plot);
    this.element = made("div", { className: `tile ${kind}` }, made("dt", { textContent: name }), words);
  }

  set(value, remark = "") {
    say(this.value, value);
    this.value.classList.toggle("none", value === "–");
    say(this.remark, remark);
    this.plot.setAttribute("aria-label", value === "–" ? "nothing yet" : `${value}, ${remark}`);
  }

  paths(...paths) {
    this.#draw(paths.filter(([d]) => d).map(([d, kind]) => drawn("path", { d, class: kind })));
  }

  bars(rectangles) {
    this.#draw(rectangles.map(({ x, y, width, height, good }) => drawn("rect", { x, y, width, height, class: good ? "bar" : "bar bad" })));
  }

  parts(rectangles) {
    this.#draw(rectangles.map(({ kind, ...box }) => drawn("rect", { ...box, class: kind })), rectangles.length === 0);
  }

  #draw(shapes, base = true) {
    const ground = base ? [drawn("path", { d: `M0 ${HEIGHT}H${WIDTH}`, class: "base" })] : [];
    this.plot.replaceChildren(...ground, ...shapes);
  }
}

export class Panel {
  #tiles = {
    first: new Tile("First picture"),
    switched: new Tile("New prompt"),
    onTime: new Tile("Chunks in time"),
    buffer: new Tile("Made ahead"),
    steps: new Tile("Denoise steps", "steps"),
    place: new Tile("Place in line"),
  };
  #viewing;

  constructor(viewing) {
    this.#viewing = viewing;
    at("tiles").append(...Object.values(this.#tiles).map(({ element }) => element));
    setInterval(() => document.hidden || this.update(), EVERY_MS);
    this.update();
  }

  update() {
    const { figures, state } = this.#viewing;
    const now = performance.now();
    const box = { from: now - SPAN_MS, to: now, width: WIDTH, height: HEIGHT };
    const tiles = this.#tiles;
    this.#first(figures);
    show(tiles.switched.element, !state.watching); // whoever watches changes nothing
    this.#switches(figures);
    this.#onTime(figures);
    const ahead = figures.buffer.since(now - SPAN_MS);
    tiles.buffer.set(ahead.length ? seconds(figures.buffer.last) : "–", "of video, last 30 s");
    const high = Math.max(1.5, ...ahead.map(([, value]) => value)) * 1.1;
    tiles.buffer.paths([area(ahead, { ...box, low: 0, high }), "area"], [line(ahead, { ...box, low: 0, high }), "line"]);
    const steps = figures.steps.since(now - SPAN_MS);
    tiles.steps.set(state.steps ? String(state.steps) : "–", state.degraded ? "fewer, since the server is busy" : "for each chunk");
    tiles.steps.paths([stairs(steps, { ...box, low: 0, high: Math.max(4, state.fullSteps, state.steps) * 1.15 }), "line"]);
    const places = figures.places.since(now - SPAN_MS);
    show(tiles.place.element, state.phase === "waiting" || places.length > 1);
    tiles.place.set(state.position ? String(state.position) : "–", state.position === 1 ? "you are next" : "");
    tiles.place.paths([stairs(places, { ...box, low: 0, high: Math.max(2, ...places.map(([, value]) => value)) * 1.1 }), "line"]);
    say(at("panel-note"), note(state, figures));
  }

  /** The time to the first picture, and how much of it each stage worked; the rest is waiting, and the way here. */
  #first(figures) {
    const tile = this.#tiles.first;
    const { firstPictureMs: whole, firstStages } = figures;
    tile.set(whole === null ? "–" : ms(whole), whole === null ? "after you ask" : parts(firstStages));
    let at = 0;
    const shares = [...firstStages.map(([, took]) => took / (whole ?? 1)), 1];
    const rectangles = shares.map((share, index) => {
      const width = Math.min(share, 1 - at) * WIDTH;
      const bar = { x: at * WIDTH, y: HEIGHT - 10, width, height: 10, kind: index === shares.length - 1 ? "rest" : `part part-${index % 3}` };
      at = Math.min(1, at + share);
      return bar;
    });
    tile.parts(whole !== null && firstStages.length ? rectangles : []);
  }

  #switches(figures) {
    const values = figures.switches.values;
    const tile = this.#tiles.switched;
    if (values.length === 0) {
      tile.set("–", "on the screen after you change it");
      tile.bars([]);
      return;
    }
    tile.set(ms(values.at(-1)), values.length > 1 ? `half of ${values.length} in ${ms(figures.switchP50Ms)}` : "until it was on the screen");
    tile.bars(bars(values, { most: BARS, low: 0, high: Math.max(1000, ...values), width: WIDTH, height: HEIGHT, good: () => true }));
  }

  #onTime(figures) {
    const margins = figures.margins.values;
    const tile = this.#tiles.onTime;
    tile.set(figures.onTime === null ? "–" : `${Math.floor(figures.onTime * 100)} %`, figures.chunks ? `${figures.late} late of ${figures.chunks}` : "none came yet");
    const high = Math.max(1, ...margins);
    tile.bars(bars(margins, { most: BARS, low: 0, high, width: WIDTH, height: HEIGHT, good: (value) => value > 0.02 }));
  }
}

const STAGES = { text_encoder: "text", denoiser: "denoising", decoder: "decoding" };

function parts(stages) {
  const told = stages.filter(([, took]) => took >= 1).map(([name, took]) => `${STAGES[name] ?? name} ${ms(took)}`);
  return told.length ? told.join(", ") : "after you asked";
}

/** What is worth a line below the figures. */
function note({ started, mends, skipped }, figures) {
  const parts = [];
  if (started !== null) parts.push(`${started.model}, ${started.width}×${started.height}, ${started.fps} frames a second, seed ${started.seed}`);
  if (mends) parts.push(`connection mended ${mends === 1 ? "once" : `${mends} times`}`);
  if (figures.stoodMs > 0) parts.push(`stood still for ${ms(figures.stoodMs)} in all`);
  if (skipped) parts.push(`skipped ahead ${skipped === 1 ? "once" : `${skipped} times`}`);
  return parts.length ? `${parts.join(" · ")}.` : "";
}
