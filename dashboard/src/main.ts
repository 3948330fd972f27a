// The page: queries the mesh every two seconds, shows the answers, and shows when there are
// none any more.

import { type Edge, type Graph, Mesh, Refusal, type Scope, type Start, UNREADABLE } from "./api";
import { h, set, write } from "./dom";
import { compare, loss, Model } from "./model";
import { ExplainPage } from "./pages/explain";
import { GraphPage } from "./pages/graph";
import { HealthPage } from "./pages/health";
import { OverviewPage } from "./pages/overview";
import { PolicyPage } from "./pages/policy";
import { ProxiesPage } from "./pages/proxies";
import { SplitsPage } from "./pages/splits";
import { TapPage } from "./pages/tap";
import { WorkloadsPage } from "./pages/workloads";
import { clock, plain } from "./text";
import type { App, Extra, Page, State, View } from "./view";

/** The controller makes a new answer as often. */
const EACH = 2000;
/** How often a page of all queries minutes: a new one comes each minute. */
const MINUTES_EACH = 15_000;
/** How often the namespaces are queried, and after an answer that did not come. */
const PLACES_EACH = 60_000;
const PLACES_AGAIN = 10_000;
/** Max queries at once for the rest of an incomplete answer. */
const PLACES_AT_ONCE = 20;
/** Max time in which a controller that does not answer yet is queried again for what may be read, before the page begins. */
const FIRST_WITHIN = 10_000;
const KEY = "weft-dashboard";
/** How an address with a key goes on behind its path. */
const GIVEN = "#key=";
const ALL = "*";

class Dashboard implements App {
  readonly mesh: Mesh;
  private readonly pages: Page[];
  private readonly graph: GraphPage;
  private readonly nav = found("nav");
  private readonly main = found("main");
  private readonly alert = found("#alert");
  private readonly words = found("#words");
  private readonly footer = found("footer");
  private readonly links = new Map<string, HTMLAnchorElement>();
  private readonly places = h("select", { id: "place", change: () => this.go({ place: this.places.value === ALL ? "" : this.places.value, node: "", hops: 0 }) });
  /** What may be read, as far as it is known. */
  private scopes: Scope = { cluster: false, namespaces: [], incomplete: true };
  /** What is offered, so that it is written only when it changes. */
  private offered = "";
  private readonly command = h("code");
  private readonly known = h("span");
  /** In place of a page as long as nothing is known of where the reader went. */
  private readonly nothing = h("p", { class: "words" }, "Asking what there is.");
  private state: State;
  private view: View | undefined;
  private shown: Page | undefined;
  /** Grows with each move; an answer to an earlier query is dropped. */
  private turn = 0;
  private next = 0;
  private nextPlaces = 0;
  /** The minutes that were received last, by edge, and of which place and when. */
  private minutes: { place: string; at: number; since: string | undefined; edges: Map<string, Pick<Edge, "history" | "historyLeftOut">> } | undefined;
  /** The last query for the graph got no answer. */
  private away = false;

