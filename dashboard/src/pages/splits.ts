// What splits ask for beside what is seen.

import { compare } from "../model";
import { h, write } from "../dom";
import { success } from "../calls";
import { Table } from "../table";
import { milliseconds, percent, quoted, rate } from "../text";
import type { Page, State, View } from "../view";

interface BackendCalls { attempts: number; requests: number; success: number; failure: number; p95: number | undefined }

export class SplitsPage implements Page {
  readonly name = "splits";
  readonly title = "Splits";
  readonly needs = ["splits" as const];
  private readonly words = h("p", { class: "words" });
  private readonly table = new Table(
    "Backends of TrafficSplits, with what was sent to each in the last minute",
    ["Split", "Service", "Backend", "Weight", "Wanted", "Seen", "Success", "Calls/s", "p95"],
    "There is no TrafficSplit here.",
  );
  readonly element = h("section", {}, h("h1", {}, "Splits"), this.words, this.table.element);

  update({ model, extra }: View): void {
    write(this.words, extra.words.join(" "));
    const seen = new Map<string, BackendCalls>();
    for (const edge of model.graph.edges) {
      if (!edge.split) continue;
      const key = `${edge.split}\n${edge.backend ?? ""}`;
      const sum = seen.get(key) ?? { attempts: 0, requests: 0, success: 0, failure: 0, p95: undefined };
      sum.attempts += edge.attempts;
      sum.requests += edge.requests;
      sum.success += edge.success;
      sum.failure += edge.failure;
      if (edge.ms) sum.p95 = Math.max(sum.p95 ?? 0, edge.ms.p95);
      seen.set(key, sum);
    }
    const rows = (extra.splits ?? []).flatMap((split) => {
      const name = `${split.metadata.namespace}/${split.metadata.name}`;
      const backends = split.spec.backends ?? [];
      const of = (service: string): BackendCalls | undefined => seen.get(`${name}\n${split.metadata.namespace}/${service.split(".")[0]}`);
      const weights = backends.reduce((sum, backend) => sum + backend.weight, 0);
      const sent = backends.reduce((sum, backend) => sum + (of(backend.service)?.attempts ?? 0), 0);
      return backends.map(({ service, weight }) => {
        const own = of(service);
        const wanted = weights > 0 ? weight / weights : 0;
        const share = sent > 0 ? (own?.attempts ?? 0) / sent : 0;
        return {
          key: `${name}\n${service}`,
          cells: [
            { text: name },
            { text: split.spec.service },
            { text: service },
            { text: String(weight), by: weight },
            { text: percent(wanted), by: wanted, bar: wanted },
            { text: sent > 0 ? percent(share) : "no calls", by: share, bar: share },
            success(own ?? { requests: 0, success: 0, failure: 0 }),
            { text: rate(own?.attempts ?? 0, model.seconds), by: own?.attempts ?? 0 },
            { text: milliseconds(own?.p95), by: own?.p95 ?? -1 },
          ],
        };
      });
    });
    this.table.update(rows.sort((one, other) => compare(one.key, other.key)));
  }

  command(state: State): string {
    return `weft stat ts ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }
}
