// Calls of the server's API beside the WebSocket. The key stays in this tab.

import { Refused } from "../logic/link.mjs";
import { encoded } from "../logic/protocol.mjs";

const KEY = "headrace.key";

/** The server said no; `status` of HTTP, 0 where it cannot be reached. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message ?? "the server cannot be reached");
    this.status = status;
    this.violations = error.violations ?? [];
    this.retryAfterS = error.retry_after_seconds ?? null;
  }
}

export class Api {
  #key = "";

  constructor(base) {
    this.base = base;
    try {
      this.#key = sessionStorage.getItem(KEY) ?? "";
    } catch {
      // Storage is switched off: the key is kept in memory alone.
    }
  }

  get hasKey() {
    return this.#key !== "";
  }

  useKey(key) {
    this.#key = key;
    try {
      if (key) sessionStorage.setItem(KEY, key);
      else sessionStorage.removeItem(KEY);
    } catch {
      // as above
    }
  }

  async models() {
    return (await this.#json("v1/models")).data;
  }

  /** A ticket for one connection, which stands for the key; "" where no key was given. */
  async ticket() {
    if (!this.#key) return "";
    return (await this.#admitted("v1/tickets", { method: "POST" })).ticket;
  }

  /** The same for the first call of a page: where no key was given, ask whether the server wants one. A WebSocket does not say. */
  async admission() {
    if (this.#key) return this.ticket();
    await this.#admitted("v1/models");
    return "";
  }

  async #admitted(path, options) {
    try {
      return await this.#json(path, options);
    } catch (error) {
      if (error.status === 0 || error.status >= 500) throw error; // it may be there again in a moment
      const { status, message, violations, retryAfterS } = error;
      throw new Refused({ status, message, violations, retryAfterS });
    }
  }

  async jobs() {
    return (await this.#json("v1/jobs?limit=12")).data;
  }

  async submit(body) {
    return this.#json("v1/jobs", { method: "POST", body: encoded(body), headers: { "content-type": "application/json" } });
  }

  async remove(id) {
    return this.#json(`v1/jobs/${id}`, { method: "DELETE" });
  }

  /** The file of a job, as an address for a video: without a key the server's own, so that it plays while it loads. */
  async film(id) {
    const path = `v1/jobs/${id}/content`;
    if (!this.#key) return new URL(path, this.base).href;
    const answer = await this.#fetch(path, {});
    return URL.createObjectURL(await answer.blob());
  }

  /** Headers that say who calls. */
  get #headers() {
    return this.#key ? { authorization: `Bearer ${this.#key}` } : {};
  }

  async #json(path, options = {}) {
    const answer = await this.#fetch(path, options);
    return answer.json();
  }

  async #fetch(path, options) {
    const headers = { ...options.headers, ...this.#headers };
    let answer;
    try {
      answer = await fetch(new URL(path, this.base), { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch {
      throw new ApiError(0, {});
    }
    if (answer.ok) return answer;
    const body = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, { message: answer.statusText, ...body.error });
  }
}
