// The view of one anomaly: its level with the reason, its history, its repairs, and its audit.

import { read, tryRead } from "./api.js";
import { bandsOf, chart, chartTable, stepName } from "./chart.js";
import { h } from "./dom.js";
import {
  NOT_KNOWN, curl, number, percent, plural, spaced, timeAgo, timeAt, unknown,
} from "./format.js";
import {
  button, copyButton, copyable, counts, firingNote, fixNote, level, nameOf, opening, placeOf,
  problemBox, seen,
} from "./parts.js";

/** @typedef {import("./types").AnomalyData} AnomalyData */
/** @typedef {import("./types").Child} Child */

export const WINDOWS = ["24h", "7d", "30d"];

/** Maximum number of actions for which advice is requested. An anomaly has one to three. */
const MAX_ADVICE = 10;

/**
 * @param {string} key
 * @param {string} action
 */
const advicePath = (key, action) => `anomalies/${key}/repairs/${encodeURIComponent(action)}`;

/**
 * @param {string} key
 * @param {string} window
 * @returns {Promise<{data: AnomalyData, at: Date}>}
 */
export async function loadAnomaly(key, window) {
  const path = `anomalies/${encodeURIComponent(key)}`;
  const history = tryRead(`${path}/history?window=${encodeURIComponent(window)}`);
  const audit = tryRead(`${path}/audit`);
  const { body: anomaly, at } = await read(path);
  /** @type {import("./types").Action[]} */
  const actions = (anomaly.repairs ?? []).slice(0, MAX_ADVICE);
  const advice = Promise.all(actions.map(({ action }) => tryRead(advicePath(key, action))));
  const data = { anomaly, history: await history, audit: await audit, advice: await advice };
  return { data, at };
}

/**
 * @param {string} title
 * @param {...Child} content
 */
const card = (title, ...content) => h("section.card", h("h2", title), content);

/**
 * @param {Child} name
 * @param {...Child} value
 */
const fact = (name, ...value) => h("div", h("dt", name), h("dd", value));

/**
 * The commands that read the content of a card, and do the same as its buttons.
 * @param {boolean} isOpen no token is needed
 * @param {[string, string, string, object?][]} lines name, method, path and body
 * @param {boolean} [isShown]
 */
const withCurl = (isOpen, lines, isShown) =>
  opening("With curl", h("dl.commands", lines.map(([name, method, path, body]) =>
    fact(name, copyable(curl(method, path, isOpen, body))))), isShown);

const notKnown = () => h("p.quiet", NOT_KNOWN);

/**
 * Content that scrolls by itself.
 * @param {string} label
 * @param {Child} content
 */
const scrolled = (label, content) =>
  h("div.scroll", { tabindex: 0, role: "region", "aria-label": label }, content);

/**
 * @param {AnomalyData} data
 * @param {string} back
 */
function head({ anomaly }, back) {
  const { frequency: found, anomaly_key: key, known_since, firing } = anomaly;
  const note = fixNote({ ...anomaly, fixed_at: anomaly.permanent_fix?.fixed_at });
  return [
    h("p", h("a", { href: back }, "← All anomalies")),
    h("div.title",
      h("div.who", h("h1", h("bdi", nameOf(anomaly))), h("div.place", placeOf(anomaly)),
        h("div", h("code", key), copyButton())),
      h("dl.counts", counts(found).map(({ name, value }) => fact(name, value)))),
    h("dl.facts",
      fact("Level", level(found)),
      found.rule && fact("Rule", h("bdi", found.rule)),
      fact("Firing", firing ? firingNote(firing, "since ")
        : found.degraded ? unknown() : "no known alert"),
      note && fact("Fix", note),
      fact("Last seen", seen(found, "last_seen", timeAgo)),
      fact("First seen", seen(found, "first_seen", timeAt)),
      known_since && known_since !== found.first_seen
        && fact("Known since", timeAt(known_since))),
  ];
}

/**
 * @param {AnomalyData} data
 * @param {import("./types").AnomalyOptions} options
 */
function picture({ anomaly, history }, { window, width, isOpen }) {
  const { anomaly_key: key, frequency: { regressed, last_seen } } = anomaly;
  const back = regressed ? last_seen ?? null : null;
  const choices = h("nav.chips", { "aria-label": "Window" }, WINDOWS.map((name) => {
    const href = `?anomaly=${key}&window=${name}`;
    return h("a.chip", { href, "aria-current": name === window && "true" }, spaced(name));
  }));
  /** @param {string} readout */
  const title = (readout) =>
    h("div.bar-head", h("h2", "History"), h("p", { id: "readout" }, readout), choices);
  if ("problem" in history) return h("section.card", title(""), problemBox(history.problem));
  const { ok } = history;
  const { starts, others } = bandsOf(ok);
  return h("section.card",
    title(`${plural(ok.total, "occurrence")} in ${spaced(window)}`),
    h("div", { id: "picture" }, chart(ok, back, width)),
    h("p.legend", h("span", `bars: occurrences per ${stepName(ok)}`),
      h("span", "line: count of 24 h, over the levels"),
      h("span.worked-key", "repair worked"), h("span.failed-key", "repair failed"),
      others.map((words) => h("span", words)),
      starts.length + others.length === 0 && h("span", "its rule has no levels")),
    opening("Show as a table", scrolled("History", chartTable(ok, back))),
    withCurl(isOpen, [["History", "GET", `anomalies/${key}/history?window=${window}`]]));
}

