// Where the nodes of the graph stand: dagre lays them out in layers, callers on the left, and
// routes each way so that neither it nor its label crosses a node. Nodes without a way stand in
// rows below, not in one tall column. The same ends give the same picture, whatever their
// numbers and their order, so that a picture that is looked at does not jump. Of very many nodes
// only the layers and their order are dagre's: they stand close, in as many columns as make the
// whole about as wide and high as a window.

import { graphlib, layout as dagre } from "@dagrejs/dagre";
import { compare } from "./model";

const GAP = { x: 24, y: 16 };
const MARGIN = 24;
/** Between a way and what stands beside it. */
const WAY_GAP = 6;
/** Kept free in the middle of each way for its signs; constant, because numbers change. */
const LABEL = { width: 116, height: 34 };
/** With more ways than these only some have a label at a time, and free places cost too much room. */
const MOST_LABELS = 80;
/** Layers that all ways together may cross; routing more takes seconds and draws a ball of wool. */
const MOST_CROSSED = 400;
/** With more nodes than these closeness counts for more than straight ways. */
export const MOST_ALIGNED = 60;
/** Width of a picture of those for its height. */
const SHAPE = 1.8;
/** Rows of nodes without a way are about as wide as a window, or as the rest. */
const ROW_WIDTH = 1100;

export interface Place { x: number; y: number }
export interface Size { width: number; height: number }
export interface Layout {
  /** Upper left corners. */
  places: Map<string, Place>;
  /** What each routed way goes through, by `from\nto`. */
  routes: Map<string, Place[]>;
  /** The free place in the middle of a way, by `from\nto`, where one was kept. */
  labels: Map<string, Place>;
  node: Size;
  width: number;
  height: number;
}

type Way = { from: string; to: string };

export function layout(ids: readonly string[], ways: readonly Way[], node: Size): Layout {
  const known = new Set(ids);
  const drawn = ways.filter(({ from, to }) => from !== to && known.has(from) && known.has(to));
  drawn.sort((one, other) => compare(one.from, other.from) || compare(one.to, other.to));
  const joined = new Set(drawn.flatMap(({ from, to }) => [from, to]));
  const sorted = [...ids].sort(compare);
  const placed: Layout = { places: new Map(), routes: new Map(), labels: new Map(), node, width: 0, height: MARGIN };
  if (joined.size > 0) layered(placed, sorted.filter((id) => joined.has(id)), drawn);
  rows(placed, sorted.filter((id) => !joined.has(id)));
  return placed;
}

/** Nodes with ways, by dagre. */
function layered(placed: Layout, ids: string[], ways: Way[]): void {
  const { node } = placed;
  const routed = crossed(ids, ways) > MOST_CROSSED ? forest(ids, ways) : ways;
  if (ids.length > MOST_ALIGNED) {
    packed(placed, layersOf(ids, routed, node));
    return;
  }
  const labelled = routed.length <= MOST_LABELS;
  const graph = arranged(ids, routed, node, labelled);
  for (const id of ids) {
    const { x, y } = graph.node(id) as Place;
    placed.places.set(id, { x: Math.round(x - node.width / 2), y: Math.round(y - node.height / 2) });
  }
  for (const { from, to } of routed) {
    const { points, x, y } = graph.edge(from, to) as { points: Place[] } & Partial<Place>;
    const key = `${from}\n${to}`;
    const label = x === undefined || y === undefined ? undefined : { x, y };
    if (label) placed.labels.set(key, label);
    // Straight below its label.
    const level = (point: Place): Place[] => (label && point.x === label.x ? [-1, 1].map((side) => ({ x: point.x + (side * LABEL.width) / 4, y: point.y })) : [point]);
    const forward = (points[0]?.x ?? 0) < (points.at(-1)?.x ?? 0);
    placed.routes.set(key, points.slice(1, -1).flatMap((point) => (forward ? level(point) : level(point).reverse())));
  }
  const { width = 0, height = 0 } = graph.graph() as Partial<Size>;
  // Ways within a column bow out of it.
  placed.width = Math.ceil(width) + MARGIN;
  placed.height = Math.ceil(height);
}

function arranged(ids: string[], ways: Way[], node: Size, labelled: boolean): graphlib.Graph {
  const graph = new graphlib.Graph();
  graph.setGraph({ rankdir: "LR", ranker: "tight-tree", nodesep: GAP.y, edgesep: WAY_GAP, ranksep: labelled ? GAP.x : GAP.x * 3, marginx: MARGIN, marginy: MARGIN });
  for (const id of ids) graph.setNode(id, { ...node });
  for (const { from, to } of ways) graph.setEdge(from, to, labelled ? { ...LABEL, labelpos: "c" } : {});
  dagre(graph);
  return graph;
}

/**
 * Layers of nodes, each in its order. A node with one caller and without calls of its own stands in the layer after that
 * one's, in its order: of wide graphs that is most of them, and dagre need not look at each.
 */
