// How the mesh does, in one look: sums, half an hour of them, and all that is called, the worst
// first, each with its own half hour. A workload without callers is counted and folded away.

import type { Edge, MeshNode } from "../api";
import { upToAll } from "../chart";
import { Charts } from "../charts";
import { success } from "../calls";
import { h, set, write } from "../dom";
import { add, compare, hasOwnTls, type Health, Model, neverLeft, successRate, title } from "../model";
import { type Span, series, spanOf, type Values } from "../series";
import { Table, type Cell, type Row } from "../table";
import { milliseconds, percent, quoted, rate } from "../text";
import type { App, Page, State, View } from "../view";

/** Rows that are shown at first. */
const MOST_ROWS = 50;
const IDLE_NAMES = 500;

const STATES: Record<Health, { sign: string; word: string; rank: number; tone?: Cell["tone"] }> = {
  bad: { sign: "◆", word: "failing", rank: 0, tone: "bad" },
  warn: { sign: "▲", word: "degraded", rank: 1, tone: "warn" },
  ok: { sign: "●", word: "healthy", rank: 2, tone: "good" },
  idle: { sign: "□", word: "idle", rank: 3 },
};
const BY = { workload: "Workloads", service: "Services" } as const;
const TILES = ["failing", "degraded", "healthy", "idle", "calls", "success", "p95", "refused", "mtls"] as const;
type Tile = (typeof TILES)[number];
const TILE_NAMES: Record<Tile, string> = {
  failing: "◆ failing", degraded: "▲ degraded", healthy: "● healthy", idle: "□ idle",
  calls: "calls per second", success: "success", p95: "p95 of the slowest", refused: "refused calls", mtls: "over mutual TLS",
};

/** One row: what is called, and the edges that its numbers come from. */
interface Item { node: MeshNode; edges: Edge[]; sums: ReturnType<Model["sums"]>; calls: boolean }

