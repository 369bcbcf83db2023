// Arithmetic of the buffer: what can still be replaced, where to play on, what to forget. Times in seconds of the video.

// A new prompt's first frames take at least so long to arrive; what plays sooner is better left as it is.
const LEAST_SWITCH_S = 0.15;
const FIRST_SWITCH_S = 0.25;
const SWITCHES_REMEMBERED = 4;

// Browsers decode ahead of what they show. What they have read already is shown as it was, whatever is appended later, until the next
// picture that stands alone: the beginning of the next chunk. `bench.operate.live_page --margin` measures this number.
const DECODED_AHEAD = 5; // four were measured in Chromium 156, and one is for a picture that is late to be reported
const DECODED_AHEAD_FIREFOX = 11; // its queue has ten pictures; from its settings, not measured

/** Frames that a browser has decoded beyond the one that it shows. */
export function decodedAhead(userAgent) {
  return /\bFirefox\//.test(userAgent) ? DECODED_AHEAD_FIREFOX : DECODED_AHEAD;
}

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
    if (requestId !== this.#requestId) return;
    this.#firstFrame = superseded ? firstFrame : null;
    if (!superseded) this.#tookS.shift();
  }

  arrived(firstFrame, now) {
    if (this.#askedAt === null || firstFrame !== this.#firstFrame) return;
    this.#tookS.push(now - this.#askedAt);
    if (this.#tookS.length > SWITCHES_REMEMBERED) this.#tookS.shift();
    this.#askedAt = this.#firstFrame = null;
  }

  /** Seconds until frames of a prompt that is sent now are here. */
  get expectedS() {
    return this.#tookS.length ? Math.max(LEAST_SWITCH_S, ...this.#tookS) : FIRST_SWITCH_S;
  }
}

/** The first frame that is still unread by the decoder when frames of a new prompt come.
 *
 * @param {object} at `time`: where the video plays; `fps`; `expectedS`: see `Switches`; `ahead`: see `decodedAhead`; `playing`.
 */
export function replaceFrom({ time, fps, expectedS, ahead, playing }) {
  return Math.floor((time + (playing ? expectedS : 0)) * fps + 1e-6) + ahead + 1;
}

/** Which of the frames from `firstFrame` on is seen first, if they were appended while `time` was shown.
 *
 * If the decoder was further already, it goes on with the frames that it has read up to the end of the chunk that it is in.
 */
export function seenFrom({ firstFrame, chunk, time, fps, ahead }) {
  const read = Math.floor(time * fps + 1e-6) + ahead;
  const missed = read - firstFrame;
  return missed < 0 ? firstFrame : firstFrame + chunk * (Math.floor(missed / chunk) + 1);
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
