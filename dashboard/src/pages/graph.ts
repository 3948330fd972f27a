// Who calls whom: a picture, the same as a table, a search over both, and one node opened.

import { COLUMNS, row } from "../calls";
import { h, set, write } from "../dom";
import { Model } from "../model";
import { Picture } from "../picture";
import { Table } from "../table";
import { quoted } from "../text";
import type { App, Page, State, View } from "../view";
import { Workload } from "./workload";

export class GraphPage implements Page {
  readonly name = "graph";
  readonly title = "Graph";
  readonly element: HTMLElement;
  private readonly search = h("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false" });
  private readonly found = h("span", { class: "found", role: "status" });
  private readonly fold = h("input", { type: "checkbox", id: "fold", change: () => this.again() });
  private readonly folding = h("span", {}, this.fold, h("label", { for: "fold" }, "Namespaces only"));
  private readonly views: Record<State["view"], HTMLButtonElement>;
  private readonly picture: Picture;
  private readonly table = new Table("Calls of the last minute", COLUMNS, "Nothing calls anything here.");
  private readonly workload: Workload;
  private readonly nothing = h("p", { class: "empty" });
  private last: View | undefined;
  private shown: Model | undefined;
  /** Whether the person has said how to fold. */
  private said = false;

  constructor(private readonly app: App) {
    this.picture = new Picture((id) => this.open(id));
    this.workload = new Workload(app);
    const view = (name: State["view"], text: string): HTMLButtonElement =>
      h("button", { type: "button", click: () => app.go({ view: name }) }, text);
    this.views = { picture: view("picture", "Picture"), table: view("table", "Table") };
    this.search.addEventListener("input", () => this.again());
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.first();
    });
    this.fold.addEventListener("change", () => (this.said = true));
    this.element = h(
      "section",
      { class: "graph" },
      h("h1", {}, "Graph"),
      h(
        "div",
        { class: "bar", role: "group", "aria-label": "What is shown" },
        h("label", { for: "search" }, "Search"),
        this.search,
        this.found,
        this.views.picture,
        this.views.table,
        this.folding,
      ),
      legend(),
      this.nothing,
      this.picture.element,
      this.table.element,
      this.workload.element,
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.last?.state.node) this.app.go({ node: "", hops: 0 });
    });
  }

  update(view: View): void {
    this.last = view;
    const { state } = view;
    set(this.folding, "hidden", state.place !== "");
    if (!this.said) this.fold.checked = view.model.isLarge();
    const folded = state.place === "" && this.fold.checked && state.node === "";
    let model = folded ? view.model.folded() : view.model;
    if (state.hops > 0 && model.nodes.has(state.node)) model = model.around(state.node, state.hops);
    this.shown = model;
    const search = this.search.value.trim();
    const fitting = [...model.nodes.values()].filter((node) => Model.fits(node, search));
    write(this.found, search === "" ? "" : `${fitting.length} of ${model.nodes.size}`);
    const picture = state.view === "picture";
    write(this.nothing, model.nodes.size === 0 ? "The mesh knows no workload here. Another namespace can be chosen above." : "");
    set(this.picture.element, "hidden", !picture);
    set(this.table.element, "hidden", picture);
    for (const [name, button] of Object.entries(this.views)) set(button, "aria-pressed", String(name === state.view));
    if (picture) this.picture.update(model, search, state.node);
    else {
      const near = new Set(fitting.map((node) => node.id));
      const edges = model.graph.edges.filter((edge) => search === "" || near.has(edge.from) || near.has(edge.to));
      this.table.update(edges.map((edge) => row(this.app, model, edge)));
    }
    this.workload.update(view);
    performance.mark("drawn");
  }

  command(state: State): string {
    const place = state.place === "" ? "-A" : `-n ${quoted(state.place)}`;
    return `weft edges ${place}`;
  }

  focusSearch(): void {
    this.search.focus();
  }

  private again(): void {
    if (this.last) this.update(this.last);
  }

  private first(): void {
    const search = this.search.value.trim();
    const fitting = [...(this.shown?.nodes.values() ?? [])].find((node) => search !== "" && Model.fits(node, search));
    if (!fitting) return;
    if (this.last?.state.view === "picture") this.picture.focus(fitting.id);
    else this.open(fitting.id);
  }

  private open(id: string): void {
    const node = this.shown?.nodes.get(id);
    if (node?.kind === "Namespace") this.app.go({ place: node.name, node: "", hops: 0 });
    else this.app.go({ node: this.last?.state.node === id ? "" : id, hops: this.last?.state.hops ?? 0 });
  }
}

function legend(): HTMLElement {
  const words = ["● well", "▲ some calls fail", "◆ many calls fail", "■ no calls", "⊘ refused", "dashed: not in the mesh, or plaintext"];
  return h("ul", { class: "legend", "aria-label": "Signs" }, ...words.map((text) => h("li", {}, text)));
}
