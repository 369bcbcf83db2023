// One viewer's session: the connection, the player and the figures, and one state of which the page shows what it needs.

import { Figures } from "../logic/figures.mjs";
import { Link } from "../logic/link.mjs";
import { aheadS, forget, jump, replaceFrom, steer, Switches } from "../logic/playout.mjs";
import { decoded } from "../logic/protocol.mjs";
import { IDLE, live, reduced, running } from "../logic/state.mjs";
import { Player } from "./player.mjs";

const KEEP_S = 20; // of what was played
const LOOK_EVERY_MS = 200;
const MOST_REBUILT = 5;
const STOP_WITHIN_MS = 2000;

export class Viewing {
  #video;
  #io;
  #sockets;
  #onChange;
  #player;
  #link = null;
  #footage = null; // what the session restyles
  #switches = new Switches();
  #requestId = 0;
  #leadS = 1;
  #header = null;
  #received = 0; // the frame after the last that is here
  #replacing = null; // frames from here on come again
  #away = false; // the page was hidden
  #ends = false; // all frames are here
  #rebuilt = 0;

  state = IDLE;
  figures = new Figures(0);

  /**
   * @param {HTMLVideoElement} video
   * @param {object} sockets `steer` and `watch`, each with `open(protocols)` and `ticket()`; see `Link`.
   * @param {(state: object, event: object) => void} onChange after every event, and after pictures that answer something.
   */
  constructor(video, sockets, onChange) {
    this.#video = video;
    this.#onChange = onChange;
    this.#sockets = sockets;
    this.#io = {
      now: () => performance.now(),
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      chance: Math.random,
    };
    this.#player = new Player(video, { painted: (time, at) => this.#painted(time, at), full: () => this.#room(true) });
    setInterval(() => this.#look(), LOOK_EVERY_MS);
    video.addEventListener("error", () => this.#rebuild());
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("online", () => this.#link?.nudge());
  }

  get aheadS() {
    return aheadS(this.#player.ranges, this.#player.time);
  }

  /** Begin a session with the member `start`. `footage`: what it restyles; null for nothing. */
  begin(start, fullSteps, footage = null) {
    this.#anew(this.#sockets.steer, start);
    const link = this.#link;
    this.#footage = footage;
    footage?.begin((firstFrame, items) => link.source(firstFrame, items));
    this.#dispatch({ event: "begin", prompt: start.prompt, fullSteps });
    return this.#link.run();
  }

  /** Look at a session of somebody else's. */
  join() {
    this.#anew(this.#sockets.watch, null);
    this.#dispatch({ event: "begin", prompt: "", watching: true });
    return this.#link.run();
  }

  ask(prompt) {
    const requestId = (this.#requestId += 1);
    const now = performance.now();
    this.figures.asked(requestId, now);
    this.#switches.asked(requestId, now / 1000);
    this.#link.prompt(prompt, requestId, () => this.#replaceable());
    this.#dispatch({ event: "ask", requestId, prompt });
  }

  pause() {
    this.#video.pause();
    this.figures.still();
    this.#link.pause();
  }

  /** Go on after a pause, and after a connection that could not be mended. */
  resume() {
    if (this.state.phase === "away" || this.state.phase === "lost") {
      this.#dispatch({ event: "broken" });
      this.#link.run();
    } else {
      this.#link.resume();
    }
    this.#play();
  }

  /** End the session in order. What is here plays to its end. */
  stop() {
    const link = this.#link;
    if (!["playing", "paused", "preparing"].includes(this.state.phase)) return this.leave();
    link.stop();
    return setTimeout(() => this.#link === link && running(this.state) && this.leave(), STOP_WITHIN_MS);
  }

  leave() {
    this.#footage?.end();
    this.#footage = null;
    this.#link?.close();
    this.#link = null;
    if (running(this.state) || this.state.phase === "lost" || this.state.phase === "away") this.#dispatch({ event: "left" });
  }

  /** Start the video, after a browser wanted its viewer to ask for it. */
  play() {
    this.#play();
  }

  #anew(sockets, start) {
    this.leave();
    this.#player.close();
    this.#switches = new Switches();
    this.#header = this.#replacing = null;
    this.#ends = false;
    this.#received = this.#rebuilt = 0;
    this.#leadS = start?.max_lead_seconds ?? 1;
    this.figures = new Figures(performance.now());
    const link = new Link({ ...this.#io, ...sockets }, start, (event) => this.#link === link && this.#heard(event));
    this.#link = link;
  }

  #dispatch(event) {
    this.state = reduced(this.state, event);
    this.#onChange(this.state, event);
  }

  #heard(event) {
    const now = performance.now();
    if (this.#footage !== null && !this.#footage.heard(event)) return this.#fail("the server lost more of the source than is kept here");
    switch (event.event) {
      case "started":
        this.figures.started(event, now);
        this.#started(event);
        break;
      case "frames":
        this.#frames(event, now);
        break;
      case "prompt_applied":
        this.#applied(event);
        break;
      case "prompt_refused":
        this.figures.refused(event.request_id);
        break;
      case "queue_position":
        this.figures.place(event.position, now);
        break;
      case "quality_changed":
        this.figures.quality(event.steps, now);
        break;
      case "resumed":
        this.figures.still();
        this.#play();
        break;
      case "ended":
        this.#footage?.end();
        this.#ends = true;
        this.#player.finish();
        break;
      case "skipped":
      case "broken":
        break;
    }
    return this.#dispatch(event);
  }

  #started(event) {
    const again = this.#header !== null;
    this.#header = decoded(event.codec_header);
    if (!again) this.#open();
  }

  #open() {
    this.#player.open(this.#header).catch((error) => this.#fail(error.message));
    this.#play();
  }

  #fail(message) {
    this.leave();
    this.#dispatch({ event: "failed", status: -1, message });
  }

  /** The browser gave the video up: what comes plays in a new one. */
  #rebuild() {
    if (this.#header === null || !live(this.state)) return;
    this.#rebuilt += 1;
    if (this.#rebuilt <= MOST_REBUILT) this.#open();
    else this.#fail(this.#video.error?.message || "the browser cannot play the video");
  }

  #frames(event, now) {
    const { first_frame: first, frame_count: count } = event;
    this.figures.arrived(first, this.#player.time, now, event.timings);
    this.#switches.arrived(first, now / 1000);
    this.#received = first + count;
    for (const item of event.items) this.#player.append(item);
    if (this.#replacing !== null && first >= this.#replacing) this.#replaced();
    const range = this.#room(false);
    if (range !== null) this.#player.remove(...range);
  }

  #applied({ request_id: requestId, first_frame: first }) {
    this.figures.applied(requestId, first);
    const superseded = this.#received > first;
    this.#received = Math.min(this.#received, first);
    this.#switches.applied(requestId, first, superseded);
    this.#replacing = superseded ? first : null;
    if (!superseded) this.figures.replaced(first);
  }

  /** The first frames that replace others were appended: see that they are shown. */
  #replaced() {
    const { fps } = this.state.started;
    const firstFrame = this.#replacing;
    const end = this.#received;
    this.#replacing = null;
    // What is left of the old prompt would flash up if the next chunk came late: rather the new picture stands for a moment.
    this.#player.remove(end / fps, Infinity);
    this.#player.then(() => {
      const { time } = this.#player;
      const frame = jump({ firstFrame, end, time, fps });
      this.#player.jump(frame === Math.floor(time * fps + 1e-6) ? time : frame / fps + 1e-3);
      this.figures.replaced(Math.max(firstFrame, frame));
    });
  }

