// The history of an anomaly as one picture, on one axis of time: occurrences as bars; the count of
// 24 hours, which decides the level, over the bands of the levels; repairs; marks.

import { h, s } from "./dom.js";
import { dayMonth, hourMinute, moment, number, plural, weekday } from "./format.js";

/** @typedef {import("./types").History} History */
/** @typedef {import("./types").Level} Level */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** The upper and lower ends of the lanes, from the top, in pixels. */
const BARS_TOP = 34;
const BARS_END = 98;
const COUNT_TOP = 124;
const COUNT_END = 256;
const REPAIRS = 274;
const LANES_END = 286;
const HEIGHT = 310;

/** Minimum distance between two lines of text. */
const LINE = 14;

const CROSS = "M-4-4 4 4M4-4-4 4";
const CIRCLE = "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0";

/**
 * The number of occurrences in 24 hours at which each level begins, from the lowest. Conditions of
 * other windows, and those with several terms, have no line in this picture.
 * @param {History} history
 */
export function bandsOf({ bands }) {
  /** @type {Map<Level, number>} */
  const starts = new Map();
  const others = [];
  for (const { level, condition } of bands) {
    const found = /^(\d+) in (24h|1d|1440m)$/.exec(condition);
    if (found) starts.set(level, Math.min(Number(found[1]), starts.get(level) ?? Infinity));
    else others.push(`${level} at ${condition} (not drawn)`);
  }
  return { starts: [...starts].sort((one, other) => one[1] - other[1]), others };
}

/**
 * A name, isolated from the direction of the text around it.
 * @param {string} name
 */
const isolated = (name) => `\u2068${name}\u2069`;

/**
 * Marks, removals, and the first occurrence after each mark.
 * @param {History} history
 * @param {string | null} regressed the newest occurrence, if it is later than the newest mark
 */
function marksOf({ events, buckets }, regressed) {
  /** @type {{at: number, kind: string, text: string}[]} */
  const marks = [];
  const changes = events.filter(({ event }) => event.endsWith("marked_fixed"))
    .map(({ at, event, by }) => ({ at: Date.parse(at), isMark: event === "marked_fixed", by }))
    .sort((one, other) => one.at - other.at);
  changes.forEach(({ at, isMark, by }, index) => {
    const until = changes[index + 1]?.at ?? Infinity;
    const last = until === Infinity && regressed ? Date.parse(regressed) : 0;
    const text = isMark ? `fixed${by ? ` by ${isolated(by)}` : ""}` : "mark removed";
    marks.push({ at, kind: isMark ? "fixed" : "off", text });
    // The bucket in which the mark lies may have its occurrences before the mark.
    const back = isMark && buckets.map(({ start, count }) => (count ? Date.parse(start) : 0))
      .find((start) => start >= at && start < until) || last;
    if (back) marks.push({ at: back, kind: "back", text: "came back" });
  });
  return marks;
}

/** @param {History} history */
const repairsOf = ({ events }) => events.filter(({ event }) => event === "repair_attempted")
  .map(({ at, action, success }) => ({
    at: Date.parse(at), success,
    text: `${isolated(action ?? "")} ${success ? "worked" : "failed"}`,
  }));

/**
 * The times at which the axis is labelled.
 * @param {number} from
 * @param {number} to
 * @param {number} width
 */
function ticks(from, to, width) {
  const isHours = to - from <= 1.5 * DAY;
  const at = new Date(from);
  if (isHours) at.setMinutes(0, 0, 0);
  else at.setHours(0, 0, 0, 0);
  const every = isHours ? (width < 500 ? 6 : 3) : Math.ceil(58 / (width / ((to - from) / DAY)));
  const words = isHours ? hourMinute : every > 1 ? dayMonth : weekday;
  const found = [];
  for (let day = 0; at.getTime() <= to; day += 1) {
    const isShown = isHours ? at.getHours() % every === 0 : day % every === 0;
    if (isShown && at.getTime() >= from) found.push({ at: at.getTime(), text: words(at) });
    // A day has 23 or 25 hours when clocks change.
    if (isHours) at.setTime(at.getTime() + HOUR);
    else at.setDate(at.getDate() + 1);
  }
  return found;
}

/**
 * The text about one bucket.
 * @param {History} history
 * @param {number} index
 */
