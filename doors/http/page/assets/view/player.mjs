// Plays fragments through Media Source Extensions. It decides nothing: see `logic/playout.mjs`.

import { mediaType } from "../logic/protocol.mjs";

/** The browser cannot play this. */
export class Unplayable extends Error {}

export class Player {
  #video;
  #onPainted;
  #source = null;
  #buffer = null;
  #queue = []; // what is to be done, in order: {bytes}, {from, to}, {end} or {run}
  #opened = null;
  #url = "";
  #makeRoom;

  /**
   * @param {HTMLVideoElement} video
   * @param {object} on `painted(mediaTime, shownAt)`: a picture is on the screen; `full()`: a range to remove so that there is room, or null.
   */
  constructor(video, { painted, full }) {
    this.#video = video;
    this.#onPainted = painted;
    this.#makeRoom = full;
    this.#watch();
  }

  get time() {
    return this.#video.currentTime;
  }

  /** What is buffered, as pairs of seconds. */
  get ranges() {
    try {
      const found = this.#buffer?.buffered;
      return found ? Array.from({ length: found.length }, (_, n) => [found.start(n), found.end(n)]) : [];
    } catch {
      return []; // the source was closed
    }
  }

  /** Begin anew with a session's header. */
  async open(header) {
    this.close();
    const type = mediaType(header);
    const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;
    if (Source === undefined || !Source.isTypeSupported(type)) throw new Unplayable(`this browser does not play ${type}`);
    const source = new Source();
    this.#source = source;
    this.#queue = [{ bytes: header }];
    this.#video.disableRemotePlayback = true; // which a ManagedMediaSource, all that phones of Apple have, insists on
    this.#url = URL.createObjectURL(source);
    this.#opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    this.#video.src = this.#url;
    await this.#opened;
    if (this.#source !== source) return;
    URL.revokeObjectURL(this.#url);
    this.#buffer = source.addSourceBuffer(type);
    this.#buffer.mode = "segments";
    this.#buffer.addEventListener("updateend", () => this.#pump());
    this.#pump();
  }

  append(bytes) {
    this.#queue.push({ bytes });
    this.#pump();
  }

  remove(from, to) {
    if (to > from) this.#queue.push({ from, to });
    this.#pump();
  }

  /** Do something once all that was given is in the buffer. */
  then(run) {
    this.#queue.push({ run });
    this.#pump();
  }

  /** Show what is in the buffer now, and not what was read of it before. `time`: from there on; where the video is, nobody sees the jump. */
  jump(time) {
    this.#video.currentTime = time;
  }

  /** No more comes: the video ends at the end of what is there. */
  finish() {
    this.#queue.push({ end: true });
    this.#pump();
  }

  close() {
    this.#queue = [];
    this.#buffer = this.#source = null;
    if (this.#video.src) {
      this.#video.removeAttribute("src");
      this.#video.load();
    }
  }

  #pump() {
    const buffer = this.#buffer;
    while (buffer !== null && !buffer.updating && this.#queue.length && this.#source.readyState !== "closed") {
      const next = this.#queue[0];
      try {
        if (next.bytes) buffer.appendBuffer(next.bytes);
        else if (next.run) {
          this.#queue.shift();
          next.run();
          continue;
        } else if (next.end) this.#source.endOfStream();
        else buffer.remove(next.from, next.to);
        this.#queue.shift();
      } catch (error) {
        if (error.name === "InvalidStateError") {
          this.#queue = []; // the video has an error, which it tells of by itself
          return;
        }
        if (error.name !== "QuotaExceededError") throw error;
        const range = this.#makeRoom();
        if (range === null) {
          this.#queue.shift(); // there is nothing that nobody needs: this one is left out
          continue;
        }
        this.#queue.unshift({ from: range[0], to: range[1] });
      }
    }
  }

  #watch() {
    const video = this.#video;
    if ("requestVideoFrameCallback" in video) {
      const painted = (now, { mediaTime, expectedDisplayTime }) => {
        this.#onPainted(mediaTime, expectedDisplayTime ?? now);
        video.requestVideoFrameCallback(painted);
      };
      video.requestVideoFrameCallback(painted);
    } else {
      video.addEventListener("timeupdate", () => this.#onPainted(video.currentTime, performance.now()));
    }
  }
}