/**
 * @param {AnomalyData} data
 * @param {boolean} isOpen
 */
function repairs({ anomaly: { anomaly_key: key, repairs: actions }, advice }, isOpen) {
  if (!actions) return card("Repairs", notKnown());
  const rows = actions.map(({ action, total, success, success_rate: rate }, index) => {
    const answer = advice[index];
    const words = !answer || "problem" in answer ? unknown()
      : answer.ok.should_skip ? h("strong.bad", "do not try again") : h("span.good", "worth a try");
    return fact(h("bdi.action", action),
      `${number(success)} of ${number(total)} worked (${percent(rate)}): `, words);
  });
  return card("Repairs",
    rows.length ? h("dl.fields", rows) : h("p.quiet", "No repair attempts were reported."),
    withCurl(isOpen, [
      ["Attempts", "GET", `anomalies/${key}/repairs`],
      ["Worth a try?", "GET", advicePath(key, actions[0]?.action ?? "restart_pod")],
      ["Report one", "POST", "repairs",
        { anomaly_key: key, action: "restart_pod", success: true }],
    ]));
}

/**
 * @param {AnomalyData} data
 * @param {import("./types").AnomalyOptions} options
 */
function fix({ anomaly }, { isOpen, canOperate }) {
  const { anomaly_key: key, permanent_fix: mark, frequency } = anomaly;
  const isMarked = frequency.permanent_fix_applied;
  const isUnknown = typeof isMarked !== "boolean";
  return card("Permanent fix",
    isUnknown ? notKnown() : !isMarked && h("p.quiet", "The cause is not marked as fixed."),
    mark && [
      h("blockquote", { dir: "auto" }, mark.fix_description ?? "(no description)"),
      h("p", "Marked ", mark.fixed_by && ["by ", h("bdi", mark.fixed_by), ", "],
        timeAt(mark.fixed_at), ". It expires on ", timeAt(mark.expires_at), "."),
    ],
    frequency.regressed && h("p", h("strong.bad", "It came back after this fix.")),
    canOperate && h("div.buttons",
      button(isMarked ? "Mark again…" : "Mark as fixed…", "mark"),
      (isMarked || isUnknown) && button("Remove mark…", "unmark")),
    withCurl(isOpen, [
      ["Mark as fixed", "PUT", "permanent-fix",
        { anomaly_key: key, fix_description: "raised the limit" }],
      ["Remove the mark", "DELETE", `permanent-fix/${key}`],
    ], !canOperate));
}

/**
 * @param {import("./types").AuditEntry} entry
 * @returns {Child}
 */
function eventText({ event, fix_description, reason, action, success }) {
  if (event === "marked_fixed") return ["marked as fixed: ", h("bdi", fix_description)];
  if (event === "unmarked_fixed") return ["removed the mark", reason && [": ", h("bdi", reason)]];
  if (event !== "repair_attempted") return event;
  return ["tried ", h("bdi.action", action), success ? ", which worked" : ", which failed"];
}

/**
 * @param {AnomalyData} data
 * @param {boolean} isOpen
 */
function audit({ anomaly: { anomaly_key: key }, audit: found }, isOpen) {
  if ("problem" in found) return card("Who did what", problemBox(found.problem));
  const rows = found.ok.entries.map((entry) => {
    const { at, by, token, request_id: id } = entry;
    const title = [token && `token ${token}`, id && `request ${id}`].filter(Boolean).join(", ");
    return fact([timeAt(at), by && h("bdi", { title }, ` ${by}`)], eventText(entry));
  });
  return card("Who did what", rows.length ? scrolled("Who did what", h("dl.fields", rows))
    : h("p.quiet", "No entries yet."),
  withCurl(isOpen, [["Who did what", "GET", `anomalies/${key}/audit`]]));
}

/**
 * @param {AnomalyData} data
 * @param {boolean} isOpen
 */
function fields({ anomaly: { anomaly_key: key, signature, metadata } }, isOpen) {
  const rows = Object.entries({ ...signature, ...metadata }).map(([name, value]) => {
    const text = typeof value === "string" ? value || h("i", "empty")
      : h("pre", JSON.stringify(value, null, 2));
    return fact(h("bdi", name), h("bdi", text));
  });
  return card("All fields, as first posted",
    rows.length ? h("dl.fields", rows) : h("p.quiet", "They are unknown."),
    withCurl(isOpen, [["This anomaly", "GET", `anomalies/${key}`]]));
}

/**
 * @param {AnomalyData} data
 * @param {import("./types").AnomalyOptions} options
 */
export function anomalyView(data, options) {
  const { back, isOpen } = options;
  return [
    head(data, back), picture(data, options),
    h("div.cards", h("div", repairs(data, isOpen), fix(data, options)), audit(data, isOpen)),
    fields(data, isOpen),
  ];
}
