// The page: it selects the view, reads it again at intervals, and handles keys and buttons.

import { WINDOWS, anomalyView, loadAnomaly } from "./anomaly.js";
import { Problem, change, forget, read, tryRead } from "./api.js";
import { bucketAt, bucketText } from "./chart.js";
import { askToMark, askToUnmark, showHelp, tokenForm } from "./dialogs.js";
import { byId, h, show } from "./dom.js";
import { clockTime, plural, timeAt } from "./format.js";
import { FEW_NAMESPACES, MANY_NAMESPACES, listView, loadList, titleOf } from "./list.js";
import { button, nameOf, problemBox } from "./parts.js";

/** Time between two reads; after failures it doubles up to the maximum. */
const POLL_MS = 10_000;
const MAX_POLL_MS = 60_000;
/** Time after the last letter until a search begins, and time for which a message is shown. */
const TYPING_MS = 250;
const NEWS_MS = 6000;

/** The width of a chart on A4 and Letter. */
const PAPER_WIDTH = 660;

/** The name under which the browser remembers that single keys do nothing. */
const KEYS_OFF = "anomaly-counter.keys-off";

const main = byId("main");
const input = byId("search").querySelector("input") ?? h("input");

/** The state from which everything is shown. @type {import("./types").State} */
const state = {
  session: null, ready: null, list: null, anomaly: null, problem: null, refusal: null,
  needsToken: false, failures: 0, namespaces: FEW_NAMESPACES, back: "./", scroll: null,
};

const params = () => new URLSearchParams(location.search);
const shownKey = () => params().get("anomaly");
const shownWindow = () => params().get("window") ?? WINDOWS[1];
const isOpen = () => state.session?.open ?? true;
const canOperate = () => state.session?.scopes.includes("operate") ?? false;

/** The data of the view that the address names, if they were read. */
function current() {
  const known = shownKey() ? state.anomaly : state.list;
  return known?.query === location.search ? known : null;
}

// Reading.

let timer = 0;
let turn = 0;
let isPrinting = false;

/** Reads the data of the view, shows them, and schedules the next read. */
async function refresh() {
  clearTimeout(timer);
  const own = ++turn;
  const query = location.search;
  const key = shownKey();
  main.setAttribute("aria-busy", String(!current()));
  const ready = tryRead("readyz");
  try {
    state.session ??= (await read("session")).body;
    const found = key ? await loadAnomaly(key, shownWindow())
      : await loadList(params(), state.namespaces);
    if (own !== turn) return;
    Object.assign(state, {
      [key ? "anomaly" : "list"]: { query, ...found },
      problem: null, refusal: null, needsToken: false, failures: 0,
    });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (own !== turn) return;
    const needsToken = problem.status === 401;
    Object.assign(state, { problem, needsToken, failures: state.failures + 1 });
    if (needsToken) state.session = null;
  }
  const answer = await ready;
  if (own !== turn) return;
  state.ready = "ok" in answer ? answer.ok : null;
  render();
  // Nobody looks at a hidden page, and a form for a token has nothing to read.
  if (document.hidden || state.needsToken) return;
  timer = setTimeout(refresh, Math.min(MAX_POLL_MS, POLL_MS * 2 ** state.failures));
}

// Showing.

/**
 * True if the service refuses the view itself, and not for a temporary reason.
 * @param {Problem} problem
 */
const isVerdict = ({ status }) => status >= 400 && status < 500 && status !== 429;

function render() {
  renderHead();
  renderBar();
  const { problem } = state;
  const known = current();
  main.setAttribute("aria-busy", String(!known && !problem));
  if (state.needsToken) {
    // A form that is shown stays, because somebody may be typing.
    if (state.refusal || !document.getElementById("login")) show(main, tokenForm(state.refusal));
    main.querySelector("input")?.focus();
  } else if (problem && (!known || isVerdict(problem))) {
    show(main, h("div.empty", h("h1.unseen", "Problem"), problemBox(problem),
      h("p", h("a", { href: "./" }, "All anomalies"))));
  } else if (known) {
    renderView();
    const { data, at } = known;
    const { degraded, as_of } = "list" in data ? data.list : data.anomaly.frequency;
    byId("as-of").textContent = `as of ${clockTime(degraded && as_of ? new Date(as_of) : at)}`;
  } else return;
  if (state.scroll === null) return;
  window.scrollTo(0, state.scroll);
  state.scroll = null;
  // After a link, screen readers begin at the view; after "back", at the row that was left.
  const key = state.anomaly?.data.anomaly.anomaly_key;
  const left = main.querySelector(`tr[data-key="${key}"] a`);
  const target = left instanceof HTMLElement ? left : main;
  if (!state.needsToken) target.focus({ preventScroll: true });
}

