// A bounded memory of figures over time.

export class Series {
  #points = [];

  /** @param {number} most points that are kept. */
  constructor(most) {
    this.most = most;
  }

  add(at, value) {
    this.#points.push([at, value]);
    if (this.#points.length > this.most) this.#points.shift();
  }

  clear() {
    this.#points = [];
  }

  get length() {
    return this.#points.length;
  }

  get last() {
    return this.#points.at(-1)?.[1] ?? null;
  }

  get values() {
    return this.#points.map(([, value]) => value);
  }

  /** Points not older than `since`, and the one before them, so that a line begins at the edge. */
  since(since) {
    const first = this.#points.findIndex(([at]) => at >= since);
    return first < 0 ? this.#points.slice(-1) : this.#points.slice(Math.max(0, first - 1));
  }
}

/** The value that a share `q` of `values` is not above; null of none. */
export function quantile(values, q) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? sorted[0];
}
