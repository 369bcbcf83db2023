// What a session restyles while it plays: the camera, or a clip, shown small and sent frame by frame.

import { cameraTrouble, cut, Source } from "../logic/source.mjs";
import { at, show } from "./dom.mjs";

const QUALITY = 0.88; // of the JPEG pictures

export class Footage {
  #video = at("footage");
  #canvas = document.createElement("canvas");
  #stream = null;
  #timer = 0;
  #busy = false;
  #source = null;
  #send = () => {};

  /** Look at the camera. Rejects with a sentence. */
  async openCamera() {
    this.close();
    const devices = navigator.mediaDevices;
    if (!globalThis.isSecureContext || devices?.getUserMedia === undefined) throw new Error(cameraTrouble("", globalThis.isSecureContext));
    try {
      this.#stream = await devices.getUserMedia({ video: { facingMode: "user" }, audio: false });
    } catch (error) {
      throw new Error(cameraTrouble(error.name, true));
    }
    this.#video.srcObject = this.#stream;
    this.#play();
  }

  /** Play a clip, over and over. */
  openClip(url) {
    this.close();
    this.#video.src = url;
    this.#video.loop = true;
    this.#play();
  }

  get isOpen() {
    return this.#stream !== null || this.#video.hasAttribute("src");
  }

  /** A session begins that restyles it. `send(firstFrame, items)`. */
  begin(send) {
    this.#source = new Source();
    this.#send = send;
  }

  /** An event of that session. Returns false where it cannot be gone on with. */
  heard(event) {
    if (this.#source === null) return true;
    if (event.event === "started") {
      const again = this.#source.started(event.source ?? { next_frame: 0, until_frame: 0 });
      if (again === null) return false;
      if (again.length) this.#send(again[0].frame, again.map(({ bytes }) => bytes));
      this.#look(event);
    } else if (event.event === "broken") {
      clearInterval(this.#timer);
    } else {
      this.#source.note(event);
    }
    return true;
  }

  /** Send no more. */
  end() {
    clearInterval(this.#timer);
    this.#source = null;
  }

  close() {
    this.end();
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
    this.#video.removeAttribute("src");
    show(this.#video, false);
  }

  #play() {
    show(this.#video, true);
    this.#video.play().catch(() => {}); // it is silent; where a browser wants a click first, the first one comes later
  }

  /** A picture as often as the video has one, and as the server takes them. */
  #look({ width, height, fps }) {
    clearInterval(this.#timer);
    this.#canvas.width = width;
    this.#canvas.height = height;
    this.#timer = setInterval(() => this.#take({ width, height }), 1000 / fps);
  }

  async #take(size) {
    const source = this.#source;
    const video = this.#video;
    if (this.#busy || source === null || !source.wanted || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    this.#busy = true;
    try {
      const part = cut({ width: video.videoWidth, height: video.videoHeight }, size);
      this.#canvas.getContext("2d").drawImage(video, part.x, part.y, part.width, part.height, 0, 0, size.width, size.height);
      const blob = await new Promise((resolve) => this.#canvas.toBlob(resolve, "image/jpeg", QUALITY));
      const bytes = new Uint8Array(await blob.arrayBuffer());
      if (this.#source !== source || !source.wanted) return;
      const { frame } = source.add(bytes);
      this.#send(frame, [bytes]);
    } finally {
      this.#busy = false;
    }
  }
}