export function bucketText({ buckets, step_seconds }, index) {
  const { start, count, count_24h: day, exact } = buckets[index];
  const end = new Date(Date.parse(start) + step_seconds * 1000);
  const until = step_seconds * 1000 < DAY ? hourMinute(end) : moment(end);
  const about = exact === false ? "about " : "";
  return `${moment(new Date(start))} – ${until}: ${about}${plural(count, "occurrence")}, `
    + (day === null ? "in 24 h unknown" : `${number(day)} in 24 h`);
}

/**
 * The width of a bucket for use after "per": "15 min", "h", "6 h".
 * @param {History} history
 */
export function stepName({ step_seconds: seconds }) {
  const [unit, name] = seconds >= 86_400 ? [86_400, "d"]
    : seconds >= 3600 ? [3600, "h"] : [60, "min"];
  return seconds === unit ? name : `${seconds / unit} ${name}`;
}

/**
 * @param {History} history
 * @param {string | null} regressed
 * @param {number} width
 */
export function chart(history, regressed, width) {
  const { buckets, step_seconds, to: end, total } = history;
  const isNarrow = width < 560;
  const left = isNarrow ? 30 : 92;
  const right = width - (isNarrow ? 40 : 152);
  const step = step_seconds * 1000;
  const from = Date.parse(buckets[0].start);
  const to = Math.max(Date.parse(end), from + 1);

  /** @param {number} value */
  const round = (value) => Math.round(value * 10) / 10;
  /** @param {number} time */
  const x = (time) =>
    round(left + (Math.min(Math.max(time, from), to) - from) / (to - from) * (right - left));
  /** @type {SVGElement[]} */
  const parts = [];
  /** @type {(kind: string, d: string) => unknown} */
  const path = (kind, d) => parts.push(s(`path.${kind}`, { d }));
  /** @type {(kind: string, at: number, y: number, text: string, anchor?: string) => unknown} */
  const words = (kind, at, y, text, anchor) =>
    parts.push(s(`text.${kind}`, { x: at, y, "text-anchor": anchor }, text));
  /** @type {(at: number, value: number) => unknown} */
  const scale = (at, value) => words("axis", left - 8, at, number(value), "end");
  /** @type {(kind: string, at: number, wide: number, top: number, bottom: number) => unknown} */
  const box = (kind, at, wide, top, bottom) => parts.push(s(`rect.${kind}`,
    { x: at, y: round(top), width: round(wide), height: round(bottom - top) }));

  for (const { at, text } of ticks(from, to, right - left)) {
    path("grid", `M${x(at)} ${BARS_TOP}V${LANES_END}`);
    words("axis", x(at), HEIGHT - 6, text, "middle");
  }

  // Occurrences.
  const most = Math.max(...buckets.map(({ count }) => count));
  /** @param {number} count */
  const barTop = (count) =>
    BARS_END - count / Math.max(most, 3) * (BARS_END - BARS_TOP);
  for (const { start, count, exact } of buckets) {
    const at = x(Date.parse(start));
    const wide = x(Date.parse(start) + step) - at;
    const kind = exact === false ? "bar.about" : "bar";
    if (count) box(kind, at, Math.max(1.5, wide - 1), barTop(count), BARS_END);
  }
  path("base", `M${left} ${BARS_END}H${right}`);
  if (most) scale(barTop(most) + 9, most);
  scale(BARS_END, 0);

  // The count of 24 hours over the bands. By the square root, so that the levels stay visible
  // beside high counts.
  const { starts } = bandsOf(history);
  const peak = Math.max(...buckets.map((bucket) => bucket.count_24h ?? 0));
  const highest = Math.max(1, peak, ...starts.map(([, start]) => start * 1.3));
  /** @param {number} count */
  const y = (count) =>
    round(COUNT_END - Math.sqrt(count / highest) * (COUNT_END - COUNT_TOP));
  let above = COUNT_END + LINE;
  starts.forEach(([level, start], index) => {
    const next = starts[index + 1];
    box(`band.${level}`, left, right - left, next ? y(next[1]) : COUNT_TOP, y(start));
    path(`edge.${level}`, `M${left} ${y(start)}H${right}`);
    above = Math.min(y(start) + 4, above - LINE);
    const name = isNarrow ? "" : `${level} `;
    words(`band-name.${level}`, right + 8, above, `${name}≥ ${number(start)}`);
  });
  path("base", `M${left} ${COUNT_END}H${right}`);
  // Unknown counts, which are at the beginning, are left out.
  path("line", buckets.map(({ start, count_24h: day }) =>
    (day === null ? "" : `L${x(Date.parse(start) + step)} ${y(day)}`)).join("").replace("L", "M"));
  if (peak) scale(y(peak) + 4, peak);
  scale(COUNT_END + 4, 0);

  // Each outcome has its own shape, not only a colour.
  for (const { at, success, text } of repairsOf(history).filter(({ at }) => at >= from)) {
    parts.push(s(success ? "path.worked" : "path.failed",
      { d: success ? CIRCLE : CROSS, transform: `translate(${x(at)} ${REPAIRS})` },
      s("title", `${moment(new Date(at))}: ${text}`)));
  }

  // Marks cross all lanes. Their words are in two rows, so that neighbours do not meet.
  const ends = [0, 0];
  for (const { at, kind, text } of marksOf(history, regressed).filter(({ at }) => at >= from)) {
    const cut = text.slice(0, 50);
    const wide = cut.length * 7.5 + 12;
    const isFlipped = x(at) + wide > width;
    const begin = isFlipped ? x(at) - wide : x(at);
    const row = ends.findIndex((taken) => taken <= begin);
    path(`mark.${kind}`, `M${x(at)} ${row === 1 ? 19 : 4}V${LANES_END}`);
    if (row < 0) continue;
    ends[row] = begin + wide;
    const beside = x(at) + (isFlipped ? -5 : 5);
    words(`mark-name.${kind}`, beside, row ? 29 : 13, cut, isFlipped ? "end" : "start");
  }

  if (!isNarrow) {
    words("lane", 0, (BARS_TOP + BARS_END) / 2 + 4, `per ${stepName(history)}`);
    words("lane", 0, (COUNT_TOP + COUNT_END) / 2 + 4, "in 24 h");
    words("lane", 0, REPAIRS + 4, "repairs");
  }
  path("guide", `M0 ${BARS_TOP}V${LANES_END}`);
  const label = `${plural(total, "occurrence")}, and the count of 24 hours over the levels. `
    + "The table below has the same data.";
  // It gets narrower where there is less room, as on small paper.
  const viewBox = `0 0 ${width} ${HEIGHT}`;
  const size = { width, height: HEIGHT, viewBox, "data-left": left, "data-right": right };
  return s("svg.chart", { ...size, role: "img", "aria-label": label }, parts);
}

