// A page of rows that another module declares: columns are the rows' own names.

import { ask } from "./client.js";
import { byId, factItems, make, setText } from "./dom.js";
import { plain, words } from "./format.js";

const CLASS = {
  id: "code", name: "code", reason: "code", when: "code condition", expression: "code condition",
  text: "sentence", why: "sentence", regulation: "sentence", from: "code", until: "code",
};

let rows = [];

function cell(column, value) {
  const numeric = typeof value === "number";
  return make("td", { class: numeric ? "number" : CLASS[column] }, plain(value));
}

function show() {
  const sought = byId("find").value.trim().toLowerCase();
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const found = rows.filter((row) => !sought || plain(Object.values(row)).toLowerCase().includes(sought));
  byId("catalog-head").replaceChildren(
    make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, words(column)))),
  );
  byId("catalog-rows").replaceChildren(
    ...found.map((row) => make("tr", {}, ...columns.map((column) => cell(column, row[column])))),
  );
  byId("catalog-empty").hidden = found.length > 0;
  setText("count", found.length === rows.length ? `${rows.length}` : `${found.length} of ${rows.length}`);
}

async function load() {
  try {
    const { rows: found, ...about } = await ask(document.body.dataset.source);
    rows = found;
    const pairs = Object.entries(about).map(([key, value]) => [words(key), plain(value)]);
    byId("about").replaceChildren(...factItems(pairs));
    show();
  } catch (error) {
    byId("outage").hidden = false;
    setText("outage", `The worker did not answer: ${error.message}. Load this page again to retry.`);
  }
}

byId("find").addEventListener("input", show);
load();
