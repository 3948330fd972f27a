// The panel of one node: its numbers, charts of it or of one of its edges, its calls and its callers.

import { h, set, write } from "../dom";
import { COLUMNS, row } from "../calls";
import { type Model, successRate, title } from "../model";
import type { Edge } from "../api";
import { Charts } from "../charts";
import { Choice } from "../form";
import { spanOf } from "../series";
import { Table } from "../table";
import { milliseconds, rate, succeeding } from "../text";
import type { App, View } from "../view";

export class Workload {
  private readonly name = h("h2");
  private readonly facts = h("dl");
  /** What the facts say, so that they are written only when they change. */
  private drawn = "";
  private readonly charts = new Charts();
  private readonly charted = new Choice("charted");
  private last: View | undefined;
  private readonly near = h(
    "select",
    { id: "hops", change: () => this.app.go({ hops: Number(this.near.value) }) },
    ...["everything", "1 call away", "2 calls away", "3 calls away"].map((text, hops) => h("option", { value: hops }, text)),
  );
  private readonly into = new Table("Calls to it", COLUMNS, "No client called it in the last minute.");
  private readonly out = new Table("Calls it makes", COLUMNS, "It called nothing in the last minute.");
  private readonly routes = new Table("Routes", ["Route", "Success", "Calls/s", "p95"], "No route describes its requests.");
  readonly element: HTMLElement;

  constructor(private readonly app: App) {
    this.charted.element.addEventListener("change", () => {
      if (this.last) this.update(this.last);
    });
    this.element = h(
      "section",
      { class: "panel", "aria-label": "Selected workload" },
      h(
        "div",
        { class: "bar" },
        this.name,
        h("label", { for: "hops" }, "Show"),
        this.near,
        h("button", { type: "button", click: () => app.go({ node: "", hops: 0 }) }, "Close"),
      ),
      this.facts,
      h("div", { class: "bar" }, h("label", { for: "charted" }, "Charts of"), this.charted.element),
      this.charts.element,
      this.charts.words,
      this.into.element,
      this.out.element,
      this.routes.element,
    );
  }

  update(view: View): void {
    const { model, state } = view;
    const other = this.last?.state.node !== state.node;
    this.last = view;
    const node = model.nodes.get(state.node);
    set(this.element, "hidden", !node);
    if (!node) return;
    const into = model.into.get(node.id) ?? [];
    const out = model.out.get(node.id) ?? [];
    write(this.name, node.namespace ? `${title(node)} in ${node.namespace}` : title(node));
    this.near.value = String(state.hops);
    const sums = model.sums(node.id);
    const facts: [string, string][] = [
      ["Kind", node.kind],
      ["Pods in the mesh", node.pods === undefined ? "" : `${node.meshed ?? 0} of ${node.pods}`],
      ["Calls", sums.requests > 0 ? [`${rate(sums.requests, model.seconds)}/s`, ...succeeding(successRate(sums), " succeed")].join(", ") : "none in the last minute"],
      ["Access", node.access ?? ""],
      ["mTLS", node.mtls ?? ""],
      ["Services", (node.services ?? []).join(", ")],
      ["Identity", (node.accounts ?? []).join(", ")],
      ["Address", node.unproven ? "seen only, which proves nothing" : ""],
      ["Exists", node.gone ? "no longer" : ""],
    ];
    const shown = facts.filter(([, text]) => text !== "");
    const drawn = shown.flat().join("\n");
    if (this.drawn !== drawn) {
      this.drawn = drawn;
      this.facts.replaceChildren(...shown.flatMap(([name, text]) => [h("div", {}, h("dt", {}, name), h("dd", {}, text))]));
    }
    this.chart(model, into, out, other);
    this.into.update(into.map((edge) => row(this.app, model, edge)));
    this.out.update(out.map((edge) => row(this.app, model, edge)));
    this.routes.update(
      (node.routes ?? []).map(({ route, requests, failure, cancelled = 0, ms }) => ({
        key: route,
        cells: [
          { text: route === "" ? "(no route)" : route },
          { text: succeeding(successRate({ success: requests - failure - cancelled, failure })).join("") },
          { text: rate(requests, model.seconds), by: requests },
          { text: milliseconds(ms?.p95), by: ms?.p95 ?? -1 },
        ],
      })),
    );
  }

  /** Of all calls to it, of all that it makes, or of one edge. */
  private chart(model: Model, into: Edge[], out: Edge[], other: boolean): void {
    const offered = new Map<string, string>();
    if (into.length > 0) offered.set("into", "all calls to it");
    if (out.length > 0) offered.set("out", "all calls it makes");
    const by = ({ service, port, protocol }: Edge): string => [service ? ` by ${service}` : "", port ? `:${port}` : "", ` (${protocol})`].join("");
    for (const edge of into) offered.set(edge.id, `calls from ${model.name(edge.from)}${by(edge)}`);
    for (const edge of out) offered.set(edge.id, `calls to ${model.name(edge.to)}${by(edge)}`);
    const first = into.length > 0 ? "into" : "out";
    const wanted = this.charted.chosen;
    const chosen = !other && offered.has(wanted) ? wanted : first;
    this.charted.update(offered, chosen);
    const edges = chosen === "into" ? into : chosen === "out" ? out : [...into, ...out].filter(({ id }) => id === chosen);
    this.charts.update(edges, model.graph.metadata, spanOf(model.graph));
  }
}