  constructor(key: string, private readonly start: Start) {
    this.mesh = new Mesh(key);
    this.graph = new GraphPage(this);
    this.pages = [new OverviewPage(this), this.graph, new WorkloadsPage(this), new SplitsPage(), new PolicyPage(this), new ExplainPage(this), new TapPage(this), new ProxiesPage(), new HealthPage(this)];
    this.state = this.read();
    for (const page of this.pages) {
      const link = h("a", { href: "#" }, page.title);
      this.links.set(page.name, link);
      this.nav.append(link);
    }
    found(".place").append(h("label", { for: "place" }, "Namespace"), this.places);
    this.footer.append(h("span", {}, "On a command line: ", this.command), this.known, h("span", {}, `weft ${start.version}`));
    found(".skip").addEventListener("click", (event) => {
      // The part behind # is the page's own address.
      event.preventDefault();
      this.main.focus();
    });
    window.addEventListener("hashchange", () => {
      // Another address of weft dashboard's, and no place of this page.
      if (location.hash.startsWith(GIVEN)) location.reload();
      else this.move();
    });
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.soon(0);
      void this.scope();
    });
  }

  run(): void {
    void this.scope();
    this.move();
  }

  go(change: Partial<State>): void {
    location.hash = address({ ...this.state, ...change });
  }

  say(words: string): void {
    write(this.words, words);
  }

  private move(): void {
    const before = this.state;
    this.state = this.read();
    const page = this.page();
    if (this.shown !== page || before.place !== this.state.place) this.shown?.leave?.();
    for (const [name, link] of this.links) {
      set(link, "href", `#${address({ ...this.state, page: name })}`);
      set(link, "aria-current", name === page.name ? "page" : undefined);
    }
    if (before.place !== this.state.place) {
      // What was known is of another place, and must not be read as if it were of this one.
      this.view = undefined;
      this.showAlert("", "");
      write(this.known, "");
      write(this.nothing, "Asking what there is.");
      // It may be a new one.
      if (this.state.place !== "" && !this.scopes.namespaces.includes(this.state.place)) void this.scope();
    }
    if (this.shown !== page) {
      const first = this.shown === undefined;
      this.shown = page;
      document.title = `${page.title}: Weft`;
      this.mount();
      if (!first) this.main.focus();
    }
    this.mount();
    this.choose();
    write(this.command, page.command(this.state));
    if (this.view) {
      this.view = { ...this.view, state: this.state };
      this.show();
    }
    this.turn++;
    this.soon(0);
  }

  private mount(): void {
    const page = this.page();
    const content = this.view || page.asks ? page.element : this.nothing;
    if (this.main.firstChild === content && this.main.childNodes.length === 1) return;
    const held = this.main.contains(document.activeElement);
    this.main.replaceChildren(content);
    // What had the keyboard is gone with the rest, and its user must not begin again at the top.
    if (held) this.main.focus();
  }

  private soon(within: number): void {
    clearTimeout(this.next);
    this.next = window.setTimeout(() => void this.ask(), within);
  }

  private async ask(): Promise<void> {
    const turn = ++this.turn;
    const state = this.state;
    try {
      const opened = state.node !== "" && this.page() === this.graph;
      const old = this.minutes?.place !== state.place || performance.now() - this.minutes.at > MINUTES_EACH;
      const deep = opened || (Boolean(this.page().history) && old);
      const quiet = state.quiet && this.page() === this.graph;
      const [graph, extra] = await Promise.all([this.mesh.graph(state.place, deep, quiet), this.extra(state)]);
      if (turn !== this.turn) return;
      if (this.view?.lost) this.say(this.view.lost.over);
      if (this.away) void this.scope();
      this.away = false;
      const at = Date.parse(graph.metadata.end);
      this.view = { state: this.state, model: new Model(this.remembered(whole(graph), deep)), extra, at, came: performance.now(), absent: false };
      this.settle();
    } catch (error) {
      if (turn !== this.turn) return;
      this.fail(error instanceof Refusal ? error : new Refusal(UNREADABLE, "the answer cannot be read"));
    }
    this.show();
    if (!document.hidden) this.soon(EACH);
  }

  /** Minutes are long beside the rest of an answer, so they are queried more rarely and kept. */
  private remembered(graph: Graph, deep: boolean): Graph {
    const { place } = this.state;
    if (deep) {
      const edges = graph.edges.map(({ id, history, historyLeftOut }) => [id, { ...(history ? { history } : {}), ...(historyLeftOut ? { historyLeftOut } : {}) }] as const);
      this.minutes = { place, at: performance.now(), since: graph.metadata.historySince, edges: new Map(edges) };
      return graph;
    }
    const held = this.minutes;
    if (!held || held.place !== place) return graph;
    // Of a new edge nothing is held, so all are queried again.
    if (graph.edges.some(({ id }) => !held.edges.has(id))) held.at = -Infinity;
    const edges = graph.edges.map((edge) => (edge.history ? edge : { ...edge, ...held.edges.get(edge.id) }));
    return { ...graph, metadata: held.since === undefined ? graph.metadata : { ...graph.metadata, historySince: held.since }, edges };
  }

  /** What the page needs besides the graph; what may not be read is reported and skipped. */
  private async extra(state: State): Promise<Extra> {
    const extra: Extra = { words: [] };
    for (const need of this.page().needs ?? []) {
      try {
        if (need === "proxies") {
          const { items, metadata } = await this.mesh.proxies(state.place);
          extra.proxies = items;
          const more = metadata?.remainingItemCount ?? 0;
          if (more > 0) extra.words.push(`${more} more proxies are not shown here and not judged; weft proxies lists all.`);
        } else if (need === "splits") extra.splits = await this.mesh.splits(state.place);
        else if (need === "routes") extra.routes = await this.mesh.routes(state.place);
        else if (need === "releases") extra.releases = await this.mesh.releases(state.place);
        else if (need === "experiments") extra.experiments = await this.mesh.experiments(state.place);
        else extra.targets = await this.mesh.targets(state.place);
      } catch (error) {
        // The graph may be answered all the same.
        if (!(error instanceof Refusal)) throw error;
        extra.words.push(error.message);
      }
    }
    return extra;
  }

  private fail(refusal: Refusal): void {
    const kind = refusal.lost || refusal.crowded ? "lost" : "refused";
    this.away = refusal.lost;
    // That there are answers again is so no longer.
    if (!this.view?.lost) this.say("");
    if (!this.view) {
      write(this.nothing, "Nothing is known of this place.");
      this.showAlert(kind, refusal.message);
      return;
    }
    const { cause, message } = refusal;
    const since = this.view.lost?.since ?? this.view.at + performance.now() - this.view.came;
    this.view.lost = { ...cause, since, message };
    this.showAlert(kind, `Stale since ${clock(this.view.at)}: ${cause.why}. What is shown is what was known then. ${message}`);
  }

  /** Where an answer came there is no alert, unless it is empty because there is no such namespace. */
  private settle(): void {
    if (!this.view || this.view.lost) return;
    const { place } = this.state;
    this.view.absent = this.view.model.nodes.size === 0 && this.absent(place);
    if (this.view.absent) this.showAlert("refused", `There is no namespace ${place}; another can be chosen above.`);
    else this.showAlert("", "");
  }

  /** Whether there is no namespace of this name, which only a reader of all namespaces can know. */
  private absent(place: string): boolean {
    return this.scopes.cluster && this.isMissing(place);
  }

  /** Whether all that may be read is listed, and this is not among it. */
  private isMissing(place: string): boolean {
    const { namespaces, truncated, incomplete } = this.scopes;
    return place !== "" && place !== ALL && !truncated && !incomplete && !namespaces.includes(place);
  }

  private showAlert(kind: string, words: string): void {
    set(this.alert, "class", kind);
    write(this.alert, words);
    set(this.main, "class", this.view?.lost ? "stale" : undefined);
  }

  private show(): void {
    if (!this.view) return;
    // Before it is filled: what is drawn depends on how much room there is.
    this.mount();
    this.page().update(this.view);
    const { metadata } = this.view.model.graph;
    const left = metadata.leftOut ? `; ${metadata.leftOut} edges and nodes had no place` : "";
    write(this.known, `Known at ${clock(this.view.at)}${loss(metadata) === undefined ? "" : "; not complete"}${left}`);
  }

  private page(): Page {
    return this.pages.find((page) => page.name === this.state.page) ?? (this.pages[0] as Page);
  }

  /**
   * The namespaces that may be read, again from time to time: one may be new. Without an answer
   * there is the one of the kubeconfig, and those that were known.
   */
  private async scope(atOnce = PLACES_AT_ONCE): Promise<void> {
    let [within, left] = [PLACES_EACH, PLACES_AT_ONCE];
    try {
      const scope = await this.mesh.scope();
      const before = scope.truncated || scope.incomplete ? this.scopes.namespaces : [];
      const namespaces = [...new Set([...before, ...scope.namespaces])].sort(compare);
      this.scopes = { ...scope, namespaces };
      const was = this.view?.absent;
      this.settle();
      if (this.view?.absent !== was) this.show();
      if (scope.incomplete && atOnce > 0) [within, left] = [EACH, atOnce - 1];
    } catch {
      within = PLACES_AGAIN;
    }
    this.choose();
    // Of several that were started the last one goes on. A page that is shown again queries again.
    clearTimeout(this.nextPlaces);
    if (!document.hidden) this.nextPlaces = window.setTimeout(() => void this.scope(left), within);
  }

  private choose(): void {
    const { cluster, namespaces } = this.scopes;
    const wanted = this.state.place === "" ? ALL : this.state.place;
    const offered = new Set([...(cluster || this.start.all || wanted === ALL ? [ALL] : []), ...namespaces]);
    if (!this.isMissing(this.start.namespace)) offered.add(this.start.namespace);
    // A typed name is a choice only as long as it is the current one.
    offered.add(wanted);
    const rows = [...offered].map((place): [string, string] => [place, place === ALL ? "All namespaces" : this.absent(place) ? `${place}: not there` : place]);
    const listed = rows.flat().join("\n");
    if (this.offered !== listed) {
      this.offered = listed;
      this.places.replaceChildren(...rows.map(([place, text]) => h("option", { value: place }, text)));
    }
    this.places.value = wanted;
  }

  private key(event: KeyboardEvent): void {
    const typing = (event.target as Element | null)?.matches("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (this.page() !== this.graph) this.go({ page: "graph" });
    setTimeout(() => this.graph.focusSearch());
  }

  private read(): State {
    const [, page = "", query = ""] = /^#\/(\w*)\??(.*)$/.exec(location.hash) ?? [];
    const params = new URLSearchParams(query);
    const place = params.get("ns") ?? (this.start.all ? ALL : this.start.namespace);
    return {
      page,
      place: place === ALL ? "" : place,
      node: params.get("node") ?? "",
      hops: Math.min(3, Number(params.get("hops")) || 0),
      view: params.get("view") === "table" ? "table" : "picture",
      by: params.get("by") === "service" ? "service" : "workload",
      quiet: params.get("quiet") === "1",
      ask: params.get("ask") ?? "",
      tap: params.get("tap") ?? "",
    };
  }
}

