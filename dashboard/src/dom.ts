// Elements out of code. Text becomes text nodes and nothing else; there is no way here to
// make markup out of a string, and the browser is set to refuse any other.

import { plain } from "./text";

export type Child = Node | string | false | undefined;
type Value = string | number | boolean | undefined | ((event: Event) => void);
type Attributes = Record<string, Value>;

const SVG = "http://www.w3.org/2000/svg";

function fill(element: Element, attributes: Attributes, children: Child[]): void {
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  for (const child of children) {
    if (child === false || child === undefined) continue;
    element.append(typeof child === "string" ? plain(child) : child);
  }
}

/** Sets an attribute if it differs, takes it away for false, or listens. */
export function set(element: Element, name: string, value: Value): void {
  if (typeof value === "function") element.addEventListener(name, value);
  else if (value === false || value === undefined) element.removeAttribute(name);
  else {
    const text = value === true ? "" : plain(String(value));
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}

/** Writes text where it differs, so that what has not changed is neither drawn nor read out again. */
export function write(element: Element, text: string): void {
  const wanted = plain(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Puts the children in this order, moving only what has to move. */
export function order(parent: Element, children: Element[]): void {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
}
