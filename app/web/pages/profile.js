// The look-up of one profile. The identifier goes into a request body, and out of the page once it is sent.

import { ask } from "./client.js";
import { byId, make } from "./dom.js";
import { words } from "./format.js";
import { valueTable } from "./values.js";

const PLACEHOLDER = { account: "12345678/0001-99887766", key: "CPF, CNPJ, +phone, e-mail or random key" };

/** A profile as tables: nested objects become tables of their own, under their name. */
function rendered(profile) {
  const isNested = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const entries = Object.entries(profile);
  const flat = Object.fromEntries(entries.filter(([, value]) => !isNested(value)));
  const nested = entries.filter(([, value]) => isNested(value));
  return make(
    "div", {}, valueTable(flat),
    ...nested.flatMap(([name, value]) => [make("h4", {}, words(name)), rendered(value)]),
  );
}

async function lookUp(event) {
  event.preventDefault();
  const [kind, input] = [byId("profile-kind").value, byId("profile-value")];
  const value = input.value.trim();
  const result = byId("profile-result");
  if (!value) {
    input.focus();
    return;
  }
  input.value = "";
  try {
    const found = await ask("/api/profile", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ kind, value }),
    });
    result.replaceChildren(make("h3", {}, `${words(found.kind)} ${found.value}`), rendered(found.profile));
  } catch (error) {
    result.replaceChildren(make("p", { class: "fault" }, error.message));
  }
}

export function startProfileForm() {
  byId("profile-form").addEventListener("submit", lookUp);
  byId("profile-kind").addEventListener("change", (event) => {
    byId("profile-value").placeholder = PLACEHOLDER[event.target.value];
  });
}
