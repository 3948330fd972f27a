// The graph as a picture. Panning is the browser's own scrolling, so a frame of it costs no
// script and no new drawing. One stop of the Tab key; arrows go from node to node.

import type { MeshNode } from "./api";
import { h, s, set, write } from "./dom";
import { layout, NODE, type Layout, type Place } from "./layout";
import { LOCKS, lockOf } from "./lock";
import { type Health, type Model, type Way, successRate, title, ways, worse } from "./model";
import { percent, plain, rate, short, succeeding } from "./text";

/** Letters of a name that fit into a node. */
const LETTERS = 19;
const ZOOMS = [0.3, 0.45, 0.65, 0.8, 1, 1.25, 1.6];
const UNZOOMED = 4;
/** The smallest size at which names can be read. */
const READABLE = 2;
/** From the line to the words above it, and to a lock below them. */
const ABOVE = 5;
const BELOW = 9;
/** The way back goes through the same middle as the way there; its signs stand so much lower. */
const BACK = 26;

/** What a node's health looks like without colour, and is called. */
const MARKS: Record<Health, { path: string; word: string }> = {
  ok: { path: "M0-6a6 6 0 1 0 .01 0z", word: "well" },
  warn: { path: "M0-7L7 6H-7z", word: "some calls fail" },
  bad: { path: "M0-8L8 0L0 8L-8 0z", word: "many calls fail" },
  idle: { path: "M-5-5H5V5H-5z", word: "no calls" },
};

interface Drawn { group: SVGGElement; box: SVGRectElement; mark: SVGPathElement; name: SVGTextElement; below: SVGTextElement; told: SVGTitleElement }
interface Line { path: SVGPathElement; label: SVGTextElement; lock: SVGPathElement }

export class Picture {
  readonly element: HTMLElement;
  private readonly svg = s("svg", { role: "group", "aria-label": "Service graph: arrow keys go from node to node, Enter opens one" });
  private readonly lines = s("g", { "aria-hidden": "true" });
  private readonly boxes = s("g");
  private readonly scroller: HTMLElement;
  private readonly drawn = new Map<string, Drawn>();
  private readonly drawnWays = new Map<string, Line>();
  private placed: Layout = { places: new Map(), lanes: new Map(), width: 1, height: 1 };
  private shape = "";
  private zoom = UNZOOMED;
  private current = "";
  /** Whether the person has said how large it shall be. */
  private said = false;

  constructor(private readonly open: (id: string) => void) {
    this.svg.append(marker("arrow"), this.lines, this.boxes);
    this.scroller = h("div", { class: "scroller" });
    this.scroller.append(this.svg);
    const zoom = (by: number) => () => {
      this.said = true;
      this.setZoom(this.zoom + by);
    };
    this.element = h(
      "div",
      { class: "picture" },
      h(
        "div",
        { class: "zoom", role: "group", "aria-label": "Size of the picture" },
        h("button", { type: "button", "aria-label": "Larger", click: zoom(1) }, "+"),
        h("button", { type: "button", "aria-label": "Smaller", click: zoom(-1) }, "−"),
        h("button", { type: "button", click: () => this.fit(0) }, "Fit"),
      ),
      this.scroller,
    );
    this.svg.addEventListener("keydown", (event) => this.key(event));
    drag(this.scroller);
  }

  /** `hits`: ids that a search found; undefined where nothing is searched. */
  update(model: Model, hits: ReadonlySet<string> | undefined, selected: string): void {
    const all = ways(model.graph.edges);
    const ids = [...model.nodes.keys()];
    const shape = [...ids].sort().join("\n") + "\n\n" + all.map((way) => `${way.from}\n${way.to}`).join("\n");
    if (shape !== this.shape) {
      this.shape = shape;
      this.placed = layout(ids, all);
      this.size();
      // What fits is shown whole; what is far too large is read piece by piece.
      if (!this.said) this.fit(READABLE);
    }
    if (!this.placed.places.has(this.current)) this.current = this.reading()[0] ?? "";
    this.drawNodes(model, hits, selected);
    this.drawWays(model, all, selected);
  }

