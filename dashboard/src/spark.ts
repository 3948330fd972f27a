// Calls by minute as a small line, with words for whoever does not see it.

import type { Edge } from "./api";
import { s, set } from "./dom";

const SIZE = { width: 260, height: 44 };

export class Spark {
  private readonly all = s("polyline", { class: "all" });
  private readonly failed = s("polyline", { class: "failed" });
  readonly element = s("svg", { class: "spark", role: "img", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, width: SIZE.width, height: SIZE.height }, this.all, this.failed);

  update(edges: Edge[]): void {
    const minutes = new Map<string, { requests: number; failure: number }>();
    for (const edge of edges) {
      for (const minute of edge.history ?? []) {
        const sum = minutes.get(minute.start) ?? { requests: 0, failure: 0 };
        minutes.set(minute.start, { requests: sum.requests + minute.requests, failure: sum.failure + minute.failure });
      }
    }
    const row = [...minutes].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, sum]) => sum);
    const most = Math.max(1, ...row.map((sum) => sum.requests));
    const points = (of: (sum: { requests: number; failure: number }) => number): string =>
      row.map((sum, at) => `${((at / Math.max(1, row.length - 1)) * SIZE.width).toFixed(1)},${(SIZE.height - 2 - (of(sum) / most) * (SIZE.height - 4)).toFixed(1)}`).join(" ");
    set(this.all, "points", points((sum) => sum.requests));
    set(this.failed, "points", points((sum) => sum.failure));
    const failed = row.reduce((sum, minute) => sum + minute.failure, 0);
    const told = row.length === 0 ? "no history yet" : `${row.length} minutes, at most ${most} calls in one, ${failed} failed in all`;
    set(this.element, "aria-label", `Calls by minute: ${told}`);
  }
}
