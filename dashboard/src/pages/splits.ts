// Who gets how much of the calls: releases, experiments, and the weights that splits and rules of
// routes set beside the shares that are seen.

import { compare } from "../model";
import { h, order, write } from "../dom";
import { success } from "../calls";
import { Table } from "../table";
import { milliseconds, percent, quoted, rate } from "../text";
import type { Edge, GatewayRoute, Graph, Split } from "../api";
import { axisPercent, axisRate, axisTime, perSecond } from "../charts";
import { Chart, upToAll } from "../chart";
import { type Span, series, spanOf, type Values } from "../series";
import type { Page, State, View } from "../view";
import { Experiments, Releases } from "./releases";

interface BackendCalls { attempts: number; requests: number; success: number; failure: number; p95: number | undefined }

/** Splits whose charts are drawn; the table has all. */
const MOST_CHARTED = 12;

/** Weights of a split, or of one rule of a route. */
interface Weighted {
  name: string;
  /** Whose calls are shared out. */
  service: string;
  /** `id`: how an edge names it. */
  backends: { name: string; id: string; weight: number }[];
  /** How an edge names what led it: the split, or the route and not which of its rules. */
  by: string;
}

/** Edges by what led them. */
function ledBy(graph: Graph): Map<string, Edge[]> {
  const led = new Map<string, Edge[]>();
  for (const edge of graph.edges) {
    const by = edge.split || edge.rule;
    if (!by) continue;
    const there = led.get(by);
    if (there) there.push(edge);
    else led.set(by, [edge]);
  }
  return led;
}

function ofSplit({ metadata: { namespace, name }, spec }: Split): Weighted {
  const full = `${namespace}/${name}`;
  const backends = (spec.backends ?? []).map(({ service, weight }) => ({ name: service, id: backendId(namespace, service), weight }));
  return { name: full, service: spec.service, backends, by: full };
}

/** The rules that share calls of a Service out among several. */
function ofRoute({ kind, metadata: { namespace, name }, spec }: GatewayRoute): Weighted[] {
  const parent = spec.parentRefs?.find((one) => one.group === "" && one.kind === "Service");
  if (!parent) return [];
  const full = `${kind} ${namespace}/${name}`;
  return (spec.rules ?? []).flatMap(({ name: called, backendRefs = [] }, at) => {
    if (backendRefs.length < 2) return [];
    const backends = backendRefs.map((one) => {
      const of = one.namespace ?? namespace;
      return { name: of === namespace ? one.name : `${of}/${one.name}`, id: `${of}/${one.name}`, weight: one.weight ?? 1 };
    });
    return [{ name: `${full} rules[${at}]${called ? ` ${called}` : ""}`, service: parent.name, backends, by: full }];
  });
}

/** The charts of one split, a line for each backend. */
class SplitCharts {
  private readonly name = h("h2");
  private readonly share = new Chart({ title: "Share of the calls", text: axisPercent, range: () => [0, 1] });
  private readonly calls = new Chart({ title: "Calls per second", text: axisRate });
  private readonly success = new Chart({ title: "Success", text: axisPercent, range: upToAll });
  private readonly p95 = new Chart({ title: "p95 of the slowest caller", text: axisTime });
  readonly element = h("section", { class: "split" }, this.name, h("div", { class: "charts" }, ...[this.share, this.calls, this.success, this.p95].map(({ element }) => element)));

  update(weighted: Weighted, edges: Edge[], span: Span): void {
    write(this.name, weighted.name);
    const backends = weighted.backends.map(({ name, id }) => ({ name, ...series(edges.filter(({ backend }) => backend === id), span) }));
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
  readonly needs = ["splits" as const, "routes" as const, "releases" as const, "experiments" as const];
  readonly history = true;
  private readonly charts = new Map<string, SplitCharts>();
  private readonly drawn = h("div", { class: "drawn" });
  private readonly none = h("p", { class: "empty" });
  private readonly words = h("p", { class: "words" });
  private readonly table = new Table(
    "Backends of TrafficSplits and routes, with what was sent to each in the last minute",
    ["Split", "Service", "Backend", "Weight", "Wanted", "Seen", "Success", "Calls/s", "p95"],
    "There is no TrafficSplit here, and no route with weights.",
  );
  private readonly releases = new Releases();
  private readonly experiments = new Experiments();
  readonly element = h("section", {}, h("h1", {}, "Splits"), this.words, this.releases.element, this.experiments.element, this.table.element, this.none, this.drawn);

  update({ model, extra, at }: View): void {
    write(this.words, extra.words.join(" "));
    this.releases.update(extra.releases ?? [], at);
    this.experiments.update(extra.experiments ?? [], at);
    const all = [...(extra.splits ?? []).map(ofSplit), ...(extra.routes ?? []).flatMap(ofRoute)];
    const led = ledBy(model.graph);
    const rows = all.flatMap(({ name, service, backends, by }) => {
      const seen = new Map<string, BackendCalls>();
      for (const edge of led.get(by) ?? []) {
        const key = edge.backend ?? "";
        const sum = seen.get(key) ?? { attempts: 0, requests: 0, success: 0, failure: 0, p95: undefined };
        sum.attempts += edge.attempts;
        sum.requests += edge.requests;
        sum.success += edge.success;
        sum.failure += edge.failure;
        if (edge.ms) sum.p95 = Math.max(sum.p95 ?? 0, edge.ms.p95);
        seen.set(key, sum);
      }
      const weights = backends.reduce((sum, backend) => sum + backend.weight, 0);
      const sent = backends.reduce((sum, { id }) => sum + (seen.get(id)?.attempts ?? 0), 0);
      return backends.map((backend) => {
        const own = seen.get(backend.id);
        const wanted = weights > 0 ? backend.weight / weights : 0;
        const share = sent > 0 ? (own?.attempts ?? 0) / sent : 0;
        return {
          key: `${name}\n${backend.name}`,
          cells: [
            { text: name },
            { text: service },
            { text: backend.name },
            { text: String(backend.weight), by: backend.weight },
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
    this.draw(all, led, spanOf(model.graph));
  }

  private draw(all: Weighted[], led: Map<string, Edge[]>, span: Span): void {
    const charted = [...all].sort((one, other) => compare(one.name, other.name)).slice(0, MOST_CHARTED);
    for (const key of this.charts.keys()) if (!charted.some(({ name }) => name === key)) this.charts.delete(key);
    const elements = charted.map((weighted) => {
      const charts = this.charts.get(weighted.name) ?? new SplitCharts();
      this.charts.set(weighted.name, charts);
      charts.update(weighted, led.get(weighted.by) ?? [], span);
      return charts.element;
    });
    order(this.drawn, elements);
    const more = all.length - charted.length;
    write(this.none, all.length === 0 ? "A TrafficSplit, or a rule of a route, sends shares of the calls of one Service to others, as for a canary; once there is one, its weights, the shares that are seen, success and latency of each backend stand here." : more > 0 ? `Charts of ${more} more splits are not drawn; a workload's own are in the graph.` : "");
  }

  command(state: State): string {
    return `weft stat ts ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }
}