function renderView() {
  if (shownKey() && state.anomaly) {
    const { data } = state.anomaly;
    document.title = `${nameOf(data.anomaly)} – anomaly-counter`;
    // The card has 49 or 33 pixels beside the picture on screens of these widths.
    const inside = main.clientWidth - (window.innerWidth > 640 ? 98 : 66);
    const here = Math.max(300, document.getElementById("picture")?.clientWidth ?? inside);
    const width = isPrinting ? PAPER_WIDTH : here;
    const options = { window: shownWindow(), back: state.back, width };
    show(main, anomalyView(data, { ...options, isOpen: isOpen(), canOperate: canOperate() }));
    point();
  } else if (state.list) {
    document.title = titleOf(state.list.data.levels);
    show(main, listView(params(), state.list.data, isOpen()));
  }
}

function renderHead() {
  const { ready, session } = state;
  const status = ready?.status ?? "unreachable";
  show(byId("state"), h(`span.state.${status}`, status));
  show(byId("account"), session && !session.open && h("details",
    h("summary", h("bdi", session.name)),
    h("div.menu", h("p", session.scopes.join(", ")),
      session.expires_at && h("p", "until ", timeAt(session.expires_at)),
      button("Log out", "logout"))));
}

/** Shows the faults of the service, in words. */
function renderBar() {
  const { ready, problem } = state;
  const lines = [];
  if (ready && ready.status !== "ready") {
    const { status, cause, degraded_since: since, spool } = ready;
    const store = ready.store === "redis" ? "Redis" : "The store";
    const isBack = status === "replaying";
    lines.push(h("p", store, isBack ? " is available again, and the waiting writes are applied." : [
      " is unavailable", since && [" since ", timeAt(since)], cause && ` (${cause})`,
      ". Counts are the last known ones plus the waiting writes, and may be too low.",
    ], spool.operations > 0 && ` Waiting: ${plural(spool.operations, "write")}.`,
    spool.usable === false && " The spool is not usable, so no more writes can wait."));
  }
  const known = current();
  if (problem && known && !state.needsToken) {
    lines.push(h("p", problem.message, ` The data is from ${clockTime(known.at)}. Retrying.`));
  }
  const bar = byId("bar");
  const wasEmpty = !bar.textContent;
  show(bar, lines);
  // Screen readers are informed when it begins and when it ends.
  if (wasEmpty && lines.length) say(bar.textContent ?? "", "unseen");
  if (!wasEmpty && !lines.length) say("The service is ready again.");
}

/**
 * Shows a message for a while, to screen readers too.
 * @param {string} text
 * @param {string} kind "unseen" if it is on the screen already
 */
function say(text, kind = "") {
  const news = byId("news");
  news.textContent = text;
  news.className = kind;
  setTimeout(() => news.textContent === text && news.replaceChildren(), NEWS_MS);
}

// Navigation.

/**
 * @param {string} href
 * @param {{replace?: boolean, keep?: boolean}} how `keep`: scrolling and focus are right
 */
function go(href, { replace, keep } = {}) {
  history.replaceState({ scroll: window.scrollY }, "");
  if (!shownKey()) state.back = location.search || "./";
  history[replace ? "replaceState" : "pushState"](null, "", href);
  arrive(keep ? null : 0);
}

/** @param {number | null} scroll */
function arrive(scroll) {
  Object.assign(state, { scroll, problem: null, failures: 0 });
  if (document.activeElement !== input) input.value = params().get("q") ?? "";
  if (current()) render();
  refresh();
}

/** @param {string} text */
function search(text) {
  const query = shownKey() ? new URLSearchParams() : params();
  query.delete("cursor");
  if (text) query.set("q", text);
  else query.delete("q");
  // A search adds no step to the browser's history, except if it leaves the view of an anomaly.
  go(query.size ? `?${query}` : "./", { replace: !shownKey(), keep: true });
}

let typing = 0;
input.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => search(input.value.trim()), TYPING_MS);
});

history.scrollRestoration = "manual";
addEventListener("popstate", ({ state: left }) => arrive(left?.scroll ?? 0));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else refresh();
});

// Buttons and links.

