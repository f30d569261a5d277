// Creates elements, and updates the view on the screen to its next version. All text becomes text
// nodes: names of alerts are hostile input, and the page's policy refuses HTML made of text.

/** @typedef {import("./types").Child} Child */
/** @typedef {import("./types").Attributes} Attributes */

/**
 * @template {Element} E
 * @param {E} element
 * @param {string[]} classes
 * @param {(Child | Attributes)[]} parts
 */
function filled(element, classes, parts) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const part of parts) {
    if (Array.isArray(part)) filled(element, [], part);
    else if (part instanceof Node) element.append(part);
    else if (part && typeof part === "object") {
      for (const [name, value] of Object.entries(part)) {
        const text = value === true ? "" : String(value);
        if ((value ?? false) !== false) element.setAttribute(name, text);
      }
    } else if ((part ?? false) !== false) element.append(String(part));
  }
  return element;
}

/**
 * An HTML element by its tag and classes ("td.n.day"), with attributes and children.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T | `${T}.${string}`} name
 * @param {...(Child | Attributes)} parts
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(name, ...parts) {
  /** @type {any} */
  const [tag, ...classes] = name.split(".");
  return filled(document.createElement(tag), classes, parts);
}

/**
 * An SVG element by its tag and classes, with attributes and children.
 * @param {string} name
 * @param {...(Child | Attributes)} parts
 */
export function s(name, ...parts) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, parts);
}

/** @param {Node} node */
const keyOf = (node) => (node instanceof Element ? node.getAttribute("data-key") : null);

/**
 * Makes `old` equal to `fresh` with as few changes as possible, so that a refresh keeps focus,
 * selection, scroll position and opened parts.
 * @param {ChildNode} old
 * @param {ChildNode} fresh
 */
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName) old.replaceWith(fresh);
  else if (!(old instanceof Element && fresh instanceof Element)) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
  } else {
    // Parts that the reader has opened stay open.
    const names = new Set([...old.getAttributeNames(), ...fresh.getAttributeNames()]);
    if (old.tagName === "DETAILS") names.delete("open");
    for (const name of names) {
      const value = fresh.getAttribute(name);
      if (value === null) old.removeAttribute(name);
      else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morphChildren(old, fresh);
  }
}

/**
 * @param {Element} old
 * @param {Element} fresh
 */
function morphChildren(old, fresh) {
  const keyed = new Map([...old.childNodes].map((child) => [keyOf(child), child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const match = key ? keyed.get(key) : at && !keyOf(at) ? at : null;
    if (!match) {
      old.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/**
 * Shows `children` in place of the present content of `target`.
 * @param {Element} target
 * @param {...Child} children
 */
export function show(target, ...children) {
  const focused = document.activeElement;
  morphChildren(target, h("div", children));
  // An element that was moved has lost the focus.
  if (focused instanceof HTMLElement && focused.isConnected && document.activeElement !== focused) {
    focused.focus({ preventScroll: true });
  }
}

/**
 * The element with an id of index.html.
 * @param {string} id
 */
export const byId = (id) => document.getElementById(id) ?? document.body;
