// Rate, success and latency of some edges over the last half hour, beside each other.

import type { Edge, Graph } from "./api";
import { Chart, upToAll } from "./chart";
import { h, write } from "./dom";
import { type Span, type Values, missing, series, describe } from "./series";
import { milliseconds, percent, rate } from "./text";

const MINUTE = 60;

export class Charts {
  private readonly calls = new Chart({ title: "Calls per second", name: "spark", text: axisRate });
  private readonly success = new Chart({ title: "Success", text: axisPercent, range: upToAll });
  private readonly p95 = new Chart({ title: "p95 of the slowest caller", text: axisTime });
  readonly element = h("div", { class: "charts" }, this.calls.element, this.success.element, this.p95.element);
  /** What is missing of it. */
  readonly words = h("p", { class: "words" });

  update(edges: readonly Edge[], metadata: Graph["metadata"], span: Span): void {
    const found = series(edges, span);
    this.calls.update(found.minutes, [{ name: "all", values: perSecond(found.requests) }, { name: "failed", values: perSecond(found.failure), bad: true }], describe(found, edges));
    const shares = found.success.filter((share) => share !== null);
    const least = shares.length > 0 ? `at least ${percent(Math.min(...shares))}, last ${percent(shares.at(-1) ?? 0)}` : "not known";
    this.success.update(found.minutes, [{ name: "success", values: found.success }], least);
    const times = found.p95.filter((ms) => ms !== null);
    const most = times.length > 0 ? `at most ${milliseconds(Math.max(...times))}, last ${milliseconds(times.at(-1) ?? 0)}` : "not known";
    this.p95.update(found.minutes, [{ name: "p95", values: found.p95 }], most);
    write(this.words, missing(edges, metadata));
  }
}

/** Without the digits that a share of a chart's axis does not have. */
export function axisPercent(share: number): string {
  return `${Number((share * 100).toFixed(2))} %`;
}

/** Calls of minutes as calls per second. */
export function perSecond(counts: Values): Values {
  return counts.map((count) => (count === null ? null : count / MINUTE));
}

export function axisRate(count: number): string {
  return rate(count, 1);
}

export function axisTime(ms: number): string {
  return ms === 0 ? "0" : milliseconds(ms);
}
