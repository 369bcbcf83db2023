// Going on after a lost connection: what has arrived, what to ask for, what to say again, and how often to try.

const REMEMBERED = 32;

/** What of a session has arrived here. */
export class Arrived {
  #token = "";
  #nextFrame = 0;
  #prompts = [];
  #qualities = [];

  get resumable() {
    return this.#token !== "";
  }

  get nextFrame() {
    return this.#nextFrame;
  }

  note(event) {
    switch (event.event) {
      case "started":
        this.#token = event.resume_token ?? "";
        break;
      case "frames":
        this.#nextFrame = event.first_frame + event.frame_count;
        break;
      case "prompt_applied": {
        const { prompt, first_frame, request_id, change } = event;
        latest(this.#prompts, { prompt, first_frame, request_id, change });
        this.#nextFrame = Math.min(this.#nextFrame, first_frame); // later ones are superseded
        break;
      }
      case "quality_changed": {
        const { steps, first_frame, reason } = event;
        latest(this.#qualities, { steps, first_frame, reason });
        break;
      }
    }
  }

  /** The member `resume` of a start. */
  resume() {
    return {
      token: this.#token,
      next_frame: this.#nextFrame,
      acknowledged: [...this.#prompts],
      quality_changes: [...this.#qualities],
    };
  }
}

/** The last change is in force from its frame on, whatever was told for later ones. */
function latest(changes, change) {
  while (changes.length && changes.at(-1).first_frame >= change.first_frame) changes.pop();
  changes.push(change);
  if (changes.length > REMEMBERED) changes.shift();
}

/** Controls that were given and not answered: a new connection is told them again, and each answer counts once. */
export class Unanswered {
  #controls = [];
  #paused = false;
  #saidAgain = false;

  add(control) {
    if (control.prompt) {
      // Only the newest prompt is to be drawn: one that nobody has answered yet is not worth saying again.
      this.#controls = this.#controls.filter((other) => !other.prompt);
    }
    this.#controls.push(control);
  }

  /** What a new connection has to be told. A resumed session runs, so a pause that was in force is said again. */
  again() {
    this.#saidAgain = this.#paused;
    return [...(this.#paused ? [{ pause: {} }] : []), ...this.#controls];
  }

  forgetPause() {
    this.#paused = false;
  }

  /** Note an answer. False for one that was had already. */
  answered(event) {
    switch (event.event) {
      case "prompt_applied":
      case "prompt_refused":
        this.#take((control) => control.prompt?.request_id === event.request_id);
        return true;
      case "paused":
        if (this.#saidAgain) {
          this.#saidAgain = false;
          return false;
        }
        this.#paused = true;
        this.#take((control) => control.pause);
        return true;
      case "resumed":
        this.#paused = false;
        this.#take((control) => control.resume);
        return true;
      default:
        return true;
    }
  }

  #take(fits) {
    const at = this.#controls.findIndex(fits);
    if (at >= 0) this.#controls.splice(at, 1);
  }
}

/** How a lost connection is mended. */
export const POLICY = {
  firstDelayMs: 50, // the first try is immediate; from the second on delays double
  maxDelayMs: 2000,
  giveUpAfterMs: 30000, // after so long the session counts as lost; its viewer may still ask to go on
  giveUpStartAfterMs: 10000, // the same for one that has not begun
  silentAfterMs: 5000, // a session that plays says something each second
};

/** Milliseconds to wait after `failures` tries; `chance`, from 0 to 1, shortens by up to a half, so that viewers of a dead server spread. */
export function delayMs(policy, failures, chance) {
  if (failures === 0) return 0;
  return Math.min(policy.maxDelayMs, policy.firstDelayMs * 2 ** Math.min(failures - 1, 40)) * (1 - chance / 2);
}

/** What to do once a connection has ended.
 *
 * @param {object} end `status` of HTTP as in `protocol.statusOf`; `begun`: the session has a token; `reason` of an `ended` event or "";
 *   `retryAfterS` as the server said, or null.
 * @returns {"over" | "again" | "away"} over: nothing more to do; again: connect anew; away: it goes on when its viewer wants.
 */
export function next({ status, begun, reason = "", retryAfterS = null }) {
  if (reason === "completed" || reason === "stopped") return "over";
  if (reason === "paused") return begun ? "away" : "over";
  if (reason === "draining") return begun ? "again" : "over";
  if (status === 0 || status === 408) return "again"; // it broke, or this reader was too slow for a while
  if (status === 503) return begun || retryAfterS !== null ? "again" : "over";
  return "over";
}
