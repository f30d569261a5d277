// Dialogs over the page: to mark a fix, to remove the mark, and the help for the keyboard. Also the
// form for a token, which replaces the page.

import { change, Problem } from "./api.js";
import { byId, h } from "./dom.js";
import { curl } from "./format.js";
import { copyable, opening, problemBox } from "./parts.js";

/** @typedef {import("./types").Child} Child */

/** Maximum length of a text of a mark. */
const MAX_TEXT = 4000;

/**
 * Opens a dialog, which a click outside closes.
 * @param {string} title
 * @param {...Child} content
 */
function open(title, ...content) {
  const dialog = h("dialog", { "aria-label": title }, h("h2", title), content);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", ({ target }) => {
    const isCancel = target instanceof Element && target.matches(".cancel");
    if (target === dialog || isCancel) dialog.close();
  });
  byId("dialogs").replaceChildren(dialog);
  dialog.showModal();
}

/** @param {string} text */
const cancel = (text) => h("button.cancel", { type: "button" }, text);

/**
 * @param {string} label
 * @param {HTMLElement} control
 */
const field = (label, control) => h("label.field", label, control);

/**
 * A form that makes one call. If the call fails, it stays open and shows the problem.
 * @param {string} title
 * @param {string} name of the anomaly
 * @param {[string, string, object?]} call method, path, and members of the body
 * @param {import("./types").Subject} subject
 * @param {object} example the body of the command
 * @param {...Child} fields
 */
function ask(title, name, [method, path, members], { isOpen, done }, example, ...fields) {
  const trouble = h("div", { role: "alert" });
  const go = h("button.primary", title);
  const form = h("form", h("strong", h("bdi", name)), fields, trouble,
    h("div.buttons", go, cancel("Cancel")),
    opening("With curl", copyable(curl(method, path, isOpen, example))));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    // A required text of blanks is missing too. The browser says so at its field.
    for (const text of form.querySelectorAll("textarea")) text.value = text.value.trim();
    if (!form.reportValidity()) return;
    const values = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()]);
    const body = { ...members, ...Object.fromEntries(values.filter(([, value]) => value)) };
    go.disabled = true;
    try {
      const status = await change(method, path, body);
      form.closest("dialog")?.close();
      done(status);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      trouble.replaceChildren(problemBox(problem));
    }
    go.disabled = false;
  });
  open(title, form);
}

/** @param {import("./types").Subject} subject */
export function askToMark(subject) {
  const { key: anomaly_key, name, who } = subject;
  ask("Mark as fixed", name, ["PUT", "permanent-fix", { anomaly_key }], subject,
    { anomaly_key, fix_description: "raised the limit" },
    h("p", "The mark is valid for 90 days. If the anomaly occurs again, that is a regression."),
    field("Description of the fix", h("textarea",
      { name: "fix_description", rows: 4, required: true, maxlength: MAX_TEXT, dir: "auto" })),
    field("Who fixed it (optional)", h("input", { name: "fixed_by", value: who, maxlength: 200 })));
}

/** @param {import("./types").Subject} subject */
export function askToUnmark(subject) {
  const { key, name } = subject;
  const reason = "it came back under load";
  ask("Remove the mark", name, ["DELETE", `permanent-fix/${key}`], subject, { reason },
    h("p", "After that, an occurrence is not a regression."),
    field("Why (optional)", h("input", { name: "reason", maxlength: MAX_TEXT, dir: "auto" })));
}

const KEYS = [
  ["/", "search"], ["j", "next row"], ["k", "previous row"], ["Enter", "open the row"],
  ["u", "back to the list"], ["f", "mark as fixed"], ["?", "this help"],
];

/**
 * @param {boolean} areOn
 * @param {(areOn: boolean) => void} set
 */
export function showHelp(areOn, set) {
  const box = h("input", { type: "checkbox", checked: areOn });
  box.addEventListener("change", () => set(box.checked));
  const rows = KEYS.map(([key, words]) => h("div", h("dt", h("kbd", key)), h("dd", words)));
  open("Keyboard", h("dl.keys", rows), h("label", box, " Enable single-key shortcuts"),
    h("div.buttons", cancel("Close")));
}

/**
 * @param {Problem | null} refusal
 */
export const tokenForm = (refusal) => h("form.login", { id: "login" },
  h("h1", "A token is required"),
  h("p", "It is stored in a cookie, which scripts can't read, until you log out."),
  // Where others on the network could read the token.
  !window.isSecureContext
    && h("p.problem", "Over plain HTTP, anyone who reads the network traffic can read the token."),
  field("Token", h("input",
    { name: "token", type: "password", required: true, autocomplete: "current-password" })),
  h("div", { role: "alert" }, refusal && problemBox(refusal)),
  h("div.buttons", h("button.primary", "Log in")),
  h("p.quiet", "An operator of the service creates one:"),
  copyable("anomaly-counter token new --name ana --scope read --scope operate"),
  h("p.quiet", "With curl, send it in a header:"),
  copyable(curl("GET", "anomalies", false)));
