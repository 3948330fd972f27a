// Calls by minute as a small line, with words for whoever does not see it.

import { type Edge, type Graph, HISTORY } from "./api";
import { h, s, set, write } from "./dom";
import { clock } from "./text";

const SIZE = { width: 260, height: 44 };

export class Spark {
  private readonly all = s("polyline", { class: "all" });
  private readonly failed = s("polyline", { class: "failed" });
  readonly element = s("svg", { class: "spark", role: "img", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, width: SIZE.width, height: SIZE.height }, this.all, this.failed);
  /** What is missing of it. */
  readonly words = h("p", { class: "words" });

  update(edges: Edge[], metadata: Graph["metadata"]): void {
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
    const without = edges.filter((edge) => edge.historyLeftOut).length;
    const none = without > 0 ? "the minutes had no room in the answer" : "no history yet";
    const told = row.length === 0 ? none : `${row.length} minutes, at most ${most} calls in one, ${failed} failed in all`;
    set(this.element, "aria-label", `Calls by minute: ${told}`);
    const words: string[] = [];
    const since = begun(metadata);
    if (since !== undefined) words.push(`Minutes before ${clock(since)} are not known: the controller that answers began later, or had no room for them.`);
    if (without > 0) words.push(`Minutes of ${without} of its ${edges.length} edges are missing: they had no room in the answer.`);
    write(this.words, words.join(" "));
  }
}

/** From when on minutes are known, where that is later than the first one that is asked for. */
function begun({ end, historySince }: Graph["metadata"]): number | undefined {
  const since = Date.parse(historySince ?? "");
  return since > Date.parse(end) - HISTORY * 60_000 ? since : undefined;
}
