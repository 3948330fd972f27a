// The graph as a picture. Panning is the browser's own scrolling, so a frame of it costs no
// script and no new drawing. One stop of the Tab key; arrows go from node to node.

import type { MeshNode } from "./api";
import { h, s, set, write } from "./dom";
import { layout, type Layout, MOST_ALIGNED, type Place, type Size } from "./layout";
import { LOCKS, lockOf } from "./lock";
import { type Health, type Model, type Way, successRate, title, ways, worse } from "./model";
import { percent, plain, rate, succeeding } from "./text";

/** How wide a node is at most; longer names lose their middle. */
const WIDE = 300;
/** The same where there are very many. */
const WIDE_OF_MANY = 230;
/** Heights of a node, without and with a line for its namespace. */
const LOW = 48;
const HIGH = 64;
/** Where texts begin in a node, and how far from its end they stay. */
const TEXT = 31;
const PADDING = 10;
/** What has room in each node, because a picture must not change with its numbers. */
const NUMBERS = "99.9/s · 99.99 % · ⊘ 999";
const FONTS = { name: "600 13px", below: "12px" } as const;
const ZOOMS = [0.3, 0.45, 0.65, 0.8, 1, 1.25, 1.6];
/** All of a large picture is shown as small as this. */
const SMALLEST = 0.2;
/** Kept free, so that a picture that fits needs none. */
const SCROLLBAR = 18;
/** The smallest size at which names can be read. */
const READABLE = 0.65;
/** Where that does not show all. */
const PART = 0.8;
/** From the line to the words above it, and to a lock below them. */
const ABOVE = 5;
const BELOW = 9;
/** Room of these signs above and below the line, and how wide a lock is. */
const SIGNS = { up: 17, down: 17 };
const LOCK = 14;
/** How far a way out of a node and back into it goes. */
const BOW = 40;

/** What a node's health looks like without colour, and is called. */
const MARKS: Record<Health, { path: string; word: string }> = {
  ok: { path: "M0-6a6 6 0 1 0 .01 0z", word: "well" },
  warn: { path: "M0-7L7 6H-7z", word: "some calls fail" },
  bad: { path: "M0-8L8 0L0 8L-8 0z", word: "many calls fail" },
  idle: { path: "M-5-5H5V5H-5z", word: "no calls" },
};

interface Drawn { group: SVGGElement; box: SVGRectElement; mark: SVGPathElement; name: SVGTextElement; where: SVGTextElement; below: SVGTextElement; title: SVGTitleElement }
interface Line { path: SVGPathElement; label: SVGTextElement; lock: SVGPathElement }

export class Picture {
  readonly element: HTMLElement;
  private readonly svg = s("svg", { role: "group", "aria-label": "Service graph: arrow keys go from node to node, Enter opens one" });
  private readonly lines = s("g", { "aria-hidden": "true" });
  private readonly boxes = s("g");
  /** Above the boxes, so that no box covers a word. */
  private readonly signs = s("g", { "aria-hidden": "true", class: "signs" });
  private readonly scroller: HTMLElement;
  private readonly sizes: HTMLElement;
  private readonly drawn = new Map<string, Drawn>();
  private readonly drawnWays = new Map<string, Line>();
  private placed: Layout = { places: new Map(), routes: new Map(), labels: new Map(), node: { width: WIDE, height: LOW }, width: 1, height: 1 };
  private shape = "";
  private place = "";
  /** Not shown yet since the namespace was chosen. */
  private fresh = true;
  private zoom = 1;
  private current = "";
  private selected = "";
  /** Whether the reader has set its size. */
  private said = false;

  constructor(private readonly open: (id: string) => void) {
    this.svg.append(marker("arrow"), this.lines, this.boxes, this.signs);
    this.scroller = h("div", { class: "scroller" });
    this.scroller.append(this.svg);
    const zoom = (to: () => number | undefined) => () => {
      this.said = true;
      this.setZoom(to() ?? this.zoom);
    };
    this.sizes = h(
      "div",
      { class: "zoom", role: "group", "aria-label": "Size of the picture" },
      h("button", { type: "button", "aria-label": "Larger", click: zoom(() => ZOOMS.find((one) => one > this.zoom)) }, "+"),
      h("button", { type: "button", "aria-label": "Smaller", click: zoom(() => ZOOMS.findLast((one) => one < this.zoom)) }, "−"),
      h("button", { type: "button", click: () => this.fit(0) }, "Fit"),
    );
    this.element = h("div", { class: "picture" }, this.sizes, this.scroller);
    this.svg.addEventListener("keydown", (event) => this.key(event));
    drag(this.scroller);
  }

