// Values by name, as the worker has them: names say their units, so numbers are not converted.

import { make } from "./dom.js";
import { plain } from "./format.js";

function valueRow(name, value) {
  const isMissing = value === null;
  return make(
    "tr", { class: isMissing ? "missing" : undefined },
    make("th", { scope: "row", class: "code" }, name),
    make("td", { class: "number" }, isMissing ? "missing" : plain(value)),
  );
}

export function valueTable(values) {
  const rows = Object.entries(values).map(([name, value]) => valueRow(name, value));
  return make("table", { class: "values" }, make("tbody", {}, ...rows));
}
