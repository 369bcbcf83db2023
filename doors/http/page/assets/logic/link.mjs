// One session over as many connections as it takes. Sockets, time and chance come by argument, so that it runs without a browser.

import { encoded, PROTOCOL, ProtocolError, Reader, statusOf, subprotocols } from "./protocol.mjs";
import { Arrived, delayMs, next, POLICY, Unanswered } from "./resume.mjs";

/** The ticket was refused: another connection would be, too. */
export class Refused extends Error {
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

export class Link {
  #io;
  #start;
  #onEvent;
  #policy;
  #arrived = new Arrived();
  #unanswered = new Unanswered();
  #socket = null;
  #open = false; // the socket takes controls
  #over = false;
  #playing = false;
  #joined = false;
  #heardAt = 0;
  #wake = null;
  #replaceFrom = () => null;

  /**
   * @param {object} io `open(protocols)`: a new WebSocket; `ticket()`: a promise of one, or of ""; may throw `Refused`;
   *   `now()`: milliseconds; `sleep(ms)`: a promise; `chance()`: from 0 to 1.
   * @param {object | null} start the member `start`; null to watch.
   * @param {(event: object) => void} onEvent takes the server's events, and `broken`, `lost`, `away` and `failed` of this link.
   */
  constructor(io, start, onEvent, policy = POLICY) {
    this.#io = io;
    this.#start = start;
    this.#onEvent = onEvent;
    this.#policy = policy;
  }

  /** Whether there is a session to go on with. */
  get #begun() {
    return this.#arrived.resumable || (this.#start === null && this.#joined);
  }

