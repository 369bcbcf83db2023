// Looks at the pixels of the page's video each time the browser has painted a picture. Put into the page by bench/operate/browser.py.
globalThis.pictures = (() => {
  const SIDE = 16;
  const MOST = 20000;
  const video = document.getElementById("video");
  const canvas = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  let asked = 0;
  let painted = []; // {at, time, colour}
  let taken = 0;

  // The mean of the corners, where there is nothing but background.
  function background(of) {
    canvas.drawImage(of, 0, 0, SIDE, SIDE);
    const sum = [0, 0, 0];
    for (const [x, y] of [[0, 0], [SIDE - 2, 0], [0, SIDE - 2], [SIDE - 2, SIDE - 2]]) {
      const { data } = canvas.getImageData(x, y, 2, 2);
      for (let n = 0; n < 16; n += 4) for (let c = 0; c < 3; c += 1) sum[c] += data[n + c] / 16;
    }
    return sum.map(Math.round);
  }

  const near = (a, b) => a.every((value, n) => Math.abs(value - b[n]) < 60);

  function watch() {
    video.requestVideoFrameCallback((now, { mediaTime, expectedDisplayTime }) => {
      painted.push({ at: expectedDisplayTime ?? now, time: mediaTime, colour: background(video) });
      if (painted.length > MOST) painted = painted.slice(MOST / 2);
      watch();
    });
  }
  watch();
  document.getElementById("composer").addEventListener("submit", () => (asked = performance.now()), { capture: true });
  document.getElementById("prompt").addEventListener("keydown", ({ key }) => key === "Enter" && (asked = performance.now()), { capture: true });

  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

  async function until(colour, withinMs) {
    const since = asked;
    while (performance.now() - since < withinMs) {
      const found = painted.find((picture) => picture.at > since && near(picture.colour, colour));
      if (found) return { ms: found.at - since, time: found.time, colour: found.colour };
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
