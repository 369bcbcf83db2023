// The screen, the sentence below it, and the buttons that steer what plays.

import { live, running } from "../logic/state.mjs";
import { badge, failed, sentence } from "../logic/words.mjs";
import { at, say, show } from "./dom.mjs";

export class Stage {
  #screen = at("screen");
  #pause = at("pause");

  /** @param {object} on `pause()`, `resume()`, `stop()`, `again()`, `unblock()`. */
  constructor(on) {
    this.on = on;
    this.#pause.addEventListener("click", () => this.toggle());
    at("stop").addEventListener("click", () => on.stop());
    at("again").addEventListener("click", () => on.again());
    at("unblock").addEventListener("click", () => on.unblock());
    at("video").addEventListener("click", () => this.toggle());
    at("full").addEventListener("click", () => this.full());
    show(at("full"), document.fullscreenEnabled === true);
    document.addEventListener("fullscreenchange", () => {
      at("full").setAttribute("aria-pressed", String(document.fullscreenElement !== null));
    });
  }

  /** Fill the screen with the video, or no longer. */
  full() {
    if (!document.fullscreenEnabled) return;
    const change = document.fullscreenElement === null ? this.#screen.requestFullscreen() : document.exitFullscreen();
    change.catch(() => {}); // the browser does not want it now
  }

  /** Pause what plays, and play what is paused. */
  toggle() {
    if (this.#pause.disabled) return;
    if (this.#pause.getAttribute("aria-pressed") === "true") this.on.resume();
    else this.on.pause();
  }

  blocked(isBlocked) {
    show(at("unblock"), isBlocked);
  }

  /** `painted`: whether there is a picture on the screen. */
  update(state, painted) {
    const { phase, started, error, refusal } = state;
    const stands = phase === "paused" || phase === "away" || phase === "lost";
    this.#screen.dataset.phase = phase;
    this.#screen.dataset.painted = String(painted);
    if (started !== null) this.#screen.style.setProperty("--ratio", `${started.width / started.height}`);
    say(at("badge"), badge(state));
    say(at("status"), phase === "failed" ? "" : sentence(state));
    const trouble = error !== null ? failed(error, started !== null) : refusal !== null ? `The prompt was refused: ${refusal.message}.` : "";
    say(at("alert"), trouble.replace(/\.\.$/, "."));
    show(at("alert"), trouble !== "");
    this.#pause.disabled = !(stands || phase === "playing");
    show(this.#pause, !state.watching || phase === "lost");
    this.#pause.setAttribute("aria-pressed", String(stands));
    say(this.#pause, stands ? "Play" : "Pause");
    at("stop").disabled = !(running(state) || stands);
    show(at("again"), running(state) && !state.watching);
    say(at("go"), running(state) || stands ? "Change" : "Play");
    document.title = started !== null && live(state) && state.prompt ? `${state.prompt} · Headrace` : "Headrace";
  }
}
