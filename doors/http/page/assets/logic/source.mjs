// Which frames of a source to send: one after the other, no further than the server takes them, and the newest ones again after a break.

export class Source {
  #kept = []; // the newest frames that were sent: {frame, bytes}
  #most;
  #next = 0;
  #until = 0;

  /** @param {number} most frames to keep. A server asks for no older ones than it lost, a few chunks at most. */
  constructor(most = 128) {
    this.#most = most;
  }

  /** The server takes another frame. */
  get wanted() {
    return this.#next < this.#until;
  }

  /** The session begins, or goes on after a break.
   *
   * @param {{next_frame: number, until_frame: number}} given what `started` says.
   * @returns {{frame: number, bytes: Uint8Array}[] | null} what to send again; null where the server lacks frames that are not kept.
   */
  started(given) {
    this.#until = given.until_frame;
    const again = this.#kept.filter(({ frame }) => frame >= given.next_frame);
    if (given.next_frame < this.#next && again[0]?.frame !== given.next_frame) return null;
    this.#next = Math.max(given.next_frame, again.length ? again.at(-1).frame + 1 : 0);
    return again;
  }

  /** An event of the server's. */
  note(event) {
    if (event.event === "source_taken") this.#until = event.until_frame;
    else if (event.event === "source_dropped" && event.reason !== "late") this.#back(event.next_frame);
  }

  /** Number a frame. */
  add(bytes) {
    const given = { frame: this.#next, bytes };
    this.#next += 1;
    this.#kept.push(given);
    if (this.#kept.length > this.#most) this.#kept.shift();
    return given;
  }

  #back(frame) {
    if (frame >= this.#next) return;
    this.#next = frame;
    this.#kept = this.#kept.filter((kept) => kept.frame < frame);
  }
}

/** The part of a picture that is sent: as large as fits with the proportions of the video, from its middle. */
export function cut({ width, height }, { width: toWidth, height: toHeight }) {
  const scale = Math.min(width / toWidth, height / toHeight);
  const [w, h] = [toWidth * scale, toHeight * scale];
  return { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h };
}

/** Why there is no picture of a camera, as a sentence. `name`: of the browser's error; `secure`: whether the page came over TLS. */
export function cameraTrouble(name, secure) {
  if (!secure) return "Browsers give a camera only to pages that come over https, or from this machine.";
  if (name === "NotAllowedError" || name === "SecurityError") return "The browser did not let this page see the camera.";
  if (name === "NotFoundError" || name === "OverconstrainedError") return "There is no camera.";
  return "The camera gives no picture; another program may use it.";
}
