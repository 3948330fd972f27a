// The panel of one node: its numbers, its history, whom it calls and who calls it.

import { h, set, write } from "../dom";
import { COLUMNS, row } from "../calls";
import { successRate, title } from "../model";
import { Spark } from "../spark";
import { Table } from "../table";
import { milliseconds, rate, succeeding } from "../text";
import type { App, View } from "../view";

export class Workload {
  private readonly name = h("h2");
  private readonly facts = h("dl");
  /** What the facts say, so that they are written only when they change. */
  private told = "";
  private readonly spark = new Spark();
  private readonly near = h(
    "select",
    { id: "hops", change: () => this.app.go({ hops: Number(this.near.value) }) },
    ...["everything", "1 call away", "2 calls away", "3 calls away"].map((text, hops) => h("option", { value: hops }, text)),
  );
  private readonly into = new Table("Calls to it", COLUMNS, "Nobody called it in the last minute.");
  private readonly out = new Table("Calls it makes", COLUMNS, "It called nobody in the last minute.");
  private readonly routes = new Table("Routes", ["Route", "Success", "Calls/s", "p95"], "No route describes its requests.");
  readonly element: HTMLElement;

  constructor(private readonly app: App) {
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
      this.spark.element,
      this.spark.words,
      this.into.element,
      this.out.element,
      this.routes.element,
    );
  }

  update({ model, state }: View): void {
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
    const told = shown.flat().join("\n");
    if (this.told !== told) {
      this.told = told;
      this.facts.replaceChildren(...shown.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
    }
    this.spark.update(into.length > 0 ? into : out, model.graph.metadata);
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
}
