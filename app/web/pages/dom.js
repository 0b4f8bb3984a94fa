// Elements are made here and nowhere else, with text nodes only: no value from the network is ever read as HTML.

export const byId = (id) => document.getElementById(id);

/** Make an element: `make("td", {class: "number"}, "12")`; children are strings or nodes. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  element.append(...children);
  return element;
}

/** Set an element's text, touching the page only where it differs, so that screen readers are not told twice. */
export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** A list of terms and their values. */
export function facts(pairs, className = "facts") {
  const list = make("dl", { class: className });
  list.append(...factItems(pairs));
  return list;
}

export function factItems(pairs) {
  return pairs.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)));
}
