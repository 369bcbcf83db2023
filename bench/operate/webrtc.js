// A WHEP player and a WHIP publisher, and a look at the pixels that they paint. Put into a page by bench/operate/browser.py.
globalThis.webrtc = (() => {
  const SIDE = 16;
  const canvas = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  let painted = []; // {at, colour}; at: milliseconds since 1970
  let taken = 0;
  let connection = null;
  let place = null;

  function background(video) {
    canvas.drawImage(video, 0, 0, SIDE, SIDE);
    const sum = [0, 0, 0];
    for (const [x, y] of [[0, 0], [SIDE - 2, 0], [0, SIDE - 2], [SIDE - 2, SIDE - 2]]) {
      const { data } = canvas.getImageData(x, y, 2, 2);
      for (let n = 0; n < 16; n += 4) for (let c = 0; c < 3; c += 1) sum[c] += data[n + c] / 16;
    }
    return sum.map(Math.round);
  }

  const near = (a, b) => a.every((value, n) => Math.abs(value - b[n]) < 60);

  async function agreed(url) {
    await connection.setLocalDescription(await connection.createOffer());
    const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/sdp" }, body: connection.localDescription.sdp });
    const text = await answer.text();
    if (answer.status !== 201) throw new Error(`${answer.status}: ${text}`);
    place = answer.headers.get("location");
    await connection.setRemoteDescription({ type: "answer", sdp: text });
    return answer.headers.get("x-headrace-watch-token") ?? "";
  }

  const connected = (withinMs) => new Promise((resolve, reject) => {
    const look = () => {
      if (connection.connectionState === "connected") resolve(true);
      if (connection.connectionState === "failed") reject(new Error("the connection failed"));
    };
    connection.addEventListener("connectionstatechange", look);
    setTimeout(() => reject(new Error(`not connected: ${connection.connectionState}, ${connection.iceConnectionState}`)), withinMs);
    look();
  });

  // Watches; returns milliseconds from the offer to the first picture.
  async function watch(url, withinMs) {
    const began = performance.now();
    const video = document.createElement("video");
    video.muted = true;
    video.autoplay = true;
    video.playsInline = true;
    document.body.append(video);
    connection = new RTCPeerConnection();
    connection.addTransceiver("video", { direction: "recvonly" });
    connection.addTransceiver("audio", { direction: "recvonly" });
    connection.addEventListener("track", ({ track, streams }) => {
      if (track.kind === "video") video.srcObject = streams[0] ?? new MediaStream([track]);
    });
    await agreed(url);
    await connected(withinMs);
    const look = (now) => {
      painted.push({ at: performance.timeOrigin + now, colour: background(video) });
      video.requestVideoFrameCallback(look);
    };
    await new Promise((resolve) => video.requestVideoFrameCallback((now) => { look(now); resolve(); }));
    return performance.now() - began;
  }

  // Publishes a square that moves over a colour, coded by the browser; returns the token to watch by.
  async function publish(url, colour, withinMs) {
    const picture = document.createElement("canvas");
    picture.width = picture.height = 256;
    const context = picture.getContext("2d");
    let turn = 0;
    setInterval(() => {
      context.fillStyle = colour;
      context.fillRect(0, 0, 256, 256);
      context.fillStyle = "red";
      context.fillRect((turn += 2) % 192, 96, 64, 64);
    }, 1000 / 30);
    connection = new RTCPeerConnection();
    const [track] = picture.captureStream(30).getVideoTracks();
    connection.addTransceiver(track, { direction: "sendonly" });
    const token = await agreed(url);
    await connected(withinMs);
    return token;
  }

  const frame = () => new Promise((resolve) => setTimeout(resolve, 10));

  // Milliseconds since `since`, of 1970, until a picture with this background was painted; null where there was none.
  async function until(colour, since, withinMs) {
    while (performance.timeOrigin + performance.now() - since < withinMs) {
      const found = painted.find((one) => one.at > since && near(one.colour, colour));
      if (found) return found.at - since;
      await frame();
    }
    return null;
  }

  // Pictures since the last call, and the longest time for which one stood.
  function seen() {
    const news = painted.filter(({ at }) => at > taken);
    if (news.length) taken = news.at(-1).at;
    const gaps = news.slice(1).map(({ at }, n) => at - news[n].at);
    return {
      painted: news.length,
      seconds: news.length ? (news.at(-1).at - news[0].at) / 1000 : 0,
      frozenMs: Math.max(0, ...gaps),
      colour: news.at(-1)?.colour ?? null,
    };
  }

  // What the browser says of its own buffer, and of pictures.
  async function statistics() {
    const found = [...(await connection.getStats()).values()].find(({ type, kind }) => type === "inbound-rtp" && kind === "video");
    if (!found) return null;
    return {
      decoded: found.framesDecoded, dropped: found.framesDropped, lost: found.packetsLost, plis: found.pliCount, keys: found.keyFramesDecoded,
      bufferMs: found.jitterBufferEmittedCount ? 1000 * found.jitterBufferDelay / found.jitterBufferEmittedCount : 0,
      freezes: found.freezeCount,
    };
  }

  async function end() {
    const { status } = await fetch(place, { method: "DELETE" });
    connection.close();
    return status;
  }

  return { watch, publish, until, seen, statistics, end };
})();
