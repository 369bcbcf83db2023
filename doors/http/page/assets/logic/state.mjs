// What a viewer is told of a session: one plain value, and how events change it. Pure.

/** Phases of a session, as its viewer sees them. */
export const PHASES = [
  "idle", // nothing was asked for
  "connecting", // the first connection is made
  "waiting", // in line for a slot
  "preparing", // it has a slot; no frame has come
  "playing",
  "paused",
  "mending", // the connection broke; it is made anew
  "away", // the pause was too long; it goes on when its viewer wants
  "lost", // the connection could not be mended in time; its viewer may try again
  "ended",
  "failed",
];

export const IDLE = Object.freeze({
  phase: "idle",
  watching: false,
  position: 0,
  started: null,
  prompt: "",
  held: false, // its viewer has paused it, whatever becomes of the connection
  asked: null, // the prompt that was sent and not answered: {requestId, prompt}
  steps: 0,
  fullSteps: 0, // steps without load; 0 where it is not known
  degraded: false, // fewer steps than that
  mends: 0,
  skipped: 0,
  refusal: null, // {message} of the last prompt that was refused
  error: null, // {status, message, violations, retryAfterS}
  reason: "",
  usage: null,
});

const RUNNING = new Set(["connecting", "waiting", "preparing", "playing", "paused", "mending"]);

/** Whether a session is under way, so that a prompt changes it and does not begin another. */
export function running(state) {
  return RUNNING.has(state.phase);
}

/** Whether frames are to come. */
export function live(state) {
  return running(state) && state.phase !== "paused";
}

/** The state after `event`: one of the server's, or one of the page's own. */
export function reduced(state, event) {
  const change = CHANGES[event.event];
  return change === undefined ? state : Object.freeze({ ...state, ...change(state, event) });
}

const CHANGES = {
  // The page's own.
  begin: (_, { prompt, watching = false, fullSteps = 0 }) => ({ ...IDLE, phase: "connecting", prompt, watching, fullSteps }),
  ask: (_, { requestId, prompt }) => ({ asked: { requestId, prompt }, refusal: null }),
  broken: (state) => ({ phase: state.started === null ? "connecting" : "mending" }),
  lost: () => ({ phase: "lost" }),
  away: () => ({ phase: "away", held: false }),
  failed: (_, { status, message, violations = [], retryAfterS = null }) => ({
    phase: "failed",
    error: { status, message, violations, retryAfterS },
  }),
  left: () => ({ phase: "ended", reason: "stopped", asked: null }),

  // The server's.
  queue_position: (_, { position }) => ({ phase: "waiting", position }),
  started: (state, event) => ({
    started: state.started === null ? event : { ...state.started, ...event },
    phase: state.started === null ? "preparing" : state.held ? "paused" : "playing",
    mends: state.mends + (state.phase === "mending" ? 1 : 0),
    steps: event.steps,
    degraded: event.degraded ?? state.degraded,
    position: 0,
    ...(event.prompt ? { prompt: event.prompt } : {}),
  }),
  frames: (state) => (state.phase === "paused" || state.phase === "playing" ? {} : { phase: "playing", position: 0 }),
  prompt_applied: (state, { prompt, request_id }) => ({
    prompt,
    refusal: null,
    asked: state.asked !== null && request_id >= state.asked.requestId ? null : state.asked,
  }),
  prompt_refused: (state, { request_id, message }) =>
    state.asked !== null && request_id >= state.asked.requestId ? { asked: null, refusal: { message } } : {},
  quality_changed: ({ fullSteps }, { steps, reason }) => ({
    steps,
    degraded: fullSteps > 0 ? steps < fullSteps : reason === "load",
  }),
  paused: () => ({ phase: "paused", held: true }),
  resumed: () => ({ phase: "playing", held: false, position: 0 }),
  skipped: (state) => ({ skipped: state.skipped + 1 }),
  usage: (_, event) => ({ usage: event }),
  ended: (state, { reason, usage }) => ({ phase: "ended", reason, usage: usage ?? state.usage, asked: null }),
};