  /** Until the session is over, or only its viewer can say how it goes on. Call it again to go on then. */
  async run() {
    let failures = 0;
    let gapSince = this.#io.now();
    while (!this.#over) {
      const heardFrames = () => {
        failures = 0;
        gapSince = null;
      };
      const end = await this.#connection(heardFrames);
      if (this.#over) return;
      const what = next(end);
      if (what === "over") return this.#finish(end);
      if (what === "away") {
        this.#unanswered.forgetPause(); // a session that is gone on with plays
        return this.#onEvent({ event: "away" });
      }
      gapSince ??= this.#io.now();
      this.#onEvent({ event: "broken" });
      const waitMs = Math.max(
        delayMs(this.#policy, failures, this.#io.chance()),
        Math.min((end.retryAfterS ?? 0) * 1000, this.#policy.maxDelayMs),
      );
      failures += 1;
      const most = this.#begun ? this.#policy.giveUpAfterMs : this.#policy.giveUpStartAfterMs;
      if (this.#io.now() + waitMs - gapSince > most) {
        if (this.#begun) return this.#onEvent({ event: "lost" });
        return this.#finish(end);
      }
      await Promise.race([this.#io.sleep(waitMs), new Promise((resolve) => (this.#wake = resolve))]);
    }
  }

  /** Try again at once, if it waits for the next try: the network is back. */
  nudge() {
    this.#wake?.();
  }

  /** `replaceFrom()`: the first frame that can still be replaced, or null; asked when the prompt is sent, and when it is sent again. */
  prompt(prompt, requestId, replaceFrom) {
    this.#replaceFrom = replaceFrom;
    this.#control({ prompt: { prompt, request_id: requestId } });
  }

  /** Frames of a source, from `firstFrame` on. What cannot be sent now is asked for when the session goes on. */
  source(firstFrame, items) {
    if (!this.#open) return;
    const sizes = items.map(({ length }) => length);
    this.#socket.send(JSON.stringify({ source_frames: { first_frame: firstFrame, sizes } }));
    this.#socket.send(new Blob(items));
  }

  pause() {
    this.#control({ pause: {} });
  }

  resume() {
    this.#control({ resume: {} });
  }

  /** Ask for an end in order; the server says `ended`. */
  stop() {
    this.#control({ stop: {} });
  }

  /** Leave at once. Nothing is told any more. */
  close() {
    this.#over = true;
    this.#socket?.close(1000);
    this.#wake?.();
  }

  /** Call it now and then. A connection that plays and says nothing is dead, even if nobody closed it. */
  watch() {
    if (this.#open && this.#playing && this.#io.now() - this.#heardAt > this.#policy.silentAfterMs) this.#drop();
  }

  #drop = () => {};

  #control(control) {
    this.#unanswered.add(control);
    if (this.#open) this.#send(control);
  }

  #send(control) {
    const from = control.prompt ? this.#replaceFrom() : null;
    this.#socket.send(JSON.stringify(from === null ? control : { prompt: { ...control.prompt, replace_from: from } }));
  }

  /** One connection, from its ticket to its end. Never throws. */
  async #connection(heardFrames) {
    let ticket;
    try {
      ticket = await this.#io.ticket();
    } catch (error) {
      if (error instanceof Refused) return { ...error.error, begun: this.#begun };
      return { status: 0, message: "the server cannot be reached", begun: this.#begun };
    }
    if (this.#over) return { status: 0, begun: false };
    return new Promise((resolve) => {
      const socket = this.#io.open(subprotocols(ticket));
      const reader = new Reader();
      let said = { status: 0, message: "the connection broke", reason: "" };
      const done = (status) => {
        if (this.#socket !== socket) return;
        this.#socket = null;
        this.#open = this.#playing = false;
        this.#drop = () => {};
        resolve({ ...said, status: status || said.status, begun: this.#begun });
      };
      this.#drop = () => {
        socket.close();
        done(0); // a dead peer answers no closing handshake
      };
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        if (socket.protocol !== PROTOCOL && socket.protocol !== "") return this.#drop();
        this.#heardAt = this.#io.now();
        this.#open = true;
        if (this.#start === null) return undefined;
        const start = this.#arrived.resumable ? this.#resuming() : this.#start;
        socket.send(encoded({ start }));
        for (const control of this.#unanswered.again()) this.#send(control);
        return undefined;
      };
      socket.onmessage = ({ data }) => {
        if (this.#socket !== socket || this.#over) return;
        this.#heardAt = this.#io.now();
        try {
          const event = typeof data === "string" ? reader.text(data) : reader.bytes(data);
          if (event !== null) said = this.#heard(event, said, heardFrames);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
          said = { event: "error", status: 500, message: error.message };
          socket.close();
          done(500);
        }
      };
      socket.onclose = ({ code }) => done(statusOf(code));
      socket.onerror = () => {}; // a close follows
    });
  }

  #resuming() {
    return { resume: this.#arrived.resume(), max_lead_seconds: this.#start.max_lead_seconds };
  }

  /** Pass an event on. Returns what it says of the connection's end. */
  #heard(event, said, heardFrames) {
    if (event.event === "error") return failure(event);
    if (event.event === "frames") {
      this.#playing = true;
      heardFrames();
    } else if (event.event === "paused" || event.event === "queue_position" || event.event === "ended") {
      this.#playing = false;
    }
    if (!this.#unanswered.answered(event)) return said;
    this.#arrived.note(event);
    this.#joined ||= event.event === "started";
    if (event.event === "ended" && next({ status: 0, begun: this.#begun, reason: event.reason }) !== "over") {
      return { ...said, reason: event.reason };
    }
    this.#onEvent(event);
    return event.event === "ended" ? { ...said, reason: event.reason } : said;
  }

  #finish({ status, message, violations, retryAfterS, reason }) {
    this.#over = true;
    if (!reason) this.#onEvent({ event: "failed", status, message: message ?? "", violations: violations ?? [], retryAfterS: retryAfterS ?? null });
  }
}

/** What an `error` event says. */
export function failure(event) {
  const { code = "", message = "it is not known why", violations = [], retry_after_seconds: retryAfterS = null } = event.error ?? event;
  return { event: "error", status: STATUSES[code] ?? 500, message, violations, retryAfterS };
}

// Of the codes of our own API. The code that the connection closes with counts, where it came.
const STATUSES = {
  invalid: 400, unauthenticated: 401, forbidden: 403, not_found: 404, stalled: 408, not_ready: 409, conflict: 409, too_large: 413,
  quota: 429, not_served: 501, busy: 503, unavailable: 503,
};
