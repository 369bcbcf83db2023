// The image or clip that a video begins with: chosen, dropped or pasted.

import { accepted, complaint } from "../logic/request.mjs";
import { bytes } from "../logic/words.mjs";
import { at, say, show } from "./dom.mjs";

export class Beginning {
  #file = null;
  #url = "";
  #model = null;
  #onTrouble;
  #onChosen;

  /** @param {(sentence: string) => void} onTrouble says what is wrong with a file; `onChosen(file, only)` after a sound one, and with null
   * when it is removed. `only`: the model restyles it, and begins with none of its kind. */
  constructor(onTrouble, onChosen) {
    this.#onTrouble = onTrouble;
    this.#onChosen = onChosen;
    at("file").addEventListener("change", () => this.#take(at("file").files[0]));
    at("chosen-remove").addEventListener("click", () => {
      this.clear();
      at("file").focus();
    });
    addEventListener("paste", ({ clipboardData }) => {
      if (clipboardData?.files.length) this.#take(clipboardData.files[0]);
    });
    this.#listenForDrops();
  }

  /** Another model may take other files, or none. */
  for(model) {
    this.#model = model;
    const types = accepted(model);
    at("file").accept = types.join(",");
    show(at("beginning"), types.length > 0);
    if (this.#file === null) return;
    if (complaint(model, this.#file)) this.clear();
    else this.#tell();
  }

  /** `{kind, data}` with a data URI; null where none is chosen. */
  async read() {
    const file = this.#file;
    if (file === null) return null;
    const data = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(new Error("the file cannot be read"));
      reader.readAsDataURL(file);
    });
    return { kind: file.type.split("/")[0], data };
  }

  clear() {
    this.#file = null;
    at("file").value = "";
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = "";
    for (const id of ["chosen-image", "chosen-clip"]) {
      at(id).removeAttribute("src");
      show(at(id), false);
    }
    show(at("chosen"), false);
    show(at("file"), true);
    this.#tell();
  }

  #tell() {
    const kind = this.#file?.type.split("/")[0];
    this.#onChosen(this.#file, kind === "video" && !this.#model?.media?.some((media) => media.kind === kind));
  }

  #take(file) {
    if (file === undefined) return;
    const wrong = complaint(this.#model, file);
    if (wrong) {
      at("file").value = "";
      this.#onTrouble(wrong);
      return;
    }
    this.clear();
    this.#file = file;
    this.#tell();
    this.#url = URL.createObjectURL(file);
    const shown = at(file.type.startsWith("image/") ? "chosen-image" : "chosen-clip");
    shown.src = this.#url;
    show(shown, true);
    say(at("chosen-name"), `${file.name}, ${bytes(file.size)}`);
    show(at("chosen"), true);
    show(at("file"), false); // it would say that no file is chosen
    at("settings").open = true;
  }

  #listenForDrops() {
    let depth = 0; // of elements that the pointer has entered and not left
    const over = (inside) => at("screen").toggleAttribute("data-drop", inside);
    addEventListener("dragenter", () => {
      depth += 1;
      over(true);
    });
    addEventListener("dragleave", () => {
      depth -= 1;
      if (depth <= 0) over(false);
    });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      depth = 0;
      over(false);
      this.#take(event.dataTransfer?.files[0]);
    });
  }
}
