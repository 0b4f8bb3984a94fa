// The live page: asks the worker once a second, and says so when it does not answer.

import { ask, poll } from "./client.js";
import { closeDetail, setRules, showDecisions } from "./decisions.js";
import { byId, factItems, make, setText } from "./dom.js";
import { count, duration, plain, rate, share } from "./format.js";
import { startProfileForm } from "./profile.js";

const POLL_MS = 1000;
const SAMPLES = 120;
const FIRST_SAMPLES = 30;
const SHOWN_DECISIONS = 40;
const ACTIONS = ["APPROVE", "HOLD", "DENY"];

const samples = [];
let rulesVersion = null;
let paused = false;

function showStatus(status) {
  document.title = `${status.name}: ${status.phase} - pixguard`;
  setText("worker-name", status.name);
  setText("phase", status.phase);
  byId("phase").dataset.phase = status.phase;
  byId("facts").replaceChildren(...factItems([
    ["Broker", status.broker], ["Application", status.app_id], ["Version", status.version],
    ["Rules", status.rules_version], ["Features", status.features_version],
    ["Lists", `version ${plain(status.lists_version)}`],
  ]));
  showRecovery(status.recovery);
  setText("transactions", count(status.transactions));
  setText("uptime", `up ${duration(Date.now() - status.started_at_ms)}`);
  setText("rejected", count(status.rejected));
  setText("repeats", count(status.repeats));
  const total = ACTIONS.reduce((sum, action) => sum + (status.decisions[action] ?? 0), 0);
  for (const action of ACTIONS) {
    setText(`count-${action}`, count(status.decisions[action] ?? 0));
    setText(`share-${action}`, share(status.decisions[action] ?? 0, total));
  }
  setText("rate", rate(status.transactions_per_s));
  samples.push(status.transactions_per_s);
  if (samples.length > SAMPLES) samples.shift();
  drawSparkline();
}

/** How far the worker has read its state back; nothing is decided before that is done. */
function showRecovery(recovery) {
  byId("recovery").hidden = !recovery;
  if (!recovery) return;
  const { rows, rows_read: read, percent, rows_per_s: speed } = recovery;
  setText("recovery-note", `${percent.toFixed(0)} %: ${count(read)} of ${count(rows)} rows, ${rate(speed)} rows/s`);
  byId("recovery-tables").replaceChildren(...recovery.tables.map((each) => {
    const partitions = each.partitions.join(", ");
    const bar = make("progress", { max: String(each.rows || 1), value: String(each.rows ? each.rows_read : 1) });
    return make(
      "label", { class: "recovering" }, make("span", {}, `${each.table}, partitions ${partitions}`), bar,
      make("span", { class: "number" }, `${count(each.rows_read)} of ${count(each.rows)}`),
    );
  }));
}

function drawSparkline() {
  const { width, height } = byId("sparkline").viewBox.baseVal;
  const top = Math.max(...samples, 1);
  // A young page draws its few samples wide, rather than as a sliver at the right edge.
  const steps = Math.max(samples.length, FIRST_SAMPLES) - 1;
  const x = (place) => width - (samples.length - 1 - place) * width / steps;
  const y = (value) => height - 2 - value / top * (height - 6);
  const line = samples.map((value, place) => `${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  byId("sparkline-line").setAttribute("d", `M${line}`);
  byId("sparkline-area").setAttribute("d", `M${x(0).toFixed(1)} ${height}L${line}L${width} ${height}Z`);
  setText("rate-note", `peak ${rate(Math.max(...samples))} in two minutes`);
}

function showPartitions(partitions) {
  byId("partitions-empty").hidden = partitions.length > 0;
  byId("partition-rows").replaceChildren(...partitions.map((each) => {
    const numbers = [
      each.profiles, each.remembered_ids, each.dirty_rows, each.checkpoints, each.recovered_rows,
    ].map((number) => make("td", { class: "number" }, count(number)));
    const offset = each.changelog_offset === null ? "–" : count(each.changelog_offset);
    const next = Object.entries(each.next_offset).map(([source, at]) => `${source} ${count(at)}`).join(", ");
    return make(
      "tr", {}, make("th", { scope: "row" }, each.table), make("td", { class: "number" }, count(each.partition)),
      make("td", {}, each.role), ...numbers,
      make("td", { class: "number" }, offset), make("td", { class: "code" }, next || "–"),
    );
  }));
}

async function refreshRules(version) {
  if (version !== rulesVersion) {
    setRules((await ask("/api/rules")).rows);
    rulesVersion = version;
  }
}

async function refreshDecisions() {
  const action = byId("filter").querySelector("input:checked").value;
  showDecisions(await ask(`/api/decisions?limit=${SHOWN_DECISIONS}${action ? `&action=${action}` : ""}`));
}

async function refresh() {
  const [status, partitions] = await Promise.all([ask("/api/status"), ask("/api/partitions")]);
  await refreshRules(status.rules_version);
  showStatus(status);
  showPartitions(partitions);
  if (!paused) await refreshDecisions();
}

function showOutage(since) {
  const outage = byId("outage");
  byId("live").classList.toggle("stale", since !== null);
  outage.hidden = since === null;
  if (since !== null) {
    const clock = new Date(since).toLocaleTimeString();
    setText("outage", `The worker has not answered since ${clock}. This is from before; asking again each second.`);
    setText("phase", "unreachable");
    byId("phase").dataset.phase = "unreachable";
  }
}

function togglePause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  setText("pause", paused ? "Resume" : "Pause");
}

byId("pause").addEventListener("click", togglePause);
byId("filter").addEventListener("change", () => refreshDecisions().catch(console.warn));
document.addEventListener("keydown", (event) => event.key === "Escape" && closeDetail());
startProfileForm();
poll(refresh, POLL_MS, showOutage);