/** @param {Element} pressed */
async function copy({ previousElementSibling: source }) {
  if (!source) return;
  try {
    await navigator.clipboard.writeText(source.textContent ?? "");
  } catch {
    // Without TLS, browsers have only the older interface for copying.
    getSelection()?.selectAllChildren(source);
    document.execCommand("copy");
  }
  say("Copied.");
}

/** @returns {import("./types").Subject | null} */
function subject() {
  const anomaly = shownKey() && current() && state.anomaly?.data.anomaly;
  if (!anomaly) return null;
  /** @param {number} status */
  const done = (status) => {
    say(status === 202 ? "Accepted, waiting for the store." : "Done.");
    refresh();
  };
  const who = state.session?.name ?? null;
  return { key: anomaly.anomaly_key, name: nameOf(anomaly), who, isOpen: isOpen(), done };
}

/** @param {string | null} token null ends the session */
async function logIn(token) {
  try {
    await (token === null ? change("DELETE", "session") : change("POST", "session", { token }));
    forget();
    Object.assign(state, { session: null, list: null, anomaly: null, refusal: null });
    refresh();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (token === null) return say(problem.message);
    state.refusal = problem;
    render();
  }
}

const areKeysOn = () => localStorage.getItem(KEYS_OFF) === null;

/** @type {Record<string, (button: HTMLElement) => unknown>} */
const actions = {
  copy,
  help: () => showHelp(areKeysOn(), (areOn) =>
    (areOn ? localStorage.removeItem(KEYS_OFF) : localStorage.setItem(KEYS_OFF, "1"))),
  logout: () => logIn(null),
  mark: () => act(askToMark),
  unmark: () => act(askToUnmark),
  more: () => {
    state.namespaces = MANY_NAMESPACES;
    refresh();
  },
};

/** @param {(subject: import("./types").Subject) => void} how */
function act(how) {
  const about = subject();
  if (about && canOperate()) how(about);
}

document.addEventListener("click", (event) => {
  const { target } = event;
  if (!(target instanceof Element)) return;
  const menu = document.querySelector("#account details");
  if (!menu?.contains(target)) menu?.removeAttribute("open");
  const pressed = target.closest("[data-do]");
  if (pressed instanceof HTMLElement) actions[pressed.dataset.do ?? ""](pressed);
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = target.closest("a");
  const row = getSelection()?.isCollapsed ? target.closest("tr[data-href]") : null;
  const href = anchor ? anchor.getAttribute("href") : row?.getAttribute("data-href");
  if (!href || !/^(\?|\.\/$)/.test(href)) return;
  event.preventDefault();
  go(href, { keep: anchor?.matches(".chip, th a") });
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement)) return;
  event.preventDefault();
  if (form.id === "search") search(input.value.trim());
  if (form.id === "login") logIn(String(new FormData(form).get("token")).trim());
});

// The chart: the bucket under the pointer, and a new width.

let pointerX = 0;

function point() {
  const picture = main.querySelector(".chart:hover");
  const found = state.anomaly?.data.history;
  if (!picture || !found || "problem" in found) return;
  const offset = pointerX - picture.getBoundingClientRect().left;
  const index = bucketAt(picture, offset, found.ok);
  if (index < 0) return;
  byId("readout").textContent = bucketText(found.ok, index);
  picture.querySelector(".guide")?.setAttribute("transform", `translate(${Math.round(offset)})`);
}

document.addEventListener("pointermove", ({ clientX }) => {
  pointerX = clientX;
  point();
});

const redraw = () => shownKey() && current() && render();
new ResizeObserver(redraw).observe(main);
for (const event of ["beforeprint", "afterprint"]) {
  window.addEventListener(event, () => {
    isPrinting = event === "beforeprint";
    redraw();
  });
}

// Keys.

/** @param {number} by */
function step(by) {
  /** @type {NodeListOf<HTMLElement>} */
  const found = main.querySelectorAll("tr a.name");
  const links = [...found];
  const at = links.findIndex((link) => link === document.activeElement);
  const next = links[at < 0 && by < 0 ? links.length - 1 : at + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

/** @type {Record<string, () => unknown>} */
const keys = {
  "/": () => input.focus(),
  "?": () => actions.help(main),
  j: () => step(1),
  k: () => step(-1),
  u: () => shownKey() && go(state.back),
  f: () => act(askToMark),
};

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (key === "Escape" && target === input) input.blur();
  const isTaken = target instanceof Element && target.matches("input, textarea");
  if (isTaken || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!areKeysOn() || !keys[key] || document.querySelector("dialog")) return;
  event.preventDefault();
  keys[key]();
});

input.value = params().get("q") ?? "";
refresh();
