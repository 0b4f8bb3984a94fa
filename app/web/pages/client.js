// Speaking with the worker: one request, and a poll that tells when the worker does not answer.

const TIMEOUT_MS = 4000;

/** What the worker answered to a request that it refused: its `error` says path, expected and got. */
export class Refusal extends Error {
  constructor(status, fault) {
    super(fault ? `${fault.path}: expected ${fault.expected}, got ${fault.got}` : `the worker answered ${status}`);
  }
}

export async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(response.status, body?.error);
  return body;
}

/**
 * Call `step` again and again, the next time `intervalMs` after it ended; a hidden page rests.
 * `onState(since)` gets null while all is well, else the time since when the worker does not answer.
 */
export function poll(step, intervalMs, onState) {
  let failingSince = null;
  async function turn() {
    if (!document.hidden) {
      try {
        await step();
        failingSince = null;
      } catch (error) {
        console.warn(error);
        failingSince ??= Date.now();
      }
      onState(failingSince);
    }
    setTimeout(turn, intervalMs);
  }
  turn();
}
