// The prompt and the settings.

import { chosen, lengths, seedOf } from "../logic/request.mjs";
import { at, made, say, show } from "./dom.mjs";

const IDEAS = [
  "a large red circle moving left on a cream background",
  "a small yellow star rising on a navy background",
  "a white ring circling on a maroon background",
];
const MOST_IDEAS = 4;

export class Composer {
  #models = [];
  #recent = [];
  #prompt = at("prompt");
  #onAsk;
  #onModel;

  /** @param {(prompt: string) => void} onAsk `onModel(model)`: another one is chosen. */
  constructor(onAsk, onModel) {
    this.#onAsk = onAsk;
    this.#onModel = onModel;
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.#prompt.addEventListener("input", () => this.#grow());
    at("model").addEventListener("change", () => this.#chose());
    at("seed").addEventListener("input", () => this.#checkSeed());
  }

  use(models) {
    this.#models = models;
    const field = at("model");
    field.replaceChildren(...models.map(({ id }) => made("option", { value: id, textContent: id })));
    field.value = chosen(models, "")?.id ?? "";
    this.#chose();
    this.#drawIdeas();
  }

  get model() {
    return chosen(this.#models, at("model").value);
  }

  get prompt() {
    return this.#prompt.value.trim();
  }

  /** What the fields hold; null where one of them is wrong, which has the focus then. */
  fields() {
    if (!this.#checkSeed()) {
      at("settings").open = true;
      at("seed").focus();
      return null;
    }
    return {
      prompt: this.prompt,
      model: this.model?.id ?? "",
      seconds: Number(at("seconds").value),
      seed: seedOf(at("seed").value),
      leadS: Number(at("lead").value),
    };
  }

  /** A prompt that was used: it can be had again by a click. */
  remember(prompt) {
    this.#recent = [prompt, ...this.#recent.filter((other) => other !== prompt)].slice(0, MOST_IDEAS);
    this.#drawIdeas();
  }

  focus() {
    this.#prompt.focus();
    this.#prompt.select();
  }

  /** The session was drawn this seed: show it, without choosing it for the next one. */
  showSeed(seed) {
    at("seed").placeholder = `drawn: ${seed}`;
  }

  #submit() {
    const prompt = this.prompt || (this.#recent.length ? "" : this.#prompt.placeholder);
    if (!prompt) return this.#prompt.focus();
    this.#prompt.value = prompt;
    this.#grow();
    return this.#onAsk(prompt);
  }

  #chose() {
    const { model } = this;
    say(at("model-note"), model?.description ?? "");
    const field = at("seconds");
    const before = field.value;
    field.replaceChildren(...lengths(model).map(([value, words]) => made("option", { value: String(value), textContent: words })));
    field.value = [...field.options].some((option) => option.value === before) ? before : "0";
    this.#onModel(model);
  }

  #checkSeed() {
    const sound = seedOf(at("seed").value) !== undefined;
    at("seed").setAttribute("aria-invalid", String(!sound));
    say(at("seed-note"), sound ? "Equal seeds make equal videos." : "A seed is a whole number below 2 to the power of 64.");
    return sound;
  }

  #drawIdeas() {
    const ours = this.#models.some(({ id }) => id.startsWith("millrace")) ? IDEAS : []; // another model draws other things
    const ideas = [...this.#recent, ...ours.filter((idea) => !this.#recent.includes(idea))].slice(0, MOST_IDEAS);
    at("ideas").replaceChildren(...ideas.map((idea) => this.#idea(idea)));
    show(at("ideas"), ideas.length > 0);
  }

  #idea(idea) {
    const button = made("button", { type: "button", textContent: idea, title: idea });
    button.addEventListener("click", () => {
      this.#prompt.value = idea;
      this.#submit();
    });
    return button;
  }

  #grow() {
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${Math.min(this.#prompt.scrollHeight, 160)}px`;
  }
}
