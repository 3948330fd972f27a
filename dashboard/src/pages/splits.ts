// Who gets how much of the calls: releases, experiments, and the weights that splits set beside
// the shares that are seen.

import { compare } from "../model";
import { h, order, write } from "../dom";
import { success } from "../calls";
import { Table } from "../table";
import { milliseconds, percent, quoted, rate } from "../text";
import type { Edge, Graph, Split } from "../api";
import { axisPercent, axisRate, axisTime, perSecond } from "../charts";
import { Chart, upToAll } from "../chart";
import { type Span, series, spanOf, type Values } from "../series";
import type { Page, State, View } from "../view";
import { Experiments, Releases } from "./releases";

interface BackendCalls { attempts: number; requests: number; success: number; failure: number; p95: number | undefined }

/** Splits whose charts are drawn; the table has all. */
const MOST_CHARTED = 12;

/** The charts of one split, a line for each backend. */
class SplitCharts {
  private readonly name = h("h2");
  private readonly share = new Chart({ title: "Share of the calls", text: axisPercent, range: () => [0, 1] });
  private readonly calls = new Chart({ title: "Calls per second", text: axisRate });
  private readonly success = new Chart({ title: "Success", text: axisPercent, range: upToAll });
  private readonly p95 = new Chart({ title: "p95 of the slowest caller", text: axisTime });
  readonly element = h("section", { class: "split" }, this.name, h("div", { class: "charts" }, ...[this.share, this.calls, this.success, this.p95].map(({ element }) => element)));

  update({ metadata, spec }: Split, edges: Edge[], span: Span): void {
    write(this.name, `${metadata.namespace}/${metadata.name}`);
    const backends = (spec.backends ?? []).map(({ service }) => ({ name: service, ...series(edges.filter(({ backend }) => backend === backendId(metadata.namespace, service)), span) }));
    const [first] = backends;
    if (!first) return;
    const all = first.requests.map((_, at) => backends.reduce((sum, { requests }) => sum + (requests[at] ?? 0), 0));
    const draw = (chart: Chart, of: (one: (typeof backends)[number]) => Values, text: (value: number) => string): void => {
      const lines = backends.map((one) => ({ name: one.name, values: of(one) }));
      const last = lines.map(({ name, values }) => `${name} ${textOf(values.filter((value) => value !== null).at(-1), text)}`);
      chart.update(first.minutes, lines, `last minute: ${last.join(", ")}`);
    };
    draw(this.share, ({ requests }) => requests.map((count, at) => (count === null || !all[at] ? null : count / all[at])), axisPercent);
    draw(this.calls, ({ requests }) => perSecond(requests), axisRate);
    draw(this.success, ({ success }) => success, axisPercent);
    draw(this.p95, ({ p95 }) => p95, milliseconds);
  }
}

function textOf(value: number | null | undefined, text: (value: number) => string): string {
  return value === null || value === undefined ? "not known" : text(value);
}

/** How an edge names a backend of a split in this namespace. */
function backendId(namespace: string, service: string): string {
  return `${namespace}/${service.split(".")[0]}`;
}

export class SplitsPage implements Page {
  readonly name = "splits";
  readonly title = "Splits";
  readonly needs = ["splits" as const, "releases" as const, "experiments" as const];
  readonly history = true;
  private readonly charts = new Map<string, SplitCharts>();
  private readonly drawn = h("div", { class: "drawn" });
  private readonly none = h("p", { class: "empty" });
  private readonly words = h("p", { class: "words" });
  private readonly table = new Table(
    "Backends of TrafficSplits, with what was sent to each in the last minute",
    ["Split", "Service", "Backend", "Weight", "Wanted", "Seen", "Success", "Calls/s", "p95"],
    "There is no TrafficSplit here.",
  );
  private readonly releases = new Releases();
  private readonly experiments = new Experiments();
  readonly element = h("section", {}, h("h1", {}, "Splits"), this.words, this.releases.element, this.experiments.element, this.table.element, this.none, this.drawn);

  update({ model, extra, at }: View): void {
    write(this.words, extra.words.join(" "));
    this.releases.update(extra.releases ?? [], at);
    this.experiments.update(extra.experiments ?? [], at);
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
      const of = (service: string): BackendCalls | undefined => seen.get(`${name}\n${backendId(split.metadata.namespace, service)}`);
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
    this.draw(extra.splits ?? [], model.graph);
  }

  private draw(splits: Split[], graph: Graph): void {
    const span = spanOf(graph);
    const named = splits.map((split) => ({ name: `${split.metadata.namespace}/${split.metadata.name}`, split })).sort((one, other) => compare(one.name, other.name));
    const charted = named.slice(0, MOST_CHARTED);
    for (const key of this.charts.keys()) if (!charted.some(({ name }) => name === key)) this.charts.delete(key);
    const elements = charted.map(({ name, split }) => {
      const charts = this.charts.get(name) ?? new SplitCharts();
      this.charts.set(name, charts);
      charts.update(split, graph.edges.filter((edge) => edge.split === name), span);
      return charts.element;
    });
    order(this.drawn, elements);
    const more = named.length - charted.length;
    write(this.none, splits.length === 0 ? "A TrafficSplit sends shares of the calls of one Service to others, as for a canary; once there is one, its weights, the shares that are seen, success and latency of each backend stand here." : more > 0 ? `Charts of ${more} more splits are not drawn; a workload's own are in the graph.` : "");
  }

  command(state: State): string {
    return `weft stat ts ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }
}