  #replaceable() {
    const { started, phase } = this.state;
    if (started === null || this.figures.firstPictureMs === null) return null;
    const playing = phase !== "paused" && !this.#video.paused;
    const { fps, frames_per_chunk: chunk } = started;
    const here = { time: this.#player.time, fps, chunk, received: this.#received };
    return replaceFrom({ ...here, expectedS: this.#switches.expectedS, playing });
  }

  #painted(time, at) {
    if (this.state.started === null || this.#video.seeking) return; // what is shown until a jump is done is the old picture
    const what = this.figures.painted(time, at);
    if (what) this.#onChange(this.state, { event: what === "first" ? "first_picture" : "switched" });
  }

  /** What can be removed. `full`: the browser has no room left, so less is kept. */
  #room(full) {
    const keepS = full ? 1 : KEEP_S;
    return forget({ time: this.#player.time, ranges: this.#player.ranges, keepS, hidden: document.hidden, leadS: this.#leadS });
  }

  #look() {
    const { state } = this;
    this.#link?.watch();
    if (state.started === null) return;
    const ranges = this.#player.ranges;
    if (state.phase === "playing" || state.phase === "mending") this.figures.buffer.add(performance.now(), this.aheadS);
    if (this.#video.paused || this.#video.seeking) return;
    const { fps, frames_per_chunk: chunk } = state.started;
    const more = live(state) && !this.#ends;
    const now = { time: this.#player.time, ranges, leadS: this.#leadS, chunkS: chunk / fps, rate: this.#video.playbackRate };
    const { seek, rate } = steer({ ...now, live: more, returned: this.#away && !document.hidden });
    if (!document.hidden) this.#away = false;
    if (seek !== null) this.#video.currentTime = seek;
    if (this.#video.playbackRate !== rate) this.#video.playbackRate = rate;
  }

  #seen() {
    if (document.hidden) {
      this.#away = true;
      this.figures.still();
    } else {
      this.#link?.watch();
      if (this.state.phase !== "paused" && running(this.state)) this.#play(); // browsers stop silent videos that nobody sees
    }
  }

  #play() {
    this.#video.play().then(
      () => this.#onChange(this.state, { event: "unblocked" }),
      (error) => error.name === "NotAllowedError" && this.#onChange(this.state, { event: "blocked" }),
    );
  }
}
