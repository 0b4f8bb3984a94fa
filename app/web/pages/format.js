// How values read: amounts as Brazilians write them, times in Brasília, codes as words.

const ZONE = "America/Sao_Paulo";
const MONEY = new Intl.NumberFormat("pt-BR", { style: "currency", currency: "BRL" });
const COUNT = new Intl.NumberFormat("en-US");
const RATE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const VALUE = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 7 });
const TIME = new Intl.DateTimeFormat("pt-BR", {
  timeZone: ZONE, hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});
const MOMENT = new Intl.DateTimeFormat("pt-BR", { timeZone: ZONE, dateStyle: "short", timeStyle: "medium" });

export const money = (centavos) => MONEY.format(centavos / 100);
export const count = (number) => COUNT.format(number);
export const rate = (number) => (number < 100 ? RATE.format(number) : COUNT.format(Math.round(number)));
export const time = (epochMs) => TIME.format(epochMs);
export const moment = (epochMs) => MOMENT.format(epochMs);
export const share = (part, whole) => (whole > 0 ? `${(100 * part / whole).toFixed(2)} %` : "");
export const score = (number) => number.toFixed(3);
export const shorten = (text, kept = 10) => (text.length > kept + 1 ? `${text.slice(0, kept)}…` : text);

/** A code in words: `FIRST_PAIR_AT_NIGHT` reads "First pair at night". */
export function words(code) {
  const text = code.replaceAll(/[_-]+/g, " ").trim();
  const lower = text === text.toUpperCase() ? text.toLowerCase() : text;
  return lower.charAt(0).toUpperCase() + lower.slice(1);
}

/** Time that has passed, coarsely: "3 h 12 min". */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

/** Any value of a row or a profile as text. */
export function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return VALUE.format(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(plain).join(", ") || "–";
  if (typeof value === "object") return plain(Object.entries(value).map(([key, item]) => `${key} ${plain(item)}`));
  return String(value);
}
