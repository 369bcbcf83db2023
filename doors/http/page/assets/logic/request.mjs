// Makes requests of what the page's fields hold, and says what is wrong with them. Pure.

/** The model called `name`, or the default one. */
export function chosen(models, name) {
  return models.find(({ id }) => id === name) ?? models.find((model) => model.default) ?? models[0] ?? null;
}

/** What a model may begin with, as types for a file field. */
export function accepted(model) {
  const types = { image: ["image/png", "image/jpeg", "image/webp"], video: ["video/mp4"] };
  const kinds = new Set((model?.media ?? []).map(({ kind }) => kind));
  if (model?.restyles) kinds.add("video");
  return Object.keys(types).flatMap((kind) => (kinds.has(kind) ? types[kind] : []));
}

/** What is wrong with a file as a beginning; empty for nothing. */
export function complaint(model, { type, size }, most = Infinity) {
  const takes = accepted(model);
  if (takes.length === 0) return "This model begins with nothing but a prompt.";
  if (!takes.includes(type)) {
    const names = takes.map((known) => known.split("/")[1].toUpperCase()).join(", ");
    return `The beginning must be a file of one of these kinds: ${names}.`;
  }
  const kind = type.split("/")[0];
  const limit = Math.min(most, model.media.find((media) => media.kind === kind)?.max_bytes ?? Infinity);
  if (size > limit) return `The beginning may have up to ${Math.floor(limit / 1e6)} MB; this has ${(size / 1e6).toFixed(1)} MB.`;
  return "";
}

/** The seed in a text field, as digits: null for one that the server draws; undefined where it is none. */
export function seedOf(text) {
  const digits = text.trim();
  if (digits === "") return null;
  if (!/^\d{1,20}$/.test(digits) || BigInt(digits) >= 2n ** 64n) return undefined;
  return String(BigInt(digits));
}

/** The member `start` of the first message.
 *
 * @param {object} fields `prompt`, `model`, `seconds` (0: until stopped), `seed` (see `seedOf`), `leadS`,
 *   `beginning`: null or `{kind, data}` with a data URI; `strength`: of a session that restyles a source, else null.
 */
export function start({ prompt, model, seconds, seed, leadS, beginning, strength = null }) {
  const given = strength === null ? video({ prompt, model, seconds, seed, beginning }) : { ...video({ prompt, model, seconds, seed }), strength };
  return { ...given, codec: "fmp4", max_lead_seconds: leadS };
}

/** The body of `POST /v1/jobs`. */
export function job({ prompt, model, seconds, seed, beginning }) {
  return video({ prompt, model, seconds: seconds || 4, seed, beginning });
}

function video({ prompt, model, seconds, seed, beginning }) {
  return {
    prompt: prompt.trim(),
    ...(model ? { model } : {}),
    seconds,
    ...(seed === null || seed === undefined ? {} : { seed }),
    ...(beginning ? { [beginning.kind]: beginning.data } : {}),
  };
}

/** Lengths to choose from: `[seconds, words]`; a model may end sooner. */
export function lengths(model) {
  const most = model?.max_stream_seconds ?? Infinity;
  const fixed = [5, 10, 30, 60, 300].filter((each) => each <= most);
  return [[0, "until you stop it"], ...fixed.map((each) => [each, each < 60 ? `${each} seconds` : `${each / 60} minute${each > 60 ? "s" : ""}`])];
}

/** What the address of the page asks for: the token of a session to watch, or "". */
export function watched(search) {
  const token = new URLSearchParams(search).get("watch") ?? "";
  return /^[\w.~-]{1,512}$/.test(token) ? token : "";
}

/** The address that lets others watch. */
export function shareLink(page, token) {
  const link = new URL(page);
  link.search = `?watch=${encodeURIComponent(token)}`;
  link.hash = "";
  return link.href;
}

/** The WebSocket address of `path` beside the page. */
export function socketUrl(page, path) {
  const url = new URL(path, page);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
