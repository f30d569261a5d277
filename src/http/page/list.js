// The list: filters, the table, and the text in its place if there is nothing to list. A view is a
// link: the page's query is the query of `GET /anomalies`.

import { read, tryRead } from "./api.js";
import { h } from "./dom.js";
import { count, curl, number, spaced, timeAgo } from "./format.js";
import {
  LEVELS, button, copyable, counts, firingNote, fixNote, level, nameOf, opening, placeOf, seen,
  sparkline,
} from "./parts.js";

/** @typedef {import("./types").Summary | null} MaybeSummary */

/** Filters of the first row of chips. One of them can be set at a time. */
const STATES = ["level", "firing", "regressed", "fixed"];

/** Parameters that are no filters. */
const OTHERS = ["sort", "order", "limit", "cursor", "series"];

/** The windows of "seen in". */
const WINDOWS = ["1h", "24h", "7d", "30d"];

/** Maximum number of namespaces in a filter. The service takes 16 values of all fields. */
const MAX_NAMESPACES = 12;

/** Maximum length of a value, in characters. Longer ones are filtered by their beginning. */
const MAX_VALUE = 256;

/** Number of namespaces that have a chip at first, and maximum number. */
export const FEW_NAMESPACES = 8;
export const MANY_NAMESPACES = 100;

/** The reasons why anomalies may be missing. */
const PARTIAL = {
  loading: "The service is still reading the store.",
  denied: "The store permits no listing: only anomalies that this instance has seen are known.",
  behind: "There are more anomalies than can be listed.",
};

/** Head, class, parameter of `sort`. @type {[string, string, string?][]} */
const COLUMNS = [
  ["Level", "lv"], ["Anomaly", "who"], ["Last 24 h", "bars"], ["1 h", "n", "count_1h"],
  ["24 h", "n.day", "count_24h"], ["7 d", "n", "count_7d"], ["30 d", "n", "count_30d"],
  ["Last", "last", "last_seen"], ["Repairs", "n"],
];

/**
 * A copy of the parameters without those of these names.
 * @param {URLSearchParams} params
 * @param {...string} names
 */
function without(params, ...names) {
  const copy = new URLSearchParams(params);
  for (const name of names) copy.delete(name);
  return copy;
}

/**
 * A copy with one parameter changed, from the first page on; null removes it.
 * @param {URLSearchParams} params
 * @param {string} name
 * @param {string | null} value
 */
function changed(params, name, value) {
  const copy = without(params, "cursor", name);
  if (value !== null) copy.set(name, value);
  return copy;
}

/** @param {URLSearchParams} params */
const link = (params) => (params.size ? `?${params}` : "./");

/**
 * Reads the data of the list. Each row of chips counts the anomalies that a click on it would list,
 * so each is counted without its own filter. A fault of the counts is ignored: chips without counts
 * are better than no list.
 * @param {URLSearchParams} params
 * @param {number} top the most namespaces
 * @returns {Promise<{data: import("./types").ListData, at: Date}>}
 */
export async function loadList(params, top) {
  const rows = new URLSearchParams(params);
  rows.set("series", "24h");
  const paths = [STATES, ["namespace"]].map((names) => {
    const filters = without(params, ...names, ...OTHERS);
    filters.set("by", "namespace");
    filters.set("top", String(top));
    return `summary?${filters}`;
  });
  const first = tryRead(paths[0]);
  const second = paths[1] === paths[0] ? first : tryRead(paths[1]);
  const { body, at } = await read(`anomalies?${rows}`);
  const [levels, namespaces] = (await Promise.all([first, second]))
    .map((found) => ("ok" in found ? found.ok : null));
  return { data: { list: body, levels, namespaces }, at };
}

/**
 * @param {import("./types").Child} label
 * @param {URLSearchParams} params its view
 * @param {boolean} isOn
 * @param {number | null} [matches]
 */
const chip = (label, params, isOn, matches) =>
  h("a.chip", { href: link(params), "aria-current": isOn && "true" },
    h("bdi", label), typeof matches === "number" && h("b", number(matches)));

