// Arithmetic of the buffer: what can still be replaced, where to play on, what to forget. Times in seconds of the video.

import { quantile } from "./series.mjs";

// What a new prompt's first frames are taken to need until they are here, before any was timed, and at least.
const FIRST_SWITCH_S = 0.25;
const LEAST_SWITCH_S = 0.1;
const SWITCHES_REMEMBERED = 5;

// With less before them, browsers may wait for more before they play on.
const LEAST_LEFT = 5;
// The part of a chunk that may be over when it comes, and is not shown then. With none, a prompt waits for half a chunk on average.
const MISSED = 3 / 8;

/** How long prompts took from their sending until their first frames were here. */
export class Switches {
  #askedAt = null;
  #requestId = 0;
  #firstFrame = null;
  #tookS = [];

  /** @param {number} now in seconds, of any clock. */
  asked(requestId, now) {
    this.#askedAt = now;
    this.#requestId = requestId;
    this.#firstFrame = null;
  }

  /** `superseded`: whether frames that were here come again. Others wait for their turn, and do not tell how soon they could have come. */
  applied(requestId, firstFrame, superseded) {
    if (requestId === this.#requestId) this.#firstFrame = superseded ? firstFrame : null;
  }

  arrived(firstFrame, now) {
    if (this.#askedAt === null || firstFrame !== this.#firstFrame) return;
    this.#tookS.push(now - this.#askedAt);
    if (this.#tookS.length > SWITCHES_REMEMBERED) this.#tookS.shift();
    this.#askedAt = this.#firstFrame = null;
  }

  /** Seconds until frames of a prompt that is sent now are here: half of the last ones took less. One that took long says little. */
  get expectedS() {
    return Math.max(LEAST_SWITCH_S, quantile(this.#tookS, 0.5) ?? FIRST_SWITCH_S);
  }
}

/** The frame from which on a prompt that is sent now can replace what is here: the first chunk that has hardly begun when its frames come.
 *
 * It is never behind what is here. The last chunk that is here, if it does not play yet, is worth replacing even if its replacement is
 * expected late: nothing comes sooner, and frames that come late are shown from where the video is then.
 *
 * @param {object} at `time`: where the video plays; `fps`; `chunk`: frames of one; `received`: the frame after the last that is here;
 *   `expectedS`: see `Switches`; `playing`.
 * @returns {number | null} null: nothing that is here can be replaced.
 */
export function replaceFrom({ time, fps, chunk, received, expectedS, playing }) {
  const shown = frameAt(time, fps);
  const then = frameAt(time + (playing ? expectedS : 0), fps) + 1 - Math.floor(chunk * MISSED);
  let chunks = Math.max(1, Math.floor((received - then) / chunk));
  if (received - chunks * chunk <= shown) chunks -= 1; // of that one a part was seen
  return chunks > 0 ? received - chunks * chunk : null;
}

/** The frame to jump to, so that frames from `firstFrame` to before `end` are seen, which came for others that are there.
 *
 * A browser decodes ahead of what it shows, and shows what it has read, whatever is appended later: to the end of the chunk at least. A jump
 * makes it read anew. It is to the picture that is shown, so that nobody sees it; behind the new frames, it is back to the last of them, with
 * some left to show until more come.
 */
export function jump({ firstFrame, end, time, fps }) {
  const shown = frameAt(time, fps);
  return shown < firstFrame ? shown : Math.max(firstFrame, Math.min(shown, end - LEAST_LEFT));
}

function frameAt(time, fps) {
  return Math.floor(time * fps + 1e-6);
}

/** The buffered range that is played from `time` on; null where nothing is. */
export function current(ranges, time) {
  return ranges.find(([from, to]) => from - 0.05 <= time && time < to) ?? null;
}

/** How many seconds of video are there from `time` on. */
export function aheadS(ranges, time) {
  const range = current(ranges, time);
  return range === null ? 0 : range[1] - Math.max(time, range[0]);
}

/** Where to play, and how fast.
 *
 * @param {object} now `time`; `ranges`: pairs of what is buffered; `leadS`: how far the server lets frames run ahead; `chunkS`;
 *   `rate`: as it is; `live`: more frames come; `returned`: the viewer has just come back to the page.
 * @returns {{seek: number | null, rate: number}}
 */
export function steer({ time, ranges, leadS, chunkS, rate, live, returned }) {
  if (ranges.length === 0) return { seek: null, rate: 1 };
  const range = current(ranges, time);
  if (range === null) {
    const later = ranges.find(([from]) => from > time);
    if (later !== undefined) return { seek: later[0], rate: 1 }; // a gap that nothing will fill
    const end = ranges.at(-1)[1];
    // Beyond the end by more than a rounding: the session went back to frames before this one.
    return { seek: live && time > end + chunkS ? Math.max(ranges.at(-1)[0], end - chunkS) : null, rate: 1 };
  }
  const usual = leadS + chunkS + 0.3; // paced frames arrive up to a lead and a chunk before they are due
  const ahead = range[1] - time;
  if (!live) return { seek: null, rate: 1 };
  if (ahead > usual + 2 || (returned && ahead > usual)) return { seek: Math.max(range[0], range[1] - leadS), rate: 1 };
  if (ahead > usual + 0.5) return { seek: null, rate: 1.05 };
  return { seek: null, rate: rate > 1 && ahead > usual ? rate : 1 };
}

/** What to remove so that the buffer has a bound: what was played `keepS` ago, and what nobody saw while the page was hidden.
 *
 * @returns {[number, number] | null}
 */
export function forget({ time, ranges, keepS, hidden, leadS }) {
  if (ranges.length === 0) return null;
  const begin = ranges[0][0];
  const end = ranges.at(-1)[1];
  const until = hidden ? Math.max(time - keepS, end - 2 * leadS - keepS) : time - keepS;
  return until > begin + keepS / 2 ? [begin, until] : null;
}