function address(state: State): string {
  const params = new URLSearchParams({ ns: state.place === "" ? ALL : state.place });
  if (state.node !== "") params.set("node", state.node);
  if (state.hops > 0) params.set("hops", String(state.hops));
  if (state.view !== "picture") params.set("view", state.view);
  if (state.by !== "workload") params.set("by", state.by);
  if (state.quiet) params.set("quiet", "1");
  if (state.ask !== "" && state.page === "explain") params.set("ask", state.ask);
  if (state.tap !== "" && state.page === "tap") params.set("tap", state.tap);
  return `/${state.page || "overview"}?${params}`;
}

/** An answer of any version has these. */
function whole(graph: Graph): Graph {
  return { metadata: graph.metadata, nodes: graph.nodes ?? [], edges: graph.edges ?? [] };
}

function found(selector: string): HTMLElement {
  const element = document.querySelector<HTMLElement>(selector);
  if (!element) throw new Error(`the page has no ${plain(selector)}`);
  return element;
}

/**
 * Takes the key out of the address, where it would be kept and shown. `refused`: it is not of this
 * start, and the tab has one that is.
 */
async function key(): Promise<{ held: string; refused: boolean }> {
  const before = sessionStorage.getItem(KEY) ?? "";
  if (!location.hash.startsWith(GIVEN)) return { held: before, refused: false };
  const given = /^[0-9a-f]+$/.exec(location.hash.slice(GIVEN.length))?.[0] ?? "";
  history.replaceState(null, "", location.pathname);
  if (before !== "" && before !== given && (await isRefused(given)) && !(await isRefused(before))) return { held: before, refused: true };
  sessionStorage.setItem(KEY, given);
  return { held: given, refused: false };
}

