// What a viewer saw of a session, in numbers. Pure: times come by argument, in milliseconds of one clock.

import { quantile, Series } from "./series.mjs";

const STANDSTILL_FRAMES = 3; // a picture that stays for longer than so many frames' time has stopped

export class Figures {
  #askedAt;
  #fps = 0;
  #switch = null; // {requestId, askedAt, firstFrame, seenFrom}: `seenFrom` once its frames are here
  #shown = null; // the last picture: {frame, at}
  #moving = false; // pictures are to follow each other

  firstPictureMs = null;
  firstStages = []; // [name, milliseconds] that the stages worked on the first chunk
  standstillMs = 0; // the longest time for which a picture stood that should have moved
  stoodMs = 0; // all of these together
  chunks = 0;
  late = 0;
  switches = new Series(48); // milliseconds from a prompt to its first picture
  margins = new Series(48); // seconds from a chunk's arrival until it was to be seen
  buffer = new Series(240); // seconds ahead
  steps = new Series(64);
  places = new Series(64);

  /** @param {number} askedAt when the session was asked for. */
  constructor(askedAt) {
    this.#askedAt = askedAt;
  }

  started({ fps, steps }, at) {
    this.#fps = fps;
    this.steps.add(at, steps);
  }

  place(position, at) {
    this.places.add(at, position);
  }

  quality(steps, at) {
    this.steps.add(at, steps);
  }

  asked(requestId, at) {
    // A prompt that was overtaken is never seen: its time would be the one of its successor.
    this.#switch = { requestId, askedAt: at, firstFrame: null, seenFrom: null };
  }

  applied(requestId, firstFrame) {
    if (this.#switch?.requestId === requestId) this.#switch.firstFrame = firstFrame;
  }

  refused(requestId) {
    if (this.#switch?.requestId === requestId) this.#switch = null;
  }

  /** A chunk is here, while the video was at `time` seconds. `timings`: see the event of frames. */
  arrived(firstFrame, time, at, timings = []) {
    this.chunks += 1;
    if (this.chunks === 1) this.firstStages = timings.map(({ stage, service_seconds: worked }) => [stage, 1000 * worked]);
    if (this.#shown === null || this.#switch?.firstFrame === firstFrame) return; // a replacement is due when it is here
    const margin = firstFrame / this.#fps - time;
    this.margins.add(at, margin);
    if (margin < 1 / this.#fps) this.late += 1;
  }

  /** The picture of this frame, and those behind it, are of the new prompt. */
  replaced(frame) {
    if (this.#switch?.firstFrame != null) this.#switch.seenFrom = frame;
  }

  /** The picture of `time` seconds is on the screen. Returns what is new: "first", "switch" or "". */
  painted(time, at) {
    const frame = Math.round(time * this.#fps);
    if (this.#shown !== null && this.#moving) this.#stood(at - this.#shown.at);
    this.#shown = { frame, at };
    this.#moving = true;
    if (this.firstPictureMs === null) {
      this.firstPictureMs = at - this.#askedAt;
      return "first";
    }
    const waiting = this.#switch;
    if (waiting?.seenFrom != null && frame >= waiting.seenFrom) {
      this.switches.add(at, at - waiting.askedAt);
      this.#switch = null;
      return "switch";
    }
    return "";
  }

  /** The video stands on purpose, or nobody looks, until the next picture. */
  still() {
    this.#moving = false;
  }

  /** How long the picture that should move has stood, now. */
  standingMs(at) {
    return this.#moving && this.#shown !== null ? Math.max(0, at - this.#shown.at) : 0;
  }

  #stood(ms) {
    if (ms <= (1000 * STANDSTILL_FRAMES) / this.#fps) return;
    this.stoodMs += ms - 1000 / this.#fps;
    this.standstillMs = Math.max(this.standstillMs, ms);
  }

  get onTime() {
    return this.margins.length === 0 ? null : 1 - this.late / Math.max(1, this.chunks - 1);
  }

  get switchP50Ms() {
    return quantile(this.switches.values, 0.5);
  }
}