  /** `place`: the namespace that is shown; `hits`: ids that a search found, undefined where nothing is searched. */
  update(place: string, model: Model, hits: ReadonlySet<string> | undefined, selected: string): void {
    const all = ways(model.graph.edges);
    const ids = [...model.nodes.keys()];
    // The size that was set for one namespace does not apply to another.
    if (this.place !== place) [this.place, this.said, this.fresh] = [place, false, true];
    const shape = [...ids].sort().join("\n") + "\n\n" + all.map((way) => `${way.from}\n${way.to}`).join("\n");
    if (shape !== this.shape) {
      this.shape = shape;
      const before = this.placed.places;
      this.placed = layout(ids, all, sizeOf(model));
      if (2 * ids.filter((id) => before.has(id)).length < ids.length) this.fresh = true;
      this.size();
      // What fits is shown whole; what is far too large is read piece by piece, the worst first.
      if (!this.said) this.fit(READABLE);
    }
    if (this.fresh && this.scroller.clientWidth > 0) {
      this.fresh = false;
      this.fit(READABLE);
      this.show(selected === "" ? worst(model) : selected);
    } else if (selected !== "" && selected !== this.selected && !this.isShown(selected)) this.show(selected);
    this.selected = selected;
    if (!this.placed.places.has(this.current)) this.current = this.reading()[0] ?? "";
    set(this.svg, "class", ids.length > MOST_ALIGNED ? "many" : undefined);
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

  private isShown(id: string): boolean {
    const place = this.placed.places.get(id);
    if (!place) return true;
    const [x, y] = [place.x * this.zoom - this.scroller.scrollLeft, place.y * this.zoom - this.scroller.scrollTop];
    return x >= 0 && y >= 0 && x + this.placed.node.width * this.zoom <= this.scroller.clientWidth && y + this.placed.node.height * this.zoom <= this.scroller.clientHeight;
  }

  /** Scrolls the picture, and nothing else, until a node is in the middle. */
  private show(id: string | undefined): void {
    const place = this.placed.places.get(id ?? "");
    const { zoom } = this;
    const { width, height } = this.placed.node;
    const { clientWidth, clientHeight } = this.scroller;
    const at = place ?? { x: 0, y: 0 };
    this.scroller.scrollTo((at.x + width / 2) * zoom - clientWidth / 2, (at.y + height / 2) * zoom - clientHeight / 2);
  }

  private drawNodes(model: Model, hits: ReadonlySet<string> | undefined, selected: string): void {
    for (const [id, held] of this.drawn) {
      if (model.nodes.has(id)) continue;
      held.group.remove();
      this.drawn.delete(id);
    }
    const several = ofSeveral(model);
    const { node: size } = this.placed;
    const room = size.width - TEXT - PADDING;
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
      set(drawn.box, "width", size.width);
      set(drawn.box, "height", size.height);
      set(drawn.mark, "d", mark.path);
      set(drawn.mark, "transform", `translate(16 ${size.height / 2})`);
      write(drawn.name, fitting(title(node), FONTS.name, room));
      write(drawn.where, several ? fitting(node.namespace ?? "", FONTS.below, room) : "");
      set(drawn.below, "y", size.height - 11);
      write(drawn.below, fitting(below(sums, model.seconds), FONTS.below, room));
      // Its name for a screen reader too.
      write(drawn.title, spoken(node, sums, model.seconds, mark.word, outside));
    }
  }

  private make(id: string): Drawn {
    const drawn: Drawn = {
      group: s("g", { role: "button" }),
      box: s("rect", { rx: 7 }),
      mark: s("path", { class: "mark" }),
      name: s("text", { class: "name", x: TEXT, y: 20 }),
      where: s("text", { class: "where", x: TEXT, y: 36 }),
      below: s("text", { class: "below", x: TEXT }),
      title: s("title"),
    };
    drawn.group.append(drawn.title, drawn.box, drawn.mark, drawn.name, drawn.where, drawn.below);
    drawn.group.addEventListener("click", () => {
      this.focus(id);
      this.open(id);
    });
    this.drawn.set(id, drawn);
    this.boxes.append(drawn.group);
    return drawn;
  }

