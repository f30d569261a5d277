// Numbers, times and commands as people read them. Numbers and dates are in the reader's locale,
// times in the browser's zone, with UTC in the title.

import { h } from "./dom.js";

/** @param {Intl.DateTimeFormatOptions} options */
const dates = (options) => {
  const format = new Intl.DateTimeFormat(undefined, options);
  /** @param {Date} date */
  return (date) => format.format(date);
};

export const clockTime = dates({ timeStyle: "medium" });
export const hourMinute = dates({ hour: "2-digit", minute: "2-digit" });
export const weekday = dates({ weekday: "short", day: "numeric" });
export const dayMonth = dates({ day: "numeric", month: "short" });
const dayMonthYear = dates({ dateStyle: "medium" });

const numbers = new Intl.NumberFormat();

/** @param {number} value */
export const number = (value) => numbers.format(value);
/** @param {number} value */
export const percent = (value) => value.toLocaleString(undefined, { style: "percent" });

/**
 * A number with its noun: "1 occurrence", "2 occurrences".
 * @param {number} count
 * @param {string} noun
 */
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/**
 * The name of a window or a step: "24 h" of "24h".
 * @param {string} text
 */
export const spaced = (text) => text.replace(/\D+/, " $&");

/** The units, from the largest: seconds, and the name. @type {[number, string][]} */
const UNITS = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** @param {Date} date */
function ago(date) {
  const age = (Date.now() - date.getTime()) / 1000;
  if (age < 10) return "just now";
  const [unit, name] = UNITS.find(([seconds]) => age >= seconds) ?? [1, "s"];
  return `${number(Math.floor(age / unit))} ${name} ago`;
}

/**
 * A time in words: "15:02" if it is today, and otherwise "22 Nov, 15:02", with the year if it is
 * another one.
 * @param {Date} date
 */
export function moment(date) {
  const now = new Date();
  if (date.toDateString() === now.toDateString()) return hourMinute(date);
  const day = date.getFullYear() === now.getFullYear() ? dayMonth : dayMonthYear;
  return `${day(date)}, ${hourMinute(date)}`;
}

/**
 * @param {string} text
 * @param {(date: Date) => string} words
 */
function time(text, words) {
  const date = new Date(text);
  const title = `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return h("time", { datetime: text, title }, words(date));
}

/** @param {string} text */
export const timeAgo = (text) => time(text, ago);
/** @param {string} text */
export const timeAt = (text) => time(text, moment);

/** The words for what nobody knows. */
export const NOT_KNOWN = "Unknown while the store is unavailable.";

/** Stands for a value that is not known, and must not look like a zero. */
export const unknown = () => h("span.unknown", { title: NOT_KNOWN }, "–");

/**
 * A count of an anomaly; `exact` is false if it may be too high.
 * @param {number | null | undefined} value
 * @param {boolean} [exact]
 */
export function count(value, exact) {
  if (value === null || value === undefined) return unknown();
  const title = exact === false && "may be too high";
  return h(value ? "span" : "span.nil", { title }, title && "≈", number(value));
}

/**
 * A text, quoted as one word for a shell.
 * @param {string} text
 */
const quoted = (text) =>
  /^[\w./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/**
 * The curl command for a call of the page.
 * @param {string} method
 * @param {string} path
 * @param {boolean} isOpen no token is needed
 * @param {object} [body]
 */
export function curl(method, path, isOpen, body) {
  const words = ["curl"];
  if (/DELETE|PUT/.test(method)) words.push("-X", method);
  if (!isOpen) words.push('-H "Authorization: Bearer $TOKEN"');
  if (body) words.push("-H 'Content-Type: application/json' -d", quoted(JSON.stringify(body)));
  return [...words, quoted(new URL(path, document.baseURI).href)].join(" ");
}