function layersOf(ids: string[], ways: Way[], node: Size): string[][] {
  const callers = new Map<string, string[]>();
  for (const { from, to } of ways) callers.set(to, [...(callers.get(to) ?? []), from]);
  const calling = new Set(ways.map(({ from }) => from));
  const leaf = (id: string): boolean => !calling.has(id) && callers.get(id)?.length === 1;
  const inner = ids.filter((id) => !leaf(id));
  const graph = arranged(inner, ways.filter(({ to }) => !leaf(to)), node, false);
  const places = new Map(inner.map((id) => [id, graph.node(id) as Place]));
  const columns = [...new Set([...places.values()].map(({ x }) => Math.round(x)))].sort((one, other) => one - other);
  const at = new Map<string, { layer: number; y: number }>();
  for (const [id, { x, y }] of places) at.set(id, { layer: columns.indexOf(Math.round(x)), y });
  const layers: string[][] = [];
  for (const id of ids) {
    const caller = at.get(callers.get(id)?.[0] ?? "");
    const own = at.get(id) ?? { layer: (caller?.layer ?? -1) + 1, y: caller?.y ?? 0 };
    at.set(id, own);
    (layers[own.layer] ??= []).push(id);
  }
  const height = (id: string): number => at.get(id)?.y ?? 0;
  return layers.map((layer) => layer.sort((one, other) => height(one) - height(other) || compare(one, other)));
}

/** Layers and their order as they are, each in columns that are not taller than the others. */
function packed(placed: Layout, layers: string[][]): void {
  const { node } = placed;
  const step = { x: node.width + GAP.x * 3, y: node.height + GAP.y };
  const count = layers.reduce((sum, layer) => sum + layer.length, 0);
  const tallest = Math.max(1, Math.round(Math.sqrt((count * step.x) / (step.y * SHAPE))));
  let column = 0;
  for (const layer of layers) {
    const columns = Math.ceil(layer.length / tallest);
    const each = Math.ceil(layer.length / columns);
    layer.forEach((id, at) => placed.places.set(id, { x: MARGIN + (column + Math.floor(at / each)) * step.x, y: MARGIN + (at % each) * step.y }));
    column += columns;
  }
  placed.width = MARGIN * 2 + column * step.x - GAP.x * 2;
  placed.height = MARGIN * 2 + Math.min(tallest, Math.max(...layers.map((layer) => layer.length))) * step.y - GAP.y;
}

/** Nodes without a way, in rows below the others. */
function rows(placed: Layout, ids: string[]): void {
  const { node } = placed;
  const step = { x: node.width + GAP.y, y: node.height + GAP.y };
  const most = Math.max(1, Math.floor((Math.max(placed.width, ROW_WIDTH) - 2 * MARGIN + GAP.y) / step.x));
  ids.forEach((id, at) => placed.places.set(id, { x: MARGIN + (at % most) * step.x, y: placed.height + Math.floor(at / most) * step.y }));
  if (ids.length > 0) placed.height += Math.ceil(ids.length / most) * step.y - GAP.y + MARGIN;
  placed.width = Math.max(placed.width, 2 * MARGIN + Math.min(most, ids.length) * step.x - GAP.y);
}

/** How many layers all ways cross together, each node as far from the first callers as its longest way. */
function crossed(ids: string[], ways: Way[]): number {
  const depth = new Map(ids.map((id) => [id, 0]));
  const waiting = new Map(ids.map((id) => [id, 0]));
  const called = new Map<string, string[]>(ids.map((id) => [id, []]));
  for (const { from, to } of ways) {
    called.get(from)?.push(to);
    waiting.set(to, (waiting.get(to) ?? 0) + 1);
  }
  const ready = ids.filter((id) => waiting.get(id) === 0);
  for (const id of ready) {
    for (const to of called.get(id) ?? []) {
      depth.set(to, Math.max(depth.get(to) ?? 0, (depth.get(id) ?? 0) + 1));
      const left = (waiting.get(to) ?? 1) - 1;
      waiting.set(to, left);
      if (left === 0) ready.push(to);
    }
  }
  // The depth of circles is unknown; each way in them may cross as many layers as there are nodes in circles.
  const circling = ids.length - ready.length;
  const across = (way: Way): number => ((waiting.get(way.from) ?? 0) > 0 && (waiting.get(way.to) ?? 0) > 0 ? circling / 2 : Math.abs((depth.get(way.to) ?? 0) - (depth.get(way.from) ?? 0)));
  return ways.reduce((sum, way) => sum + across(way), 0);
}

/** One way to each node: that by which it is reached first. The others are drawn, and move nothing. */
function forest(ids: string[], ways: Way[]): Way[] {
  const out = new Map<string, Way[]>();
  const called = new Set<string>();
  for (const way of ways) {
    out.set(way.from, [...(out.get(way.from) ?? []), way]);
    called.add(way.to);
  }
  const reached = new Set<string>();
  const kept: Way[] = [];
  // Nodes without callers come first; of circles the one that calls the most others.
  const roots = [...ids].sort((one, other) => Number(called.has(one)) - Number(called.has(other)) || (out.get(other)?.length ?? 0) - (out.get(one)?.length ?? 0) || compare(one, other));
  for (const root of roots) {
    if (reached.has(root)) continue;
    reached.add(root);
    const queue = [root];
    for (const id of queue) {
      for (const way of out.get(id) ?? []) {
        if (reached.has(way.to)) continue;
        reached.add(way.to);
        kept.push(way);
        queue.push(way.to);
      }
    }
  }
  return kept.sort((one, other) => compare(one.from, other.from) || compare(one.to, other.to));
}