/**
 * The bucket at a distance from the left of the picture; -1 outside of all buckets.
 * @param {Element} picture
 * @param {number} offset
 * @param {History} history
 */
export function bucketAt(picture, offset, { buckets, to, step_seconds }) {
  const left = Number(picture.getAttribute("data-left"));
  const right = Number(picture.getAttribute("data-right"));
  const from = Date.parse(buckets[0].start);
  const time = (offset - left) / (right - left) * (Date.parse(to) - from);
  const index = Math.floor(time / (step_seconds * 1000));
  return index < buckets.length ? Math.max(index, -1) : -1;
}

/**
 * The history as a table, the newest bucket first.
 * @param {History} history
 * @param {string | null} regressed
 */
export function chartTable(history, regressed) {
  const happened = [...marksOf(history, regressed), ...repairsOf(history)];
  const step = history.step_seconds * 1000;
  const rows = history.buckets.map(({ start, count, count_24h: day, exact }) => {
    const begin = Date.parse(start);
    const words = happened.filter(({ at }) => at >= begin && at < begin + step)
      .map(({ at, text }) => `${hourMinute(new Date(at))} ${text}`);
    return h("tr", h("td", moment(new Date(start))),
      h("td.n", exact === false && "≈", number(count)), h("td.n", day === null ? "–" : number(day)),
      h("td", words.join("; ")));
  });
  const head = [h("th", "From"), h("th.n", "Occurrences"), h("th.n", "In 24 h"), h("th", "Events")];
  return h("table.plain-table", { "aria-label": "History" },
    h("thead", h("tr", head)), h("tbody", rows.reverse()));
}