  private drawWays(model: Model, all: Way[], selected: string): void {
    const wanted = new Set<string>();
    const taken = new Taken(this.placed);
    // Of labels that have no room beside each other the more important one stays.
    const weight = (way: Way): number => (way.from === selected || way.to === selected ? 2 : 0) + (way.health === "bad" || way.refused > 0 ? 1 : 0);
    const ranked = [...all].sort((one, other) => weight(other) - weight(one));
    for (const way of ranked) {
      const key = `${way.from}\n${way.to}`;
      const [from, to] = [this.placed.places.get(way.from), this.placed.places.get(way.to)];
      if (!from || !to) continue;
      wanted.add(key);
      let line = this.drawnWays.get(key);
      if (!line) {
        line = { path: s("path", { "marker-end": "url(#arrow)" }), label: s("text"), lock: s("path") };
        this.drawnWays.set(key, line);
        this.lines.append(line.path);
        this.signs.append(line.label, line.lock);
      }
      const near = way.from === selected || way.to === selected;
      const far = selected !== "" && !near;
      const state = way.refused > 0 && worse(way.health, "ok") === "ok" ? "refused" : way.health;
      set(line.path, "class", `way ${state}${way.mtls !== undefined && way.mtls < 1 ? " plaintext" : ""}${way.quiet ? " quiet" : ""}${far ? " far" : ""}${near ? " near" : ""}`);
      const route = this.placed.routes.get(key) ?? [];
      set(line.path, "d", curve(from, to, route, this.placed.node));
      const kept = this.placed.labels.get(key);
      const at = kept ?? middle(from, to, route, this.placed.node);
      const worth = near || way.refused > 0 || way.health === "bad" || (kept !== undefined && way.requests > 0);
      const words = worth ? labelled(way, model.seconds) : "";
      const label = words !== "" && taken.take(at, width(words, FONTS.below) + 6) ? words : "";
      const bare = label !== "" || taken.take(at, LOCK);
      write(line.label, label);
      set(line.label, "class", `label ${state}${far ? " far" : ""}`);
      set(line.label, "x", at.x);
      set(line.label, "y", at.y - ABOVE);
      const lock = bare ? lockOf(way.mtls) : undefined;
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
    this.zoom = to;
    this.size();
  }

  /** The largest size that shows all, if it is at least the one given. */
  private fit(least: number): void {
    if (this.scroller.clientWidth === 0) return;
    const most = parseFloat(getComputedStyle(this.element).maxHeight) - this.sizes.offsetHeight || this.scroller.clientHeight;
    const room = Math.min((this.scroller.clientWidth - SCROLLBAR) / this.placed.width, (most - SCROLLBAR) / this.placed.height);
    this.setZoom(room < least ? PART : Math.min(1, Math.max(room, SMALLEST)));
  }

  private size(): void {
    const { width, height } = this.placed;
    const { zoom } = this;
    set(this.svg, "viewBox", `0 0 ${width} ${height}`);
    set(this.svg, "width", Math.round(width * zoom));
    set(this.svg, "height", Math.round(height * zoom));
  }
}

type Sums = ReturnType<Model["sums"]>;

/** Whether names of namespaces stand in the nodes. */
function ofSeveral({ nodes }: Model): boolean {
  return new Set([...nodes.values()].map((node) => node.namespace ?? "")).size > 2;
}

/** As wide as the longest name wants it, if that is not too wide. */
function sizeOf(model: Model): Size {
  const longest = [...model.nodes.values()].reduce((most, node) => Math.max(most, width(title(node), FONTS.name)), width(NUMBERS, FONTS.below));
  const wanted = Math.ceil(longest) + TEXT + PADDING;
  return { width: Math.min(model.nodes.size > MOST_ALIGNED ? WIDE_OF_MANY : WIDE, wanted), height: ofSeveral(model) ? HIGH : LOW };
}

/** The first of those that fare worst; none where all are well. */
function worst(model: Model): string | undefined {
  for (const wanted of ["bad", "warn"] as const) {
    const found = [...model.nodes.keys()].sort().find((id) => model.sums(id).health === wanted);
    if (found !== undefined) return found;
  }
  return undefined;
}

const ruler = document.createElement("canvas").getContext("2d");
let family = "";
const widths = new Map<string, number>();
/** Widths of texts, cached. */
const MOST_WIDTHS = 5000;

function width(text: string, font: string): number {
  const key = `${font}\n${text}`;
  let known = widths.get(key);
  if (known === undefined) {
    if (widths.size >= MOST_WIDTHS) widths.clear();
    family ||= getComputedStyle(document.body).fontFamily;
    if (ruler) ruler.font = `${font} ${family}`;
    known = ruler?.measureText(text).width ?? 8 * text.length;
    widths.set(key, known);
  }
  return known;
}

/** A text that fits; else without its middle, since names differ at both ends. */
function fitting(text: string, font: string, room: number): string {
  const letters = [...plain(text)];
  if (width(letters.join(""), font) <= room) return letters.join("");
  for (let kept = Math.min(letters.length - 1, 80); kept > 2; kept--) {
    const end = Math.floor(kept / 2);
    const cut = `${letters.slice(0, kept - end).join("")}…${letters.slice(letters.length - end).join("")}`;
    if (width(cut, font) <= room) return cut;
  }
  return "…";
}

/** What covers the ground: nodes, and the signs that were put there. */
class Taken {
  private readonly cells = new Map<string, { left: number; top: number; right: number; bottom: number }[]>();