/**
 * @param {string} name
 * @param {...import("./types").Child} chips
 */
const chips = (name, ...chips) => h("nav.chips", { "aria-label": name }, chips);

/**
 * @param {URLSearchParams} params
 * @param {MaybeSummary} summary
 */
function stateChips(params, summary) {
  const base = without(params, "cursor", ...STATES);
  /** @type {(label: string, matches?: number | null, name?: string, value?: string) => Element} */
  const one = (label, matches, name = label, value = "true") => {
    const isOn = params.getAll(name).includes(value);
    return chip(label, isOn ? base : changed(base, name, value), isOn, matches);
  };
  const isAll = STATES.every((name) => !params.has(name));
  return chips("Level", chip("all", base, isAll, summary?.anomalies),
    LEVELS.map((level) => one(level, summary?.levels[level], "level", level)),
    one("no level", summary?.levels.none, "level", "none"), one("firing", summary?.firing),
    one("regressed", summary?.regressed), one("fixed", summary?.fixed));
}

/**
 * A filter for exactly this value, byte for byte.
 * @param {string} value
 */
function exactly(value) {
  const isLong = value.length > MAX_VALUE;
  if (!isLong && !/[*?]/.test(value)) return value;
  const escaped = value.slice(0, isLong ? MAX_VALUE / 4 : MAX_VALUE).replaceAll(/[\\*?]/g, "\\$&");
  return isLong ? `${escaped}*` : escaped;
}

/**
 * @param {URLSearchParams} params
 * @param {MaybeSummary} summary
 */
function namespaceChips(params, summary) {
  const chosen = params.getAll("namespace");
  const facets = summary?.by.namespace ?? [];
  // The last entry is the rest, which may also be anomalies without a known namespace. "more…" asks
  // for the maximum number of namespaces; others are found by searching.
  const hasMore = facets.length === FEW_NAMESPACES + 1;
  /** Label and count of each filter. @type {Map<string, [string, number?]>} */
  const all = new Map();
  for (const { value, anomalies } of facets) {
    if (value !== null) all.set(exactly(value), [value, anomalies]);
  }
  for (const filter of chosen) if (!all.has(filter)) all.set(filter, [filter]);
  if (!all.size) return null;
  return chips("Namespace", h("span.label", "namespace"),
    [...all].map(([filter, [label, matches]]) => {
      const isOn = chosen.includes(filter);
      const kept = isOn ? chosen.filter((other) => other !== filter) : [...chosen, filter];
      const to = without(params, "cursor", "namespace");
      for (const other of kept.slice(-MAX_NAMESPACES)) to.append("namespace", other);
      return chip(label || h("i", "none"), to, isOn, matches);
    }),
    hasMore && button("more…", "more", { class: "plain" }));
}

/** @param {URLSearchParams} params */
const seenChips = (params) => chips("Seen in", h("span.label", "seen in"), WINDOWS.map((window) => {
  const isOn = params.get("last_seen_after") === window;
  return chip(spaced(window), changed(params, "last_seen_after", isOn ? null : window), isOn);
}));

/**
 * Filters of a link that no other chip shows, each as a chip that removes it.
 * @param {URLSearchParams} params
 */
function otherChips(params) {
  const others = [...without(params, ...STATES, ...OTHERS, "q", "namespace")]
    .filter(([name, value]) => name !== "last_seen_after" || !WINDOWS.includes(value));
  return others.length > 0 && chips("Other filters", h("span.label", "also"),
    others.map(([name, value]) =>
      chip(`${name}: ${value} ✕`, changed(params, name, null), true)));
}

/** @param {URLSearchParams} params */
function head(params) {
  const isAscending = params.get("order") === "asc";
  const cells = COLUMNS.map(([name, kind, sort]) => {
    const isSorted = sort === (params.get("sort") ?? "count_24h");
    // Only times can be sorted in the other direction too.
    const turned = isSorted && sort === "last_seen" && !isAscending ? "asc" : null;
    const order = isSorted && (isAscending ? "ascending" : "descending");
    const href = sort && link(changed(changed(params, "sort", sort), "order", turned));
    return h(`th.${kind}`, { role: "columnheader", scope: "col", "aria-sort": order },
      href ? h("a", { href }, name) : name);
  });
  return h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, cells));
}