export class OverviewPage implements Page {
  readonly name = "overview";
  readonly title = "Overview";
  readonly history = true;
  readonly element: HTMLElement;
  private readonly tiles = new Map<Tile, { tile: HTMLElement; value: HTMLElement }>();
  private readonly nothing = h("p", { class: "empty" });
  private readonly charts = new Charts();
  private readonly views: Record<State["by"], HTMLButtonElement>;
  private readonly filter = h("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: "false", input: () => this.again() });
  private readonly table: Table;
  private readonly all = h("button", { type: "button", click: () => this.unfold() });
  private readonly idle = h("summary");
  private readonly names = h("ul", { class: "names" });
  private readonly folded: HTMLElement;
  private named = "";
  private whole = false;
  private last: View | undefined;

  constructor(private readonly app: App) {
    const tiles = TILES.map((name) => {
      const value = h("b");
      const tile = h("li", { class: `tile ${name}` }, value, " ", h("span", {}, TILE_NAMES[name]));
      this.tiles.set(name, { tile, value });
      return tile;
    });
    const view = (by: State["by"]): HTMLButtonElement => h("button", { type: "button", click: () => app.go({ by }) }, BY[by]);
    this.views = { workload: view("workload"), service: view("service") };
    this.table = new Table(
      "Worst first; numbers of the last minute, lines of the last half hour",
      ["Name", "Namespace", "State", "Success", "Calls/s", "p95 of the slowest", "Refused", "Open"],
      "Nothing was called in the last minute.",
    );
    this.folded = h("details", { class: "folded" }, this.idle, this.names);
    this.element = h(
      "section",
      { class: "overview" },
      h("h1", {}, "Overview"),
      this.nothing,
      h("ul", { class: "tiles", "aria-label": "The last minute" }, ...tiles),
      this.charts.element,
      this.charts.words,
      h("div", { class: "bar", role: "group", "aria-label": "Rows" }, this.views.workload, this.views.service, h("label", { for: "filter" }, "Filter"), this.filter),
      this.table.element,
      this.all,
      this.folded,
    );
  }

  update(view: View): void {
    const { model, state } = view;
    // What was looked for in one namespace is not looked for in another.
    if (this.last && this.last.state.place !== state.place) [this.filter.value, this.whole] = ["", false];
    this.last = view;
    const span = spanOf(model.graph);
    const workloads = items(model);
    write(this.nothing, model.nodes.size === 0 && !view.absent ? "The mesh knows no workload here. Another namespace can be chosen above." : "");
    this.count(model, workloads);
    this.charts.update(model.graph.edges, model.graph.metadata, span);
    for (const [by, button] of Object.entries(this.views)) set(button, "aria-pressed", String(by === state.by));
    const wanted = this.filter.value.trim();
    const shown = (state.by === "service" ? services(model) : workloads).filter((item) => busy(item) && (wanted === "" || Model.fits(item.node, wanted))).sort(worstFirst);
    const listed = this.whole ? shown : shown.slice(0, MOST_ROWS);
    this.table.update(listed.map((item) => this.row(model, item, span)));
    set(this.all, "hidden", listed.length === shown.length);
    write(this.all, `Show all ${shown.length}`);
    this.rest(workloads.filter((item) => !busy(item) && item.node.kind !== "External"));
    performance.mark("drawn");
  }

  command(state: State): string {
    return `weft stat ${state.by === "service" ? "svc" : "deploy"} ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }

  private again(): void {
    if (this.last) this.update(this.last);
  }

  private unfold(): void {
    this.whole = true;
    this.again();
    this.table.element.focus();
  }

  private count({ graph, seconds }: Model, workloads: Item[]): void {
    const { edges } = graph;
    const sum = (of: (edge: Edge) => number): number => edges.reduce((all, edge) => all + of(edge), 0);
    const share = successRate({ success: sum((edge) => edge.success), failure: sum((edge) => edge.failure) });
    const slowest = edges.reduce((most, edge) => Math.max(most, edge.ms?.p95 ?? -1), -1);
    const measured = edges.filter((edge) => edge.mtls !== undefined && !hasOwnTls(edge) && !neverLeft(edge));
    const secured = measured.reduce((all, edge) => all + edge.requests, 0);
    const refused = workloads.reduce((all, { sums, calls }) => all + (calls ? 0 : sums.refused), 0);
    const of = (health: Health): string => String(workloads.filter(({ node, sums }) => sums.health === health && node.kind !== "External").length);
    const values: Record<Tile, string> = {
      failing: of("bad"),
      degraded: of("warn"),
      healthy: of("ok"),
      idle: of("idle"),
      calls: rate(sum((edge) => edge.requests), seconds),
      success: share === undefined ? "-" : percent(share),
      p95: slowest < 0 ? "-" : milliseconds(slowest),
      refused: String(refused),
      mtls: secured === 0 ? "-" : percent(measured.reduce((all, edge) => all + edge.requests * (edge.mtls ?? 0), 0) / secured),
    };
    for (const [name, { tile, value }] of this.tiles) {
      write(value, values[name]);
      set(tile, "class", `tile ${name}${values[name] === "0" ? " none" : ""}`);
    }
  }

  private row(model: Model, { node, edges, sums, calls }: Item, span: Span): Row {
    const state = STATES[sums.health];
    const slowest = edges.reduce((most, edge) => Math.max(most, edge.ms?.p95 ?? -1), -1);
    const found = series(edges, span);
    const most = (values: Values): number => values.reduce((top: number, value) => Math.max(top, value ?? 0), 0);
    const least = found.success.reduce((low: number, value) => Math.min(low, value ?? 1), 1);
    const [low] = upToAll(least);
    const shown = success(sums);
    const tone = state.tone ? { tone: state.tone } : {};
    return {
      key: node.id,
      cells: [
        { text: title(node), press: () => this.open(model, node, edges) },
        { text: node.namespace ?? (node.kind === "External" ? "outside the mesh" : "") },
        { text: `${state.sign} ${state.word}${calls ? ", as a caller" : ""}`, by: state.rank, ...tone },
        { ...shown, text: shown.text || "-", line: { values: found.success, from: low, to: 1 } },
        { text: rate(sums.requests, model.seconds), by: sums.requests, line: { values: found.requests, from: 0, to: most(found.requests) } },
        { text: slowest < 0 ? "-" : milliseconds(slowest), by: slowest, line: { values: found.p95, from: 0, to: most(found.p95) } },
        { text: sums.refused > 0 ? String(sums.refused) : "", by: sums.refused },
        { text: String(sums.open), by: sums.open },
      ],
    };
  }

  /** A workload by itself; of a Service the one behind it that is called most. */
  private open(model: Model, node: MeshNode, edges: Edge[]): void {
    const [most] = [...edges].sort((one, other) => other.requests - one.requests);
    const id = model.nodes.has(node.id) ? node.id : (most?.to ?? "");
    this.app.go({ page: "graph", node: id, hops: 0 });
  }

  private rest(idle: Item[]): void {
    set(this.folded, "hidden", idle.length === 0);
    write(this.idle, `${idle.length} without a call in the last minute`);
    const shown = idle.map(({ node }) => node).sort((one, other) => compare(one.namespace ?? "", other.namespace ?? "") || compare(one.name, other.name)).slice(0, IDLE_NAMES);
    const named = shown.map(({ id }) => id).join("\n");
    if (this.named === named) return;
    this.named = named;
    this.names.replaceChildren(
      ...shown.map((node) => h("li", {}, h("button", { type: "button", click: () => this.app.go({ page: "graph", node: node.id, hops: 0 }) }, `${title(node)}${node.namespace ? ` in ${node.namespace}` : ""}`))),
      ...(idle.length > shown.length ? [h("li", {}, `and ${idle.length - shown.length} more`)] : []),
    );
  }
}

/** What can be called, with the calls to it; of what only calls, those that it makes. */
function items(model: Model): Item[] {
  const nodes = [...model.nodes.values()].filter((node) => node.kind !== "Outside");
  return nodes.map((node) => {
    const into = model.into.get(node.id) ?? [];
    const calls = into.length === 0 && (model.out.get(node.id) ?? []).length > 0;
    return { node, edges: calls ? (model.out.get(node.id) ?? []) : into, sums: model.sums(node.id), calls };
  });
}

/** Services by what was called through them, evaluated as workloads are. */
function services(model: Model): Item[] {
  const nodes = new Map<string, MeshNode>();
  const edges: Edge[] = [];
  const own = new Map<string, Edge[]>();
  for (const edge of model.graph.edges) {
    const [namespace = "", name = ""] = (edge.service ?? "").split("/");
    if (name === "") continue;
    const id = `by-service/${namespace}/${name}`;
    nodes.set(id, { id, kind: "Service", namespace, name });
    edges.push({ ...edge, to: id });
    add(own, id, edge);
  }
  const called = new Model({ ...model.graph, nodes: [...nodes.values()], edges });
  return [...nodes.values()].map((node) => ({ node, edges: own.get(node.id) ?? [], sums: called.sums(node.id), calls: false }));
}

function busy({ sums, edges }: Item): boolean {
  return sums.requests + sums.open > 0 || edges.some((edge) => edge.requests > 0);
}

/** By state, then by the share that fails and by how much is called, both roughly, so that rows seldom move. */
function worstFirst(one: Item, other: Item): number {
  const failing = ({ sums }: Item): number => Math.round(100 * (1 - (successRate(sums) ?? 1)));
  const calls = ({ sums }: Item): number => Math.floor(Math.log2(1 + sums.requests));
  const rank = ({ sums }: Item): number => STATES[sums.health].rank;
  return rank(one) - rank(other) || failing(other) - failing(one) || calls(other) - calls(one) || compare(one.node.id, other.node.id);
}