  /** Moves the keyboard to a node. */
  focus(id: string): void {
    const drawn = this.drawn.get(id);
    if (!drawn) return;
    this.drawn.get(this.current)?.group.setAttribute("tabindex", "-1");
    this.current = id;
    drawn.group.setAttribute("tabindex", "0");
    drawn.group.focus();
    drawn.group.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  private drawNodes(model: Model, hits: ReadonlySet<string> | undefined, selected: string): void {
    for (const [id, held] of this.drawn) {
      if (model.nodes.has(id)) continue;
      held.group.remove();
      this.drawn.delete(id);
    }
    const several = new Set([...model.nodes.values()].map((node) => node.namespace ?? "")).size > 2;
    for (const [id, node] of model.nodes) {
      const place = this.placed.places.get(id);
      if (!place) continue;
      const drawn = this.drawn.get(id) ?? this.make(id);
      const sums = model.sums(id);
      const mark = MARKS[sums.health];
      const outside = node.meshed === 0 || node.kind === "External" || node.kind === "Outside";
      const faint = hits !== undefined && !hits.has(id);
      set(drawn.group, "transform", `translate(${place.x} ${place.y})`);
      set(drawn.group, "class", `node ${sums.health}${outside ? " unmeshed" : ""}${faint ? " faint" : ""}${id === selected ? " selected" : ""}${node.gone ? " gone" : ""}`);
      set(drawn.group, "tabindex", id === this.current ? "0" : "-1");
      set(drawn.group, "aria-pressed", id === selected ? "true" : "false");
      set(drawn.mark, "d", mark.path);
      write(drawn.name, short(title(node), LETTERS));
      write(drawn.below, below(several ? node : undefined, sums, model.seconds));
      // Its name for a screen reader too.
      write(drawn.told, spoken(node, sums, model.seconds, mark.word, outside));
    }
  }

  private make(id: string): Drawn {
    const drawn: Drawn = {
      group: s("g", { role: "button" }),
      box: s("rect", { width: NODE.width, height: NODE.height, rx: 7 }),
      mark: s("path", { class: "mark", transform: `translate(16 ${NODE.height / 2})` }),
      name: s("text", { class: "name", x: 31, y: 19 }),
      below: s("text", { class: "below", x: 31, y: 36 }),
      told: s("title"),
    };
    drawn.group.append(drawn.told, drawn.box, drawn.mark, drawn.name, drawn.below);
    drawn.group.addEventListener("click", () => {
      this.focus(id);
      this.open(id);
    });
    this.drawn.set(id, drawn);
    this.boxes.append(drawn.group);
    return drawn;
  }

  private drawWays(model: Model, all: Way[], selected: string): void {
    const keys = new Set(all.map((way) => `${way.from}\n${way.to}`));
    const wanted = new Set<string>();
    for (const way of all) {
      const key = `${way.from}\n${way.to}`;
      const [from, to] = [this.placed.places.get(way.from), this.placed.places.get(way.to)];
      if (!from || !to) continue;
      wanted.add(key);
      let line = this.drawnWays.get(key);
      if (!line) {
        line = { path: s("path", { "marker-end": "url(#arrow)" }), label: s("text"), lock: s("path") };
        this.drawnWays.set(key, line);
        this.lines.append(line.path, line.label, line.lock);
      }
      const near = way.from === selected || way.to === selected;
      const far = selected !== "" && !near;
      const state = way.refused > 0 && worse(way.health, "ok") === "ok" ? "refused" : way.health;
      set(line.path, "class", `way ${state}${way.mtls !== undefined && way.mtls < 1 ? " plaintext" : ""}${way.quiet ? " quiet" : ""}${far ? " far" : ""}${near ? " near" : ""}`);
      const lanes = this.placed.lanes.get(key) ?? [];
      set(line.path, "d", curve(from, to, lanes));
      const label = near || way.refused > 0 || way.health === "bad" ? labelled(way, model.seconds) : "";
      write(line.label, label);
      const at = middle(from, to, lanes, keys.has(`${way.to}\n${way.from}`));
      set(line.label, "class", `label ${state}${far ? " far" : ""}`);
      set(line.label, "x", at.x);
      set(line.label, "y", at.y - ABOVE);
      const lock = lockOf(way.mtls);
      set(line.lock, "class", lock && `lock ${lock}${far ? " far" : ""}`);
      set(line.lock, "d", lock && LOCKS[lock]);
      set(line.lock, "transform", `translate(${at.x} ${at.y + (label === "" ? 0 : BELOW)})`);
    }
    for (const [key, line] of this.drawnWays) {
      if (wanted.has(key)) continue;
      line.path.remove();
      line.label.remove();
      line.lock.remove();
      this.drawnWays.delete(key);
    }
  }

  /** Ids in the order of reading: by column, then by row. */
  private reading(): string[] {
    const places = [...this.placed.places];
    return places.sort(([, one], [, other]) => one.x - other.x || one.y - other.y).map(([id]) => id);
  }

  private key(event: KeyboardEvent): void {
    const directions: Record<string, [number, number]> = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const direction = directions[event.key];
    const reading = this.reading();
    let next: string | undefined;
    if (direction) next = this.nearest(direction);
    else if (event.key === "Home") next = reading[0];
    else if (event.key === "End") next = reading.at(-1);
    else if (event.key === "Enter" || event.key === " ") this.open(this.current);
    else return;
    event.preventDefault();
    if (next) this.focus(next);
  }

  private nearest([dx, dy]: [number, number]): string | undefined {
    const here = this.placed.places.get(this.current);
    if (!here) return undefined;
    let best: { id: string; far: number } | undefined;
    for (const [id, place] of this.placed.places) {
      const [x, y] = [place.x - here.x, place.y - here.y];
      const ahead = x * dx + y * dy;
      if (ahead <= 0) continue;
      const far = ahead + 2 * Math.abs(x * dy + y * dx);
      if (!best || far < best.far) best = { id, far };
    }
    return best?.id;
  }

  private setZoom(to: number): void {
    this.zoom = Math.max(0, Math.min(ZOOMS.length - 1, to));
    this.size();
  }

  /** The largest size that shows all, if it is at least the one given. */
  private fit(least: number): void {
    if (this.scroller.clientWidth === 0) return;
    const room = Math.min(this.scroller.clientWidth / this.placed.width, this.scroller.clientHeight / this.placed.height);
    const fitting = Math.min(UNZOOMED, ZOOMS.filter((zoom) => zoom <= room).length - 1);
    this.setZoom(fitting < least ? UNZOOMED : fitting);
  }

  private size(): void {
    const { width, height } = this.placed;
    const zoom = ZOOMS[this.zoom] ?? 1;
    set(this.svg, "viewBox", `0 0 ${width} ${height}`);
    set(this.svg, "width", Math.round(width * zoom));
    set(this.svg, "height", Math.round(height * zoom));
  }
}

type Sums = ReturnType<Model["sums"]>;

/** Of a node among those of several namespaces its own too. */
function below(node: MeshNode | undefined, sums: Sums, seconds: number): string {
  const parts = node?.namespace ? [short(node.namespace, 12)] : [];
  if (sums.requests === 0) parts.push("no calls");
  else parts.push(`${rate(sums.requests, seconds)}/s`);
  parts.push(...succeeding(successRate(sums)));
  if (sums.refused > 0) parts.push(`⊘ ${sums.refused}`);
  return parts.join(" · ");
}

function spoken(node: MeshNode, sums: Sums, seconds: number, word: string, outside: boolean): string {
  const name = node.kind === "Rest" ? node.name : `${node.kind} ${node.name}`;
  const parts = [`${name}${node.namespace ? ` in ${node.namespace}` : ""}`, word];
  if (sums.requests > 0) parts.push([`${rate(sums.requests, seconds)} calls per second`, ...succeeding(successRate(sums), " succeed")].join(", "));
  if (sums.refused > 0) parts.push(`${sums.refused} refused`);
  parts.push(outside ? "not in the mesh" : node.pods === undefined ? "" : `${node.meshed ?? 0} of ${node.pods} pods in the mesh`);
  return plain(parts.filter((part) => part !== "").join("; "));
}

function labelled(way: Way, seconds: number): string {
  const parts = [`${rate(way.requests, seconds)}/s`];
  if (way.refused > 0) parts.push(`⊘ ${way.refused} refused`);
  const failed = way.failure - way.refused;
  if (failed > 0) parts.push(`${percent(failed / (way.success + way.failure))} fail`);
  return parts.join(" · ");
}

/** Where the signs of a way stand. */
function middle(from: Place, to: Place, lanes: Place[], both: boolean): Place {
  const [lane] = lanes;
  if (lane) return { x: lane.x + NODE.width / 2, y: lane.y };
  const back = both && to.x <= from.x ? BACK : 0;
  return { x: (from.x + to.x + NODE.width) / 2, y: (from.y + to.y + NODE.height) / 2 + back };
}

/** From the right side of one node through its lanes to the left side of another; in a bow where it goes back. */
function curve(from: Place, to: Place, lanes: Place[]): string {
  let [x, y] = [from.x + NODE.width, from.y + NODE.height / 2];
  let path = `M${x} ${y}`;
  const reach = (x2: number, y2: number): void => {
    const bend = x2 > x ? (x2 - x) / 2 : 70;
    path += `C${x + bend} ${y} ${x2 - bend} ${y2} ${x2} ${y2}`;
    [x, y] = [x2, y2];
  };
  for (const lane of lanes) {
    reach(lane.x, lane.y);
    x += NODE.width;
    path += `H${x}`;
  }
  reach(to.x - 3, to.y + NODE.height / 2);
  return path;
}

function marker(id: string): SVGDefsElement {
  const head = s("path", { d: "M0 0L8 4L0 8z", class: "head" });
  return s("defs", {}, s("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerUnits: "userSpaceOnUse", markerWidth: 9, markerHeight: 9, orient: "auto" }, head));
}

/** Dragging the ground scrolls. */
function drag(scroller: HTMLElement): void {
  let from: { x: number; y: number } | undefined;
  scroller.addEventListener("pointerdown", (event) => {
    if ((event.target as Element).closest(".node") || event.button !== 0) return;
    from = { x: event.clientX + scroller.scrollLeft, y: event.clientY + scroller.scrollTop };
  });
  scroller.addEventListener("pointermove", (event) => {
    if (from) scroller.scrollTo(from.x - event.clientX, from.y - event.clientY);
  });
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) scroller.addEventListener(end, () => (from = undefined));
}