/** @param {import("./types").Row} row */
function rowOf(row) {
  const { anomaly_key: key, frequency: found, firing } = row;
  const href = `?anomaly=${key}`;
  const cells = [
    level(found),
    [h("a.name", { href }, h("bdi", nameOf(row))), h("div.place", placeOf(row)),
      h("div.notes", firing && firingNote(firing, "firing since "), fixNote(row))],
    sparkline(row.series),
    ...counts(found).map(({ value }) => value),
    seen(found, "last_seen", timeAgo),
    count(found.auto_repair_count),
  ];
  return h("tr", { role: "row", "data-key": key, "data-href": href },
    cells.map((cell, index) => h(`td.${COLUMNS[index][1]}`, { role: "cell" }, cell)));
}

/**
 * A note with the reason, if anomalies may be missing.
 * @param {import("./types").List} list
 */
const partial = ({ complete, reason, loaded }) => !complete && h("p", PARTIAL[reason ?? "loading"],
  loaded !== undefined && ` ${number(loaded)} anomalies are known so far.`);

/**
 * @param {URLSearchParams} params
 * @param {import("./types").List} list
 */
function foot(params, list) {
  const { anomalies, total, total_exact, next_cursor: cursor } = list;
  const next = cursor && { href: link(changed(params, "cursor", cursor)), rel: "next" };
  const about = total_exact === false ? "about " : "";
  return h("div.foot",
    h("span", `${number(anomalies.length)} of ${about}${number(total)}`),
    params.has("cursor") && h("a.button", { href: link(without(params, "cursor")) }, "First page"),
    next && h("a.button", next, "Next page"),
    partial(list),
    list.ranking === "approximate" && h("span", "The order is approximate."));
}

/** @param {import("./types").List} list */
const noMatch = (list) => h("div.empty", h("h2", "No anomaly matches"), partial(list),
  h("p", "Remove a filter, or ", h("a", { href: "./" }, "show all"), "."));

/**
 * @param {import("./types").List} list
 * @param {boolean} isOpen
 */
function nothing(list, isOpen) {
  if (!list.complete) return h("div.empty", h("h2", "No anomaly is known yet"), partial(list));
  const first = { alert_name: "HighCPU", service: "api", namespace: "shop" };
  return h("div.empty", h("h2", "Nothing has been counted yet"),
    h("p", "This records a first occurrence. Send it three times, and the anomaly reaches REPEAT:"),
    copyable(curl("POST", "anomalies", isOpen, first)),
    h("p", "Alertmanager and Grafana send their alerts to this webhook:"),
    copyable(new URL("webhooks/alertmanager", document.baseURI).href));
}

/**
 * @param {URLSearchParams} params
 * @param {import("./types").ListData} data
 * @param {boolean} isOpen
 */
export function listView(params, { list, levels, namespaces }, isOpen) {
  const rows = list.anomalies.map(rowOf);
  const title = h("h1.unseen", "Anomalies");
  if (!rows.length && !without(params, ...OTHERS).size) return [title, nothing(list, isOpen)];
  const path = `anomalies${params.size ? link(params) : ""}`;
  return [
    title,
    h("div.filters", h("div.pair", stateChips(params, levels), seenChips(params)),
      namespaceChips(params, namespaces), otherChips(params)),
    rows.length === 0 ? noMatch(list) : [
      h("table.list", { role: "table", "aria-label": "Anomalies" },
        head(params), h("tbody", { role: "rowgroup" }, rows)),
      foot(params, list),
    ],
    opening("With curl", copyable(curl("GET", path, isOpen))),
  ];
}

/** @param {MaybeSummary} summary */
export function titleOf(summary) {
  const worst = summary?.levels.PERMANENT_FIX;
  return `${worst ? `${number(worst)} at PERMANENT_FIX – ` : ""}anomaly-counter`;
}
