// Looks at the pixels of the page's video each time the browser has painted a picture. Put into the page by bench/operate/browser.py.
globalThis.pictures = (() => {
  const SIDE = 16;
  const MOST = 20000;
  const video = document.getElementById("video");
  const canvas = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  let asked = 0;
  let painted = []; // {at, time, colour}
  let taken = 0;
  let marks = []; // {at, what, time, ...}: what went in and out since a prompt was asked for

  // The median of all pixels: shapes cover less than half of a picture, but they cross its edges and corners.
  function background(of) {
    canvas.drawImage(of, 0, 0, SIDE, SIDE);
    const { data } = canvas.getImageData(0, 0, SIDE, SIDE);
    return [0, 1, 2].map((channel) => {
      const values = data.filter((_, n) => n % 4 === channel).sort();
      return values[values.length / 2];
    });
  }

  const near = (a, b) => a.every((value, n) => Math.abs(value - b[n]) < 60);

  function watch() {
    video.requestVideoFrameCallback((now, { mediaTime, expectedDisplayTime }) => {
      const colour = background(video);
      painted.push({ at: expectedDisplayTime ?? now, time: mediaTime, colour });
      mark("painted", { time: mediaTime, colour });
      if (painted.length > MOST) painted = painted.slice(MOST / 2);
      watch();
    });
  }
  watch();
  function ask() {
    asked = performance.now();
    marks = [];
  }
  document.getElementById("composer").addEventListener("submit", ask, { capture: true });
  document.getElementById("prompt").addEventListener("keydown", ({ key }) => key === "Enter" && ask(), { capture: true });

  function mark(what, given = {}) {
    if (marks.length < MOST) marks.push({ at: performance.now() - asked, what, time: video.currentTime, ...given });
  }

  function text(data) {
    if (typeof data !== "string") return { event: "bytes" };
    const { event = Object.keys(JSON.parse(data))[0], first_frame = null, prompt = null } = JSON.parse(data);
    return { event, first_frame, replace_from: prompt?.replace_from ?? null };
  }

  for (const what of ["seeking", "seeked", "waiting"]) video.addEventListener(what, () => mark(what));

  // Sockets and buffers that are made from now on are listened to.
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function sent(data) {
    mark("sent", text(data));
    return send.call(this, data);
  };
  const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
  Object.defineProperty(WebSocket.prototype, "onmessage", {
    configurable: true,
    set(listen) {
      set.call(this, (event) => {
        mark("came", text(event.data));
        listen(event);
      });
    },
  });
  const { appendBuffer, remove } = SourceBuffer.prototype;
  SourceBuffer.prototype.remove = function removed(from, to) {
    mark("remove", { from });
    return remove.call(this, from, to);
  };
  SourceBuffer.prototype.appendBuffer = function appended(data) {
    mark("append");
    this.addEventListener("updateend", () => mark("appended"), { once: true });
    return appendBuffer.call(this, data);
  };


  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

  async function until(colour, withinMs) {
    const since = asked;
    while (performance.now() - since < withinMs) {
      const found = painted.find((picture) => picture.at > since && near(picture.colour, colour));
      if (found) return { ms: found.at - since, time: found.time, colour: found.colour, marks };
      await frame();
    }
    return { ms: null, time: video.currentTime, colour: painted.at(-1)?.colour ?? null };
  }

  // Pictures since the last call: how many, how many different ones, the longest time for which one stood, and the last colour.
  function seen() {
    const news = painted.filter(({ at }) => at > taken);
    if (news.length) taken = news.at(-1).at;
    const gaps = news.slice(1).map(({ at }, n) => at - news[n].at);
    const steps = news.slice(1).map(({ time }, n) => time - news[n].time);
    return {
      painted: news.length,
      different: new Set(news.map(({ time }) => time.toFixed(4))).size,
      seconds: news.length ? (news.at(-1).at - news[0].at) / 1000 : 0,
      videoSeconds: news.length ? news.at(-1).time - news[0].time : 0,
      frozenMs: Math.max(0, ...gaps),
      largestStep: Math.max(0, ...steps),
      backwards: steps.filter((step) => step < -1e-4).length,
      colour: news.at(-1)?.colour ?? null,
    };
  }

  const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));

  // Plays the fragments `old`, and appends `new`, whose first picture is `target`, when the picture `ahead` before it is painted.
  // Returns the first picture that is painted with the new colour.
  async function margin(header, old, fresh, chunk, fps, target, ahead) {
    const player = document.createElement("video");
    player.muted = true;
    document.body.append(player);
    const source = new MediaSource();
    player.src = URL.createObjectURL(source);
    await new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    const buffer = source.addSourceBuffer('video/mp4; codecs="avc1.42C00A"');
    const append = (data) => new Promise((resolve) => {
      buffer.addEventListener("updateend", resolve, { once: true });
      buffer.appendBuffer(data);
    });
    await append(bytes(header));
    for (const fragment of old) await append(bytes(fragment));
    const replacing = fresh.map(bytes);
    let began = null;
    const found = await new Promise((resolve) => {
      const look = (_, { mediaTime }) => {
        const number = Math.round(mediaTime * fps);
        began ??= background(player);
        if (!near(background(player), began)) return resolve(number);
        if (number >= target + 4 * chunk) return resolve(null);
        if (number === target - ahead) {
          (async () => { for (const fragment of replacing) await append(fragment); })();
        }
        return player.requestVideoFrameCallback(look);
      };
      player.requestVideoFrameCallback(look);
      player.play();
    });
    player.remove();
    player.src = "";
    return found;
  }

  return { until, seen, margin };
})();
