// The table of recent decisions, and the panel that explains one of them.

import { byId, facts, make } from "./dom.js";
import { count, moment, money, plain, score, shorten, time, words } from "./format.js";
import { valueTable } from "./values.js";

const rowByKey = new Map();
let ruleById = new Map();
let selected = null;

const keyOf = ({ decision }) => `${decision.end_to_end_id} ${decision.source.partition} ${decision.source.offset}`;

export function setRules(rules) {
  ruleById = new Map(rules.map((rule) => [rule.id, rule]));
}

const wordsOf = (reason) => words(reason.code);

/** What the rule says of itself, or the feature of the payment; a rule that is gone is known by its reason code. */
const textOf = (view, reason) => (reason.rule ? ruleById.get(reason.rule)?.text : view.sentences[reason.feature]?.[0]);

const sentenceOf = (view, reason) => textOf(view, reason) || wordsOf(reason);

function originOf(reason) {
  if (reason.rule) return ["Rule ", make("code", {}, reason.rule), `, weight ${plain(reason.weight)}`];
  return ["Model, ", make("code", {}, reason.feature), `: ${Math.round(100 * reason.weight)} % of what spoke for fraud`];
}

function badge(action) {
  return make("span", { class: `badge ${action.toLowerCase()}` }, words(action));
}

function scoreBar(decision) {
  if (!decision.scored) return make("span", { class: "muted" }, "not scored");
  const fill = make("span", { class: `bar-fill ${decision.decision.toLowerCase()}` });
  fill.style.width = `${(100 * decision.score).toFixed(1)}%`;
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, fill);
  return make("span", { class: "score" }, bar, score(decision.score));
}

function reasonsInWords(decision) {
  if (!decision.scored) return "MED refund: always passes";
  if (decision.reasons.length === 0) return "–";
  const [first, ...rest] = decision.reasons.map(wordsOf);
  return rest.length ? `${first} (+${rest.length})` : first;
}

function decisionRow(view) {
  const { decision } = view;
  const clock = time(decision.event_time);
  const opener = make("button", {
    type: "button", class: "opener", "aria-controls": "detail", "aria-expanded": "false",
    "aria-label": `Decision of ${clock}, ${money(view.amount_centavos)}: details`,
  }, clock);
  const row = make(
    "tr", { class: decision.decision.toLowerCase() },
    make("td", {}, opener),
    make("td", { class: "number" }, money(view.amount_centavos)),
    make("td", {}, view.initiation),
    make("td", { class: "code", title: `${view.payer}, ISPB ${view.payer_ispb}` }, shorten(view.payer)),
    make("td", { class: "code", title: `${view.receiver}, ISPB ${view.receiver_ispb}` }, shorten(view.receiver)),
    make("td", {}, badge(decision.decision)),
    make("td", {}, scoreBar(decision)),
    make("td", { class: "reasons", title: decision.reasons.map((reason) => sentenceOf(view, reason)).join("\n") }, reasonsInWords(decision)),
  );
  row.addEventListener("click", () => openDetail(view, opener));
  return row;
}

/** Show the decisions, newest first. Rows that stay are left alone, so that the keyboard's focus stays in them. */
export function showDecisions(views) {
  const body = byId("decision-rows");
  const keys = new Set(views.map(keyOf));
  for (const [key, row] of rowByKey) {
    if (!keys.has(key)) {
      row.remove();
      rowByKey.delete(key);
    }
  }
  let next = body.firstChild;
  for (const view of views) {
    const key = keyOf(view);
    const known = rowByKey.get(key);
    if (known && known === next) {
      next = next.nextSibling;
      continue;
    }
    const row = known ?? decisionRow(view);
    rowByKey.set(key, row);
    body.insertBefore(row, next);
  }
  mark();
  byId("decisions-empty").hidden = views.length > 0;
}

function mark() {
  for (const [key, row] of rowByKey) {
    const isOpen = selected !== null && key === selected.key;
    row.classList.toggle("selected", isOpen);
    row.querySelector(".opener").setAttribute("aria-expanded", String(isOpen));
  }
}

function reasonList(view) {
  const { decision } = view;
  if (decision.reasons.length === 0) {
    const text = decision.scored ? "No rule fired, and no model saw a fraud." : "MED refunds always pass and are not scored.";
    return make("p", { class: "muted" }, text);
  }
  return make("ol", { class: "reason-list" }, ...decision.reasons.map((reason) => {
    const rule = ruleById.get(reason.rule);
    return make(
      "li", {},
      make("strong", {}, wordsOf(reason)),
      ...(textOf(view, reason) ? [make("p", {}, textOf(view, reason))] : []),
      make("p", { class: "muted" }, ...originOf(reason)),
      ...(rule?.regulation ? [make("p", { class: "muted" }, rule.regulation)] : []),
    );
  }));
}

function openDetail(view, opener) {
  const { decision } = view;
  const { versions } = decision;
  selected = { key: keyOf(view), opener };
  const close = make("button", { type: "button", class: "close" }, "Close");
  close.addEventListener("click", closeDetail);
  const panel = byId("detail");
  panel.replaceChildren(
    make(
      "div", { class: "card-head" },
      make("h2", { id: "detail-title" }, money(view.amount_centavos)), badge(decision.decision), close,
    ),
    make("p", { class: "code wrap" }, decision.end_to_end_id),
    make("h3", {}, "Why"), reasonList(view),
    make("h3", {}, "Facts"),
    facts([
      ["Score", decision.scored ? score(decision.score) : "not scored"],
      ...(decision.hold_minutes === null ? [] : [["Hold at most", `${decision.hold_minutes} min`]]),
      ["Payment", moment(decision.event_time)],
      ["Decided", moment(decision.decided_at)],
      ["Initiation", view.initiation],
      ["Payer", `${view.payer} at ${view.payer_ispb}`],
      ["Receiver", `${view.receiver} at ${view.receiver_ispb}`],
      ["Rules that fired", decision.rules.join(", ") || "none"],
      ["Source", `partition ${decision.source.partition}, offset ${count(decision.source.offset)}`],
    ], "facts compact"),
    make("h3", {}, "Versions"),
    facts([
      ["Rules", plain(versions.rules)], ["Lists", plain(versions.lists)], ["Features", plain(versions.features)],
      ["Online model", versions.online_model ?? "none"], ["Batch model", versions.batch_model ?? "none"],
    ], "facts compact"),
    make("h3", {}, `Feature values (${Object.keys(view.values).length})`), valueTable(view.values),
  );
  panel.hidden = false;
  byId("board").classList.add("open");
  mark();
  panel.focus();
}

export function closeDetail() {
  if (selected === null) return;
  const { opener } = selected;
  selected = null;
  byId("detail").hidden = true;
  byId("board").classList.remove("open");
  mark();
  if (opener.isConnected) opener.focus();
}
