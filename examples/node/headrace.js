// Streams a video to a file, or steers a live one, with nothing but a stock gRPC client.
//
//   node headrace.js stream ADDRESS PROMPT SECONDS FILE.mp4 [SEED]
//   node headrace.js live ADDRESS PROMPT NEXT_PROMPT SECONDS FILE.mp4 [SEED]
//
// A busy server is asked again, a session whose connection broke goes on where it stopped, a refused request is explained.
import { closeSync, openSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const HERE = dirname(fileURLToPath(import.meta.url));
// Numbers of 64 bits as strings, because JavaScript's own are exact to 53 only; enum values by name; fields as the contract writes them.
const FORMAT = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const contract = loader.loadSync("headrace/v1/video.proto", { ...FORMAT, includeDirs: [join(HERE, "../../proto")] });
const errors = loader.loadSync(join(HERE, "error_details.proto"), FORMAT);
const { VideoService } = grpc.loadPackageDefinition(contract).headrace.v1;

const OPTIONS = {
  // A server that has vanished is noticed, also while nothing is sent because a session is paused.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
};
const GIVE_UP_AFTER_MS = 300_000; // of nothing new; a server that is full may say that a slot gets free in a minute or two
const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 2_000;
const REMEMBERED = 32;

/** The typed details of a failed call, by the name of their type. */
function detailsOf(error) {
  const found = {};
  for (const value of error.metadata?.get("grpc-status-details-bin") ?? []) {
    for (const { type_url, value: packed } of errors["google.rpc.Status"].deserialize(value).details) {
      const name = type_url.split("/").pop();
      if (errors[name]) found[name] = errors[name].deserialize(packed);
    }
  }
  return found;
}

/** How long to wait before the call is made again; undefined where that would not help. */
function retryDelay(error, failures) {
  const told = detailsOf(error)["google.rpc.RetryInfo"]?.retry_delay;
  const delay = told ? Number(told.seconds) * 1000 + told.nanos / 1e6 : Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
  switch (error.code) {
    case grpc.status.RESOURCE_EXHAUSTED:
      return told ? delay : undefined; // without a delay it is this library's: a message was too large
    case grpc.status.UNAVAILABLE:
    case grpc.status.CANCELLED:
      return delay;
    default:
      return undefined;
  }
}

/** What has arrived of a session: all that is needed to go on with it elsewhere. */
class Arrived {
  token = "";
  nextFrame = 0n;
  acknowledged = [];
  qualityChanges = [];

  note(event) {
    if (event.started) this.token = event.started.resume_token;
    if (event.frames) this.nextFrame = BigInt(event.frames.first_frame) + BigInt(event.frames.frame_count);
    if (event.prompt_ack) {
      this.#latest(this.acknowledged, event.prompt_ack);
      const first = BigInt(event.prompt_ack.first_frame);
      if (first < this.nextFrame) this.nextFrame = first; // later ones are superseded
    }
    if (event.quality_change) this.#latest(this.qualityChanges, event.quality_change);
  }

  resume() {
    const { token, acknowledged, qualityChanges } = this;
    return { token, next_frame: String(this.nextFrame), acknowledged, quality_changes: qualityChanges };
  }

  #latest(changes, change) {
    while (changes.length && BigInt(changes.at(-1).first_frame) >= BigInt(change.first_frame)) changes.pop();
    changes.push(change);
    if (changes.length > REMEMBERED) changes.shift();
  }
}

/** Fragmented MP4 on its way to a file. A fragment that came in pieces is written when its last piece is there. */
class Mp4File {
  #file;
  #pieces = [];
  #begun = false;

  constructor(path) {
    this.#file = openSync(path, "w");
  }

