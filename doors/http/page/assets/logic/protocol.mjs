// The messages of `GET /v1/live` and `GET /v1/watch/TOKEN`: JSON as text, media as bytes. Knows no socket and no page.

export const PROTOCOL = "headrace.v1";

/** What was received is not this protocol. */
export class ProtocolError extends Error {}

/** The subprotocols to offer. A ticket stands for a key, which a page cannot put into a header here. */
export function subprotocols(ticket) {
  return ticket ? [PROTOCOL, `ticket.${ticket}`] : [PROTOCOL];
}

/** A message as JSON. A seed may be any number of 64 bits, which JavaScript cannot hold: here it is text, and a number on the wire. */
export function encoded(message) {
  // Quotes within a text are escaped, so no prompt looks like this.
  return JSON.stringify(message).replace(/"seed":"(\d+)"/, '"seed":$1');
}

/** The opposite: the seed in `text`, digit by digit; "" for none. */
function seedIn(text) {
  return /[{,]"seed":\s*(\d+)/.exec(text)?.[1] ?? "";
}

/** Puts an event of frames together with the bytes that follow it. */
export class Reader {
  #waiting = null;

  /** The event in a text message; null where its bytes are still to come. */
  text(message) {
    if (this.#waiting !== null) throw new ProtocolError("bytes were to follow an event of frames; got text");
    let event;
    try {
      event = JSON.parse(message);
    } catch {
      throw new ProtocolError("a text message must be JSON");
    }
    if (event === null || typeof event !== "object" || typeof event.event !== "string") {
      throw new ProtocolError("a text message must be an object with the name of an event");
    }
    if (event.event === "started") return { ...event, seed: seedIn(message) };
    if (event.event !== "frames") return event;
    this.#waiting = event;
    return null;
  }

  /** The event that these bytes belong to, with its `items`. */
  bytes(buffer) {
    const event = this.#waiting;
    if (event === null) throw new ProtocolError("bytes must follow an event of frames");
    this.#waiting = null;
    const items = [];
    let at = 0;
    for (const size of event.sizes ?? []) {
      items.push(new Uint8Array(buffer, at, Math.min(size, buffer.byteLength - at)));
      at += size;
    }
    if (at !== buffer.byteLength) {
      throw new ProtocolError(`an event of frames announced ${at} bytes; got ${buffer.byteLength}`);
    }
    return { ...event, items };
  }
}

/** Bytes of base64. */
export function decoded(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** The MIME type of H.264 in MP4 as its initialisation segment says it: profile and level are in the box `avcC`. */
export function mediaType(header) {
  for (let at = 4; at + 8 <= header.length; at += 1) {
    if (header[at] === 0x61 && header[at + 1] === 0x76 && header[at + 2] === 0x63 && header[at + 3] === 0x43) {
      const [profile, constraints, level] = header.slice(at + 5, at + 8);
      const hex = [profile, constraints, level].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase());
      return `video/mp4; codecs="avc1.${hex.join("")}"`;
    }
  }
  throw new ProtocolError("the header of the video names no H.264 profile");
}

/** What a close of the connection means: the status of HTTP that it stands for; 0 for one that broke or was replaced. */
export function statusOf(closeCode) {
  return closeCode >= 4400 && closeCode < 4600 ? closeCode - 4000 : 0;
}
