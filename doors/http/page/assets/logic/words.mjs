// What is going on, in sentences. Pure.

/** One sentence on the state; for people who see the page, and for those who hear it. */
export function sentence(state) {
  const { phase, position, started, watching } = state;
  switch (phase) {
    case "idle":
      return "Say what to show, and it plays while it is made.";
    case "connecting":
      return watching ? "Joining." : "Asking for a place.";
    case "waiting":
      return position > 1 ? `In line: ${position - 1} before you.` : "In line: you are next.";
    case "preparing":
      return "The first picture is being made.";
    case "playing":
      return playing(state);
    case "paused":
      return "Paused. It goes on where it stands.";
    case "mending":
      return "The connection broke. What is here plays on while it is mended.";
    case "away":
      return "The pause was long, and others use the place. Play, to go on from here.";
    case "lost":
      return "The server cannot be reached. Play, to try again.";
    case "ended":
      return ended(state);
    case "failed":
      return failed(state.error, started !== null);
    default:
      return "";
  }
}

/** A word or two on the picture; empty where the sentence below it says all. */
export function badge({ phase }) {
  return BADGES[phase] ?? "";
}

const BADGES = {
  connecting: "Starting", waiting: "In line", preparing: "Starting", playing: "Live", paused: "Paused", mending: "Connecting again",
  away: "Paused", lost: "No connection", ended: "Ended",
};

function playing({ asked, prompt, degraded, watching }) {
  if (asked !== null) return `Changing to “${short(asked.prompt)}”.`;
  const few = degraded ? ", with fewer steps since the server is busy" : "";
  if (watching && !prompt) return `Playing what somebody else makes${few}.`;
  return `Playing “${short(prompt)}”${few}.`;
}

function ended({ reason, usage, watching }) {
  const length = usage?.video_seconds ? ` after ${seconds(usage.video_seconds)}` : "";
  if (reason === "completed") return `Finished${length}.`;
  if (reason === "draining") return "The server stopped.";
  if (reason === "paused") return "The pause was too long, and it was ended.";
  return watching ? "It is over." : `Stopped${length}.`;
}

/** Why it failed, and what to do. */
export function failed({ status, message, violations, retryAfterS }, begun) {
  const details = violations.map(({ field, description }) => `${plain(field)} ${description}`).join("; ");
  const again = retryAfterS ? ` Try again in ${seconds(retryAfterS)}.` : "";
  switch (status) {
    case 400:
      return `This cannot be made: ${details || message}.`;
    case 401:
      return "This server asks for a key.";
    case 403:
      return `This key does not allow it: ${message}.`;
    case 404:
      return begun ? "The session is gone." : `There is no such thing: ${message}.`;
    case 409:
      return "The session goes on somewhere else.";
    case 413:
      return `It is too large: ${message}.`;
    case 429:
      return `A limit is reached: ${message}.${again}`;
    case 503:
      return `The server is busy: ${message}.${again}`;
    case 0:
      return "The server cannot be reached.";
    default:
      return `Something went wrong: ${message}.`;
  }
}

/** A field of a request as people call it. */
function plain(field) {
  return field.replace(/^(spec|start|body)\./, "").replaceAll("_", " ");
}

/** A prompt that fits a line. */
export function short(text, most = 60) {
  return text.length <= most ? text : `${text.slice(0, most - 1).trimEnd()}…`;
}

/** A length of time: "0.4 s", "12 s", "2 min 5 s". */
export function seconds(value) {
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 119.5) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Milliseconds as people read them: "420 ms", "1.3 s". */
export function ms(value) {
  return value < 999.5 ? `${Math.round(value)} ms` : seconds(value / 1000);
}

/** A size in bytes: "640 kB", "8 MB". */
export function bytes(value) {
  return value < 1e6 ? `${Math.max(1, Math.round(value / 1e3))} kB` : `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0).replace(/\.0$/, "")} MB`;
}
