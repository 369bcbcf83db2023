// The page: makes its parts, and tells each what it needs of the others.

import { failed } from "./logic/words.mjs";
import { job, shareLink, socketUrl, start, watched } from "./logic/request.mjs";
import { running } from "./logic/state.mjs";
import { Api } from "./view/api.mjs";
import { Beginning } from "./view/beginning.mjs";
import { Composer } from "./view/composer.mjs";
import { at, say, show } from "./view/dom.mjs";
import { Panel } from "./view/panel.mjs";
import { Restyle } from "./view/restyle.mjs";
import { Shelf } from "./view/shelf.mjs";
import { Stage } from "./view/stage.mjs";
import { Viewing } from "./view/viewing.mjs";

const base = document.baseURI;
const api = new Api(base);
const token = watched(location.search);

const sockets = {
  steer: {
    open: (protocols) => new WebSocket(socketUrl(base, "v1/live"), protocols),
    ticket: () => api.ticket(),
  },
  watch: {
    open: (protocols) => new WebSocket(socketUrl(base, `v1/watch/${encodeURIComponent(token)}`), protocols),
    ticket: () => api.admission(),
  },
};
const viewing = new Viewing(at("video"), sockets, changed);
const stage = new Stage({
  pause: () => viewing.pause(),
  resume: () => viewing.resume(),
  stop: () => viewing.stop(),
  again: () => begin(composer.prompt || viewing.state.prompt),
  unblock: () => viewing.play(),
});
const restyle = new Restyle(trouble);
const beginning = new Beginning(trouble, (file, only) => {
  restyle.clip(file, only);
  if (file !== null && !running(viewing.state)) composer.focus();
});
const composer = new Composer(asked, (model) => {
  restyle.for(model);
  beginning.for(model);
});
const shelf = new Shelf(api, (error) => trouble(failed(error, true)));
new Panel(viewing);

function changed(state, { event }) {
  if (event === "blocked" || event === "unblocked") return stage.blocked(event === "blocked");
  if (event === "started") composer.showSeed(state.started.seed);
  if ((event === "started" || event === "prompt_applied") && state.prompt) composer.remember(state.prompt);
  if (event === "failed" && state.error.status === 401) askForKey();
  if (event === "frames" || event === "usage") {
    if (at("screen").dataset.phase === state.phase) return undefined; // nothing that the page shows has changed
  }
  const sharing = state.started?.watch_token && !state.watching && running(state);
  show(at("share"), Boolean(sharing));
  if (!sharing) show(at("shared"), false);
  return stage.update(state, viewing.figures.firstPictureMs !== null);
}

/** A prompt changes the session that plays, and begins one where none does. */
function asked(prompt) {
  const { phase, watching } = viewing.state;
  if (!watching && (phase === "playing" || phase === "preparing" || phase === "paused" || phase === "mending" || phase === "waiting")) {
    viewing.ask(prompt);
  } else {
    begin(prompt);
  }
}

async function begin(prompt) {
  const fields = composer.fields();
  if (fields === null || !prompt) return;
  try {
    const { strength } = restyle;
    const given = { ...fields, prompt, strength, beginning: strength === null ? await beginning.read() : null };
    show(at("alert"), false);
    viewing.begin(start(given), composer.model?.steps?.default ?? 0, strength === null ? null : restyle.footage);
  } catch (error) {
    trouble(`It cannot begin: ${error.message}.`);
  }
}

async function keep() {
  const fields = composer.fields();
  const prompt = composer.prompt || viewing.state.prompt;
  if (fields === null) return;
  if (!prompt) {
    composer.focus();
    return;
  }
  await shelf.submit(job({ ...fields, prompt, beginning: await beginning.read() }));
}

function trouble(sentence) {
  say(at("alert"), sentence);
  show(at("alert"), true);
}

async function share() {
  const link = shareLink(base, viewing.state.started.watch_token);
  at("share-link").value = link;
  show(at("shared"), true);
  try {
    await navigator.clipboard.writeText(link);
    say(at("status"), "The link is copied: whoever has it can watch.");
  } catch {
    at("share-link").select(); // the browser does not let pages copy here
  }
}

function askForKey() {
  show(at("key-open"), true);
  say(at("key-why"), api.hasKey ? "The server does not know this key, or it is no longer good." : "This server asks its callers for a key.");
  openKeys();
}

function openKeys() {
  show(at("key-forget"), api.hasKey);
  at("key").value = "";
  if (!at("key-dialog").open) at("key-dialog").showModal();
}

async function enter() {
  try {
    composer.use(await api.models());
    shelf.look();
    show(at("key-open"), api.hasKey);
  } catch (error) {
    if (error.status === 401) askForKey();
    else trouble(failed(error, false));
  }
}

at("key-open").addEventListener("click", openKeys);
at("key-cancel").addEventListener("click", () => at("key-dialog").close());
at("key-forget").addEventListener("click", () => {
  api.useKey("");
  at("key-dialog").close();
  enter();
});
at("key-form").addEventListener("submit", () => {
  api.useKey(at("key").value.trim());
  show(at("alert"), false);
  if (token) viewing.join();
  else enter();
});
at("keep").addEventListener("click", keep);
at("share").addEventListener("click", share);
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT|BUTTON|SUMMARY)$/.test(event.target.tagName) || at("key-dialog").open || at("film-dialog").open;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === at("prompt")) at("prompt").blur();
  if (typing) return;
  if (event.key === "/") composer.focus();
  else if (event.key === " ") stage.toggle();
  else if (event.key === "f") stage.full();
  else return;
  event.preventDefault();
});

stage.update(viewing.state, false);
if (token) {
  document.body.dataset.watching = "";
  viewing.join();
} else {
  enter();
  composer.focus();
}
