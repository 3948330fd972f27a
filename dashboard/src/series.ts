// The last half hour by minute, of some edges: what charts and small lines draw. Pure.

import { type Edge, type Graph, HISTORY } from "./api";
import { clock } from "./text";

const MINUTE = 60;

/** A value by minute; null where it is not known, or where nothing called. */
export type Values = (number | null)[];

export interface Series {
  /** Begins of the minutes, in seconds since 1970. */
  minutes: number[];
  requests: Values;
  failure: Values;
  /** Share that succeeded of those that were answered; cancelled requests do not count. */
  success: Values;
  /** In milliseconds, of the slowest edge. */
  p95: Values;
}

/** From which to which minute something is known, in seconds since 1970. */
export interface Span { first: number; last: number; from: number; to: number }

export function spanOf({ metadata, edges }: Graph): Span {
  const to = Date.parse(metadata.end) / 1000;
  const from = Math.ceil(to / MINUTE - HISTORY) * MINUTE;
  const since = Date.parse(metadata.historySince ?? "") / 1000;
  let [first, last] = [Infinity, -Infinity];
  for (const edge of edges) {
    for (const { start } of edge.history ?? []) {
      const at = Date.parse(start) / 1000;
      if (at < first) first = at;
      if (at > last) last = at;
    }
  }
  // Minutes that are known and of which no edge has any were without a call.
  first = since > from ? since : Math.min(first, from);
  return { first: Math.max(first, from), last, from, to };
}

export function series(edges: readonly Edge[], { first, last, from, to }: Span): Series {
  const sums = new Map<number, { requests: number; failure: number; cancelled: number; p95: number | null }>();
  for (const edge of edges) {
    for (const { start, requests, failure, cancelled = 0, p95 } of edge.history ?? []) {
      const at = Date.parse(start) / 1000;
      const sum = sums.get(at) ?? { requests: 0, failure: 0, cancelled: 0, p95: null };
      sums.set(at, {
        requests: sum.requests + requests,
        failure: sum.failure + failure,
        cancelled: sum.cancelled + cancelled,
        p95: p95 === undefined ? sum.p95 : Math.max(sum.p95 ?? 0, p95),
      });
    }
  }
  const found: Series = { minutes: [], requests: [], failure: [], success: [], p95: [] };
  for (let at = from; at < to; at += MINUTE) {
    const known = at >= first && at <= last;
    const sum = sums.get(at);
    found.minutes.push(at);
    found.requests.push(known ? (sum?.requests ?? 0) : null);
    found.failure.push(known ? (sum?.failure ?? 0) : null);
    const answered = sum ? sum.requests - sum.cancelled : 0;
    found.success.push(known && sum && answered > 0 ? 1 - sum.failure / answered : null);
    found.p95.push(known ? (sum?.p95 ?? null) : null);
  }
  return found;
}

/** The same as a line of text, for screen readers. */
export function describe({ requests, failure }: Series, edges: readonly Edge[]): string {
  const known = requests.filter((count) => count !== null);
  const none = edges.some((edge) => edge.historyLeftOut) ? "the minutes had no room in the answer" : "no history yet";
  if (known.length === 0) return none;
  const failed = failure.reduce((sum: number, count) => sum + (count ?? 0), 0);
  return `${known.length} minutes, at most ${Math.max(...known)} calls in one, ${failed} failed in all`;
}

/** What is missing of it, in words. */
export function missing(edges: readonly Edge[], { end, historySince }: Graph["metadata"]): string {
  const words: string[] = [];
  const since = Date.parse(historySince ?? "");
  if (since > Date.parse(end) - HISTORY * MINUTE * 1000) words.push(`Minutes before ${clock(since)} are not known: the controller that answers began later, or had no room for them.`);
  const without = edges.filter((edge) => edge.historyLeftOut).length;
  if (without > 0) words.push(`Minutes of ${without} of its ${edges.length} edges are missing: they had no room in the answer.`);
  return words.join(" ");
}
