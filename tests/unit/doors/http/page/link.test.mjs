import assert from "node:assert/strict";
import { test } from "node:test";

import { Link, Refused } from "../../../../../doors/http/page/assets/logic/link.mjs";

const STARTED = { event: "started", resume_token: "token", fps: 24 };
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A server that a test plays, and a clock that stands still unless it is moved. */
class World {
  sockets = [];
  events = [];
  sleeps = [];
  now = 0;
  ticket = async () => "";

  constructor(start = { prompt: "a star", max_lead_seconds: 1 }) {
    const io = {
      open: (protocols) => {
        const socket = new Socket(protocols);
        this.sockets.push(socket);
        return socket;
      },
      ticket: () => this.ticket(),
      now: () => this.now,
      sleep: async (ms) => {
        this.sleeps.push(ms);
        this.now += ms;
      },
      chance: () => 0,
    };
    this.link = new Link(io, start, (event) => this.events.push(event));
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get names() {
    return this.events.map(({ event }) => event);
  }
}

class Socket {
  sent = [];
  protocol = "headrace.v1";

  constructor(protocols) {
    this.protocols = protocols;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {}

  say(event) {
    this.onmessage({ data: JSON.stringify(event) });
  }

  frames(first_frame, frame_count = 8) {
    this.say({ event: "frames", first_frame, frame_count, sizes: [1] });
    this.onmessage({ data: Uint8Array.from([7]).buffer });
  }

  /** Accept, start and send a chunk. */
  play(first = 0) {
    this.onopen();
    this.say(STARTED);
    this.frames(first);
  }
}

async function begun(...given) {
  const world = new World(...given);
  world.running = world.link.run();
  await settled();
  return world;
}

test("a session from its start to its end over one connection", async () => {
  const world = await begun();
  world.socket.play();
  world.socket.say({ event: "ended", reason: "completed" });
  world.socket.onclose({ code: 1000 });
  await world.running;
  assert.deepEqual(world.socket.sent, [{ start: { prompt: "a star", max_lead_seconds: 1 } }]);
  assert.deepEqual(world.names, ["started", "frames", "ended"]);
  assert.deepEqual([...world.events[1].items[0]], [7]);
});

test("a broken connection is mended at once, from the next frame, with what was acknowledged and what was not", async () => {
  const world = await begun();
  world.socket.play();
  world.link.prompt("a ring", 1, () => 30);
  world.socket.say({ event: "prompt_applied", prompt: "a ring", first_frame: 8, request_id: 1, change: 1 });
  world.socket.frames(8);
  world.link.prompt("a dot", 2, () => 40);
  world.socket.onclose({ code: 1006 });
  await settled();
  assert.equal(world.sockets.length, 2);
  assert.deepEqual(world.sleeps, [0]);
  world.socket.onopen();
  const [first, second] = world.socket.sent;
  assert.deepEqual(first.start, {
    resume: {
      token: "token",
      next_frame: 16,
      acknowledged: [{ prompt: "a ring", first_frame: 8, request_id: 1, change: 1 }],
      quality_changes: [],
    },
    max_lead_seconds: 1,
  });
  assert.deepEqual(second, { prompt: { prompt: "a dot", request_id: 2, replace_from: 40 } });
});

test("tries follow each other more slowly, until the session counts as lost; its viewer may go on", async () => {
  const world = await begun();
  world.socket.play();
  for (let n = 0; n < 60 && !world.names.includes("lost"); n += 1) {
    world.socket.onclose({ code: 1006 });
    await settled();
  }
  await world.running;
  assert.deepEqual(world.sleeps.slice(0, 4), [0, 50, 100, 200]);
  assert.ok(Math.max(...world.sleeps) <= 2000);
  assert.equal(world.names.at(-1), "lost");
  const tries = world.sockets.length;
  world.link.run();
  await settled();
  world.socket.onopen();
  assert.equal(world.sockets.length, tries + 1);
  assert.equal(world.socket.sent[0].start.resume.next_frame, 8);
});

test("a server that shuts down is left for another, and nobody is told of an end", async () => {
  const world = await begun();
  world.socket.play();
  world.socket.say({ event: "ended", reason: "draining" });
  world.socket.onclose({ code: 1012 });
  await settled();
  assert.deepEqual(world.names, ["started", "frames", "broken"]);
  assert.equal(world.sockets.length, 2);
});

test("a session that was set aside goes on when its viewer wants, and is not paused then", async () => {
  const world = await begun();
  world.socket.play();
  world.link.pause();
  world.socket.say({ event: "paused", next_frame: 8 });
  world.socket.say({ event: "ended", reason: "paused" });
  world.socket.onclose({ code: 1000 });
  await world.running;
  assert.equal(world.names.at(-1), "away");
  world.link.run();
  await settled();
  world.socket.onopen();
  assert.deepEqual(world.socket.sent.map((message) => Object.keys(message)[0]), ["start"]);
});

test("a refusal is told in the server's words, and not tried again", async () => {
  const world = await begun();
  world.socket.onopen();
  const violations = [{ field: "seconds", description: "must be at most 60; got 90" }];
  world.socket.say({ event: "error", error: { code: "invalid", message: "seconds is wrong", violations } });
  world.socket.onclose({ code: 4400 });
  await world.running;
  assert.equal(world.sockets.length, 1);
  assert.deepEqual(world.events, [{ event: "failed", status: 400, message: "seconds is wrong", violations, retryAfterS: null }]);
});

test("a server without room is asked again when it says so, and not for ever", async () => {
  const world = await begun();
  for (let n = 0; n < 60 && !world.names.includes("failed"); n += 1) {
    world.socket.onopen();
    world.socket.say({ event: "error", error: { code: "busy", message: "no room", retry_after_seconds: 1 } });
    world.socket.onclose({ code: 4503 });
    await settled();
  }
  await world.running;
  assert.ok(world.sockets.length > 2);
  assert.ok(world.sleeps.every((ms) => ms >= 1000), "as long as the server said");
  assert.deepEqual([world.events.at(-1).status, world.events.at(-1).message], [503, "no room"]);
});

test("each connection has a ticket of its own; a refused key ends it", async () => {
  const world = new World();
  let number = 0;
  world.ticket = async () => `t${(number += 1)}`;
  world.running = world.link.run();
  await settled();
  world.socket.play();
  world.socket.onclose({ code: 1006 });
  await settled();
  assert.deepEqual(world.sockets.map(({ protocols }) => protocols[1]), ["ticket.t1", "ticket.t2"]);
  world.ticket = async () => {
    throw new Refused({ status: 401, message: "no such key" });
  };
  world.socket.onclose({ code: 1006 });
  await world.running;
  assert.equal(world.events.at(-1).status, 401);
});

test("a connection that plays and says nothing is dead", async () => {
  const world = await begun();
  world.socket.play();
  world.now += 4000;
  world.link.watch();
  assert.equal(world.names.includes("broken"), false);
  world.now += 2000;
  world.link.watch();
  await settled();
  assert.equal(world.sockets.length, 2);
  world.sockets[0].say({ event: "usage" });
  assert.equal(world.names.at(-1), "broken", "the dead one is heard no more");
});

test("a paused session may be silent", async () => {
  const world = await begun();
  world.socket.play();
  world.socket.say({ event: "paused", next_frame: 8 });
  world.now += 60000;
  world.link.watch();
  await settled();
  assert.equal(world.sockets.length, 1);
});

test("what is no such protocol ends the session", async () => {
  const world = await begun();
  world.socket.play();
  world.socket.onmessage({ data: "nonsense" });
  await world.running;
  assert.deepEqual([world.events.at(-1).event, world.events.at(-1).status], ["failed", 500]);
});

test("who watches joins again after a break, and says nothing", async () => {
  const world = await begun(null);
  world.socket.play(80);
  world.socket.onclose({ code: 1006 });
  await settled();
  world.socket.onopen();
  assert.equal(world.sockets.length, 2);
  assert.deepEqual(world.sockets.flatMap(({ sent }) => sent), []);
  world.socket.say({ event: "error", error: { code: "not_found", message: "no such session" } });
  world.socket.onclose({ code: 4404 });
  await world.running;
  assert.equal(world.events.at(-1).status, 404);
});

test("a session that was left is over", async () => {
  const world = await begun();
  world.socket.play();
  world.link.close();
  world.socket.onclose({ code: 1000 });
  await world.running;
  assert.deepEqual(world.names, ["started", "frames"]);
});