async function isRefused(held: string): Promise<boolean> {
  try {
    await new Mesh(held).start();
    return false;
  } catch (error) {
    return error instanceof Refusal && error.status === 403;
  }
}

/**
 * Where the page begins: with all namespaces, for a reader who may read them and has named none, or in
 * the kubeconfig's, or where that may not be read in the first one that may. A controller
 * that does not answer for a moment, as one that has just started, has not refused.
 */
async function first(mesh: Mesh): Promise<Start> {
  const start = await mesh.start();
  if (start.named || start.all || /[?&]ns=/.test(location.hash)) return start;
  const until = performance.now() + FIRST_WITHIN;
  for (;;) {
    try {
      const { cluster, namespaces, incomplete } = await mesh.scope();
      if (cluster || namespaces.includes(start.namespace)) return { ...start, all: cluster };
      if (!incomplete || performance.now() > until) return { ...start, namespace: namespaces[0] ?? start.namespace };
    } catch (error) {
      if (!(error instanceof Refusal) || !(error.lost || error.crowded) || performance.now() > until) return start;
      alarm(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, EACH));
  }
}

/** Shows why there is no page yet. */
function alarm(words: string): void {
  const alert = found("#alert");
  set(alert, "class", "lost");
  write(alert, words);
}

async function begin(): Promise<void> {
  try {
    const { held, refused } = await key();
    const page = new Dashboard(held, await first(new Mesh(held)));
    page.run();
    if (refused) page.say("The key in that address is not of this start of weft dashboard; the page goes on with its own.");
  } catch (error) {
    const words = error instanceof Refusal ? error.message : "the page could not start";
    alarm(words);
    write(found("main p"), words);
  }
}

void begin();
