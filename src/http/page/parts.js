// Parts that several views show.

import { h, s } from "./dom.js";
import { count, plural, spaced, timeAgo, timeAt, unknown } from "./format.js";

/** @typedef {import("./types").Row} Row */

/** The levels, from the highest. @type {import("./types").Level[]} */
export const LEVELS = ["PERMANENT_FIX", "ESCALATE", "REPEAT"];

/**
 * The level and its reason. In an outage, counts that lack earlier occurrences lack the first one
 * too, and without a level the level is not known then.
 * @param {import("./types").Frequency} frequency
 */
export const level = ({ escalation_level: reached, degraded, first_seen, last_seen, because }) => [
  reached || !degraded || first_seen || !last_seen
    ? h(`span.level.${reached ?? "none"}`, reached ?? "no level") : unknown(),
  because && h("span.because", { title: because }, because),
];

/**
 * The name of an anomaly; its key if the fields are not known.
 * @param {Row} row
 */
export function nameOf({ signature: known, anomaly_key }) {
  return known?.alert_name || known?.error_type || known?.service || known?.namespace
    || anomaly_key;
}

/**
 * The other fields. Each has a direction of its own, so that none reorders its neighbours.
 * @param {Row} row
 */
export function placeOf(row) {
  const known = row.signature;
  if (!known) return h("span", "its fields are unknown");
  /** @type {(keyof import("./types").Signature)[]} */
  const fields = ["namespace", "service", "error_type"];
  return fields.filter((field) => known[field] && known[field] !== nameOf(row))
    .map((field, index) => [index > 0 && " · ", h("bdi", { title: field }, known[field])]);
}

/**
 * The time of the first or last occurrence; a dash if there is none, or if it is not known.
 * @param {import("./types").Frequency} frequency
 * @param {"first_seen" | "last_seen"} name
 * @param {(text: string) => Element} words
 */
export function seen(frequency, name, words) {
  const text = frequency[name];
  return text ? words(text) : frequency.degraded ? unknown() : "–";
}

/**
 * @param {import("./types").Firing} firing
 * @param {string} words
 */
export const firingNote = ({ since, episodes }, words) => h("span.note.firing", words,
  timeAt(since), episodes > 1 && `, ${plural(episodes, "alert")}`);

/** @param {Row} row */
export function fixNote({ frequency, fixed_at }) {
  if (frequency.regressed) return h("span.note.back", "came back after its fix");
  return frequency.permanent_fix_applied
    && h("span.note.fixed", "fixed ", fixed_at && timeAgo(fixed_at));
}

/**
 * Bars of a row's last 24 hours.
 * @param {number[] | null | undefined} series
 */
export function sparkline(series) {
  if (!series) return unknown();
  const height = 22;
  const width = series.length * 5 - 1;
  const most = Math.max(...series);
  const total = series.reduce((sum, count) => sum + count, 0);
  const label = `${plural(total, "occurrence")} in ${series.length} hours, at most ${most} in one`;
  const bars = series.map((count, index) => {
    // A single occurrence must not be a tall bar.
    const tall = count ? Math.max(2, Math.round(count / Math.max(4, most) * height)) : 1;
    return s(count ? "rect.bar" : "rect.zero",
      { x: index * 5, y: height - tall, width: 4, height: tall });
  });
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  return s("svg", { ...size, role: "img", "aria-label": label }, s("title", label), bars);
}

/**
 * A button that does one of the actions of main.js.
 * @param {string} label
 * @param {string} action
 * @param {import("./types").Attributes} [more]
 */
export const button = (label, action, more) =>
  h("button", { type: "button", "data-do": action, ...more }, label);

/** Copies the text of the element before it. */
export const copyButton = () => button("Copy", "copy", { class: "plain" });

/**
 * A line that can be copied.
 * @param {string} text
 */
export const copyable = (text) => h("div.command", h("code", { tabindex: 0 }, text), copyButton());

/**
 * Content that the reader can open.
 * @param {string} title
 * @param {import("./types").Child} content
 * @param {boolean} [isShown] at first
 */
export const opening = (title, content, isShown) =>
  h("details", { open: isShown }, h("summary", title), content);

/**
 * The counts of the four windows, each with its name.
 * @param {import("./types").Frequency} frequency
 */
export function counts(frequency) {
  /** @type {["1h", "24h", "7d", "30d"]} */
  const windows = ["1h", "24h", "7d", "30d"];
  return windows.map((window) =>
    ({ name: spaced(window), value: count(frequency[`count_${window}`], frequency.exact) }));
}

/**
 * The reason why there is no answer, in the service's own words.
 * @param {import("./api.js").Problem} problem
 */
export const problemBox = ({ status, title, message }) =>
  h(`div.problem${status === 503 ? ".passing" : ""}`, title && h("strong", title), h("p", message));