  constructor({ places, node }: Layout) {
    for (const { x, y } of places.values()) this.put({ left: x, top: y, right: x + node.width, bottom: y + node.height });
  }

  /** Takes room around a point, unless something is there. */
  take({ x, y }: Place, wide: number): boolean {
    const box = { left: x - wide / 2, top: y - SIGNS.up, right: x + wide / 2, bottom: y + SIGNS.down };
    for (const key of cells(box)) {
      for (const other of this.cells.get(key) ?? []) {
        if (box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom) return false;
      }
    }
    this.put(box);
    return true;
  }

  private put(box: { left: number; top: number; right: number; bottom: number }): void {
    for (const key of cells(box)) this.cells.set(key, [...(this.cells.get(key) ?? []), box]);
  }
}

const CELL = 128;

function* cells({ left, top, right, bottom }: { left: number; top: number; right: number; bottom: number }): Generator<string> {
  for (let x = Math.floor(left / CELL); x <= Math.floor(right / CELL); x++) {
    for (let y = Math.floor(top / CELL); y <= Math.floor(bottom / CELL); y++) yield `${x} ${y}`;
  }
}

function below(sums: Sums, seconds: number): string {
  const parts = [sums.requests === 0 ? "no calls" : `${rate(sums.requests, seconds)}/s`];
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

/** Where the signs of a way stand for which no place was kept. */
function middle(from: Place, to: Place, route: Place[], { width, height }: Size): Place {
  if (from === to) return { x: from.x + width / 2, y: from.y + height + BOW / 2 };
  const point = route[Math.floor(route.length / 2)];
  if (point) return point;
  // On the curve, off its middle, so that a way back has its signs elsewhere.
  const part = 0.4;
  const back = to.x < from.x;
  const [x, end] = [back ? from.x : from.x + width, back || to.x === from.x ? to.x + width : to.x];
  const [level, rise] = [1.5 * part * (1 - part) + part ** 3, part * part * (3 - 2 * part)];
  if (to.x === from.x) return { x: x + BOW * 3 * part * (1 - part), y: from.y + height / 2 + (to.y - from.y) * rise };
  return { x: x + (end - x) * level, y: from.y + height / 2 + (to.y - from.y) * rise };
}

/** From the side of one node, through the points of its route, to the side of another. */
function curve(from: Place, to: Place, route: Place[], { width, height }: Size): string {
  if (from === to) {
    const [left, right, bottom] = [from.x + width * 0.3, from.x + width * 0.7, from.y + height];
    return `M${right} ${bottom}C${right} ${bottom + BOW} ${left} ${bottom + BOW} ${left} ${bottom + 3}`;
  }
  const back = to.x < from.x;
  let [x, y] = [back ? from.x : from.x + width, from.y + height / 2];
  let path = `M${x} ${y}`;
  const beside = to.x === from.x;
  const end = { x: back || beside ? to.x + width + 3 : to.x - 3, y: to.y + height / 2 };
  if (beside) return `${path}C${x + BOW} ${y} ${end.x + BOW} ${end.y} ${end.x} ${end.y}`;
  for (const point of [...route, end]) {
    const bend = (point.x - x) / 2;
    path += `C${x + bend} ${y} ${point.x - bend} ${point.y} ${point.x} ${point.y}`;
    [x, y] = [point.x, point.y];
  }
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
