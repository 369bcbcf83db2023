// The choice to restyle the camera or a clip while it plays.

import { Footage } from "./footage.mjs";
import { at, say, show } from "./dom.mjs";

const CAMERA = "The prompt is drawn over what the camera shows. The pictures go to this server alone, and it keeps none.";
const CLIP = "The prompt is drawn over the clip, which plays over and over.";
const NEITHER = "The prompt is drawn over what the camera or a clip shows, while it plays.";

export class Restyle {
  footage = new Footage();
  #what = ""; // "camera", "clip" or ""
  #url = "";
  #onTrouble;

  /** @param {(sentence: string) => void} onTrouble says why there is no picture. */
  constructor(onTrouble) {
    this.#onTrouble = onTrouble;
    at("camera").addEventListener("click", () => this.#choose(this.#what === "camera" ? "" : "camera"));
    at("clip-live").addEventListener("click", () => this.#choose(this.#what === "clip" ? "" : "clip"));
  }

  /** Not every model can. */
  for(model) {
    const can = model?.restyles === true;
    show(at("restyle"), can);
    if (!can) this.#choose("");
  }

  /** The file that the video is to begin with; null where none is chosen. `only`: it can be nothing else than restyled. */
  clip(file, only) {
    const isClip = file !== null && file.type.startsWith("video/");
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = isClip ? URL.createObjectURL(file) : "";
    show(at("clip-live"), isClip);
    if (this.#what === "clip" || (isClip && only)) this.#choose(isClip ? "clip" : "");
  }

  /** How much the prompt changes; null where nothing is restyled. */
  get strength() {
    return this.#what === "" || !this.footage.isOpen ? null : Number(at("strength").value);
  }

  async #choose(what) {
    this.#what = what;
    this.footage.close();
    try {
      if (what === "camera") await this.footage.openCamera();
      else if (what === "clip") this.footage.openClip(this.#url);
    } catch (error) {
      this.#what = "";
      this.#onTrouble(error.message);
    }
    at("camera").setAttribute("aria-pressed", String(this.#what === "camera"));
    at("clip-live").setAttribute("aria-pressed", String(this.#what === "clip"));
    say(at("restyle-note"), { camera: CAMERA, clip: CLIP }[this.#what] ?? NEITHER);
  }
}