  started({ codec_header: header }) {
    this.#pieces = []; // of a fragment that broke off: it comes again
    if (!this.#begun) writeSync(this.#file, header);
    this.#begun = true;
  }

  frames({ data, frame_count: count }) {
    this.#pieces.push(...data);
    if (count === 0) return;
    for (const piece of this.#pieces) writeSync(this.#file, piece);
    this.#pieces = [];
  }

  close() {
    closeSync(this.#file);
  }
}

/**
 * Events of a session, over as many connections as it takes. `open(resume)` makes a call that begins it, or goes on with it.
 * Leaving the loop cancels the call, which stops the work behind it.
 */
async function* session(open) {
  const arrived = new Arrived();
  let failures = 0;
  let lastNews = Date.now();
  for (;;) {
    const call = open(arrived.token ? arrived.resume() : null);
    let error = { code: grpc.status.UNAVAILABLE, message: "the server shuts down" };
    try {
      for await (const event of call) {
        if (event.frames) [failures, lastNews] = [0, Date.now()];
        if (event.ended?.reason === "END_REASON_SERVER_DRAINING" && arrived.token) break;
        arrived.note(event);
        yield event;
        if (event.ended) return;
      }
    } catch (caught) {
      error = caught;
    } finally {
      call.cancel();
      call.on("error", () => {}); // the cancellation that was just asked for
    }
    const delay = retryDelay(error, failures++);
    if (delay === undefined || Date.now() + delay - lastNews > GIVE_UP_AFTER_MS) throw error;
    console.error(`${grpc.status[error.code]}: ${error.details ?? error.message}; again in ${delay / 1000} s`);
    await sleep(delay);
  }
}

async function stream(client, prompt, seconds, file, seed) {
  const spec = { prompt, seconds, ...seed };
  const open = (resume) => client.Stream(resume ? { resume } : { spec, codec: "CODEC_FMP4_H264" });
  for await (const event of session(open)) {
    if (event.queue_position) console.error(`waiting, position ${event.queue_position.position}`);
    if (event.started) file.started(event.started);
    if (event.frames) file.frames(event.frames);
    if (event.ended) console.log(`${event.ended.usage.frames_sent} frames`);
  }
}

async function live(client, prompt, nextPrompt, seconds, file, seed) {
  const change = { prompt: { prompt: nextPrompt, request_id: 1 } };
  let call;
  let fps = 0;
  let state = "before"; // then "asked", "changed", "stopped"
  const open = (resume) => {
    call = client.Live();
    call.write({ start: resume ? { resume } : { spec: { prompt, ...seed }, codec: "CODEC_FMP4_H264" } });
    if (state === "asked") call.write(change); // it was not answered
    return call;
  };
  for await (const event of session(open)) {
    if (event.queue_position) console.error(`waiting, position ${event.queue_position.position}`);
    if (event.started) {
      fps = event.started.fps;
      file.started(event.started);
    }
    if (event.frames) {
      file.frames(event.frames);
      if (state === "before") {
        state = "asked";
        call.write(change);
      }
      const next = Number(event.frames.first_frame) + event.frames.frame_count;
      if (next >= seconds * fps && state === "changed") {
        state = "stopped";
        call.write({ stop: {} });
      }
    }
    if (event.prompt_ack || event.prompt_refused) state = "changed";
    if (event.prompt_ack) console.log(`"${event.prompt_ack.prompt}" from frame ${event.prompt_ack.first_frame} on`);
    if (event.prompt_refused) console.error(`refused: ${event.prompt_refused.message}`);
    if (event.ended) console.log(`${event.ended.usage.frames_sent} frames`);
  }
}

/** Prints what is wrong. Returns the exit status: 2 where the request is to blame. */
function explain(error) {
  if (error.code === undefined) throw error;
  const details = detailsOf(error);
  console.error(`${grpc.status[error.code]}: ${error.details ?? error.message}`);
  for (const { field, description } of details["google.rpc.BadRequest"]?.field_violations ?? []) {
    console.error(`  ${field}: ${description}`);
  }
  const id = details["google.rpc.RequestInfo"]?.request_id;
  if (id) console.error(`  report this id: ${id}`);
  return error.code === grpc.status.INVALID_ARGUMENT ? 2 : 1;
}

const [command, address, ...words] = process.argv.slice(2);
const seedAt = { stream: 3, live: 4 }[command];
if (seedAt === undefined || words.length < seedAt) {
  console.error("usage: node headrace.js stream ADDRESS PROMPT SECONDS FILE [SEED] | live ADDRESS PROMPT NEXT_PROMPT SECONDS FILE [SEED]");
  process.exit(2);
}
const seed = words[seedAt] === undefined ? {} : { seed: words[seedAt] };
const client = new VideoService(address, grpc.credentials.createInsecure(), OPTIONS);
const file = new Mp4File(words[seedAt - 1]);
try {
  if (command === "stream") await stream(client, words[0], Number(words[1]), file, seed);
  else await live(client, words[0], words[1], Number(words[2]), file, seed);
} catch (error) {
  process.exitCode = explain(error);
} finally {
  file.close();
  client.close();
}
