// Server-sent events in the shape of a WebSocket, for who only listens: watching is an answer of plain HTTP.

import { EventLines } from "../logic/protocol.mjs";

/** What `logic/link.mjs` needs of a WebSocket. `headers` may hold a key, which a WebSocket's request cannot. */
export class EventsSocket {
  protocol = "";
  onopen = () => {};
  onmessage = () => {};
  onclose = () => {};
  #leaving = new AbortController();

  constructor(url, headers) {
    this.#run(url, headers).then((code) => this.onclose({ code }));
  }

  send() {
    throw new Error("who watches steers nothing");
  }

  close() {
    this.#leaving.abort();
  }

  /** Until it ends. Returns the code that a WebSocket would have closed with. */
  async #run(url, headers) {
    try {
      const options = { headers: { ...headers, accept: "text/event-stream" }, cache: "no-store", credentials: "omit" };
      const answer = await fetch(url, { ...options, signal: this.#leaving.signal });
      if (!answer.ok) {
        const body = await answer.json().catch(() => ({}));
        this.onmessage({ data: JSON.stringify({ event: "error", ...body }) });
        return 4000 + answer.status;
      }
      this.onopen();
      const lines = new EventLines();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return 1000;
        for (const { event, bytes } of lines.add(value)) {
          this.onmessage({ data: JSON.stringify(event) });
          if (bytes !== null) this.onmessage({ data: bytes });
        }
      }
    } catch {
      return 1006;
    }
  }
}
