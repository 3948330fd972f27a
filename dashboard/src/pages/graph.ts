// Callers and what they call: a picture, the same as a table, a search over both, and one node opened.
// Both show namespaces first, and never more than can be read, unless the reader unfolds it.

import type { Edge, MeshNode } from "../api";
import { COLUMNS, row } from "../calls";
import { h, set, write } from "../dom";
import { type Folded, folded } from "../fold";
import { lockSign } from "../lock";
import { compare, Model, named, title } from "../model";
import { Picture } from "../picture";
import { Table } from "../table";
import { quoted } from "../text";
import type { App, Page, State, View } from "../view";
import { Workload } from "./workload";

/** Rows of the folded table: more is not readable. */
const MOST_ROWS = 1000;

/** A call between its own ends, and between the nodes that stand for these. */
interface Call { own: Edge; shown: Edge }

export class GraphPage implements Page {
  readonly name = "graph";
  readonly title = "Graph";
  readonly element: HTMLElement;
  private readonly search = h("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false" });
  private readonly found = h("span", { class: "found", role: "status" });
  private readonly fold = h("input", { type: "checkbox", id: "fold", checked: true, change: () => this.again() });
  private readonly quiet = h("input", { type: "checkbox", id: "quiet", change: () => this.app.go({ quiet: this.quiet.checked }) });
  private readonly views: Record<State["view"], HTMLButtonElement>;
  private readonly picture: Picture;
  private readonly table = new Table("Calls of the last minute", COLUMNS, "Nothing calls anything here.");
  private readonly workload: Workload;
  private readonly nothing = h("p", { class: "empty" });
  /** How many calls the table does not list. */
  private readonly more = h("p", { class: "words" });
  private last: View | undefined;
  private shown: Model | undefined;
  /** Ids of what is shown that a search found; undefined where nothing is searched. */
  private hits: ReadonlySet<string> | undefined;

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
        h("span", {}, this.fold, h("label", { for: "fold" }, "Folded")),
        h("span", {}, this.quiet, h("label", { for: "quiet" }, "Quiet calls too")),
      ),
      legend(),
      this.nothing,
      this.picture.element,
      this.more,
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
    this.quiet.checked = state.quiet;
    let whole = view.model;
    if (state.hops > 0 && whole.nodes.has(state.node)) whole = whole.around(state.node, state.hops);
    const search = this.search.value.trim();
    const fitting = search === "" ? [] : [...whole.nodes.values()].filter((node) => Model.fits(node, search));
    const shown = this.folded(whole, state, fitting);
    const { model, at } = shown;
    this.shown = model;
    write(this.found, search === "" ? "" : `${fitting.length} of ${whole.nodes.size}`);
    const hits = search === "" ? undefined : new Set(fitting.map((node) => at(node.id)));
    this.hits = hits;
    const picture = state.view === "picture";
    write(this.nothing, model.nodes.size === 0 && !view.absent ? "The mesh knows no workload here. Another namespace can be chosen above." : "");
    set(this.picture.element, "hidden", !picture);
    set(this.more, "hidden", picture);
    set(this.table.element, "hidden", picture);
    for (const [name, button] of Object.entries(this.views)) set(button, "aria-pressed", String(name === state.view));
    if (picture) this.picture.update(state.place, model, hits, at(state.node));
    else this.list(whole, shown, search === "" ? undefined : new Set(fitting.map((node) => node.id)));
    this.workload.update(view);
    performance.mark("drawn");
  }

  /** Of an opened node its own calls, where it is: a neighbour may be of another namespace. */
  command(state: State): string {
    const node = named(state.node);
    const place = node?.namespace ?? state.place;
    const words = ["weft edges"];
    if (node) words.push(quoted(title(node)));
    words.push(place === "" ? "-A" : `-n ${quoted(place)}`);
    if (state.quiet) words.push("--since 30d");
    return words.join(" ");
  }

  focusSearch(): void {
    this.search.focus();
  }

  /** All calls as rows, those within a node that stands for several too: the picture has them in its numbers. */
  private list(whole: Model, { model, at }: Folded, hits: ReadonlySet<string> | undefined): void {
    const all = whole.graph.edges.map((own): Call => ({ own, shown: { ...own, from: at(own.from), to: at(own.to) } }));
    const found = all.filter(({ own }) => !hits || hits.has(own.from) || hits.has(own.to));
    const listed = this.fold.checked ? readable(found) : found;
    const more = found.length - listed.length;
    write(this.more, more === 0 ? "" : `${more} more calls are not listed: a search finds them, and without Folded all are.`);
    this.table.update(listed.map(({ own, shown }) => row(this.app, model, shown, { model: whole, edge: own })));
  }

  /** What is shown of it: the namespaces that are opened, the node that is, and what was searched. */
  private folded(whole: Model, state: State, found: readonly MeshNode[]): Folded {
    if (!this.fold.checked) return { model: whole, at: (id) => id };
    const opened = new Set([state.place, whole.nodes.get(state.node)?.namespace ?? ""].filter((place) => place !== ""));
    return folded(whole, { opened, node: state.node, found });
  }

  private again(): void {
    if (this.last) this.update(this.last);
  }

  private first(): void {
    const [hit] = this.hits ?? [];
    if (hit === undefined) return;
    if (this.last?.state.view === "picture") this.picture.focus(hit);
    else this.open(hit);
  }

  private open(id: string): void {
    const node = this.shown?.nodes.get(id);
    if (node?.kind === "Namespace") this.app.go({ place: node.name, node: "", hops: 0 });
    else if (node?.kind === "Rest") {
      this.app.say(`${node.name} stand here as one: a search finds each, and without Folded all are drawn.`);
      this.search.focus();
    } else this.app.go({ node: this.last?.state.node === id ? "" : id, hops: this.last?.state.hops ?? 0 });
  }
}

/** Of very many calls those that fail most and are made most, in the order that all have. */
function readable(calls: Call[]): Call[] {
  if (calls.length <= MOST_ROWS) return calls;
  const ranked = [...calls].sort(
    ({ own: one }, { own: other }) => other.failure - one.failure || other.requests - one.requests || compare(one.id, other.id),
  );
  const kept = new Set(ranked.slice(0, MOST_ROWS));
  return calls.filter((call) => kept.has(call));
}

function legend(): HTMLElement {
  const words = ["● well", "▲ some calls fail", "◆ many calls fail", "□ no calls", "⊘ refused", "dashed: not in the mesh, or plaintext", "dotted: quiet"];
  const locks = [h("li", {}, lockSign("closed"), " mutual TLS"), h("li", {}, lockSign("open"), " not for all calls")];
  return h("ul", { class: "legend", "aria-label": "Signs" }, ...words.map((text) => h("li", {}, text)), ...locks);
}
