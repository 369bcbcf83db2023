// The shelf of jobs: videos that are made while places are free, and fetched when they are done.

import { lookAgainMs, news, over, told } from "../logic/jobs.mjs";
import { at, made, say, show } from "./dom.mjs";

const SURE_FOR_MS = 4000; // a second press within so long removes a video

export class Shelf {
  #api;
  #jobs = [];
  #timer = 0;
  #items = new Map(); // what is on the page, by the job's id
  #onTrouble;
  #there = false;

  constructor(api, onTrouble) {
    this.#api = api;
    this.#onTrouble = onTrouble;
    const dialog = at("film-dialog");
    at("film-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.#closed());
    document.addEventListener("visibilitychange", () => document.hidden || (this.#there && this.look()));
  }

  /** Show what is there now, and come back for more. A server without jobs has no shelf. */
  async look() {
    clearTimeout(this.#timer);
    try {
      const jobs = await this.#api.jobs();
      this.#there = true;
      say(at("shelf-news"), news(this.#jobs, jobs) || at("shelf-news").textContent);
      this.#jobs = jobs;
      this.#draw();
    } catch (error) {
      if (!this.#there && error.status !== 0) return;
    }
    show(at("shelf"), this.#there);
    show(at("keep"), this.#there);
    const wait = lookAgainMs(this.#jobs, document.hidden);
    if (wait !== null) this.#timer = setTimeout(() => this.look(), wait);
  }

  async submit(body) {
    try {
      await this.#api.submit(body);
      say(at("shelf-news"), `“${body.prompt}” is put on the shelf.`);
    } catch (error) {
      this.#onTrouble(error);
    }
    await this.look();
  }

  #draw() {
    show(at("shelf-empty"), this.#jobs.length === 0);
    const wanted = new Set(this.#jobs.map(({ id }) => id));
    for (const [id, item] of this.#items) {
      if (wanted.has(id)) continue;
      item.element.remove();
      this.#items.delete(id);
    }
    this.#jobs.forEach((job, index) => {
      if (!this.#items.has(job.id)) this.#items.set(job.id, this.#item(job));
      const item = this.#items.get(job.id);
      item.update(job);
      const list = at("jobs");
      if (list.children[index] !== item.element) list.insertBefore(item.element, list.children[index] ?? null);
    });
  }

  #item(job) {
    const words = made("span", { className: "told" });
    const bar = made("progress", { max: 1, "aria-label": `Progress of “${job.prompt}”` });
    const play = made("button", { type: "button", textContent: "Watch", "aria-label": `Watch “${job.prompt}”` });
    const remove = made("button", { type: "button", className: "quiet", textContent: "Delete", "aria-label": `Delete “${job.prompt}”` });
    play.addEventListener("click", () => this.#play(job));
    remove.addEventListener("click", () => this.#remove(job, remove));
    const name = made("span", { className: "job-prompt", textContent: job.prompt, title: job.prompt });
    const element = made("li", {}, made("div", { className: "job-words" }, name, words), bar, play, remove);
    const update = (now) => {
      say(words, told(now));
      bar.value = now.progress;
      show(bar, !over(now));
      show(play, now.status === "completed");
    };
    return { element, update };
  }

  async #play(job) {
    try {
      at("film").src = await this.#api.film(job.id);
      say(at("film-title"), job.prompt);
      at("film-dialog").showModal();
      at("film").play().catch(() => {}); // it has controls
    } catch (error) {
      this.#onTrouble(error);
    }
  }

  #closed() {
    const film = at("film");
    if (film.src.startsWith("blob:")) URL.revokeObjectURL(film.src);
    film.removeAttribute("src");
    film.load();
  }

  async #remove(job, button) {
    if (button.dataset.sure === undefined) {
      button.dataset.sure = "";
      button.textContent = "Really?";
      setTimeout(() => {
        delete button.dataset.sure;
        button.textContent = "Delete";
      }, SURE_FOR_MS);
      return;
    }
    try {
      await this.#api.remove(job.id);
      say(at("shelf-news"), `“${job.prompt}” is deleted.`);
      at("shelf-title").focus(); // the button that had the focus is gone
    } catch (error) {
      this.#onTrouble(error);
    }
    await this.look();
  }
}
