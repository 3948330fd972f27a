// Where the nodes of the graph stand: in columns by the longest way from a caller, callers
// on the left. A way over several columns has a lane in each between, so that no node covers
// it. Pure, and the same for the same ends whatever their numbers and their order, so that a
// picture that is looked at does not jump.

import { compare } from "./model";

export const NODE = { width: 184, height: 46 };
const GAP = { x: 96, y: 22 };
const MARGIN = 24;
/** Height of a lane. */
const LANE = 4;
/** Sweeps over the columns; more change little. */
const SWEEPS = 6;
/** Workloads that call each other in circles would else stand in one endless row. */
const MOST_COLUMNS = 12;
/** Beyond these, lanes would push the nodes too far apart to be read. */
const MOST_LANES = 400;

export interface Place { x: number; y: number }
export interface Layout {
  /** Upper left corners. */
  places: Map<string, Place>;
  /** Points that a way goes through, by `from\nto`. */
  lanes: Map<string, Place[]>;
  width: number;
  height: number;
}

type Ways = readonly { from: string; to: string }[];
type Lists = Map<string, string[]>;

export function layout(ids: readonly string[], ways: Ways): Layout {
  const sorted = [...ids].sort(compare);
  const forward = acyclic(sorted, ways);
  const columns = columnsOf(sorted, forward);
  const { next, lanes } = laned(columns, forward);
  ordered(columns, next);
  const tall = (id: string): number => (lanes.has(id) ? LANE : NODE.height) + GAP.y;
  const heights = columns.map((column) => column.reduce((sum, id) => sum + tall(id), -GAP.y));
  const height = MARGIN * 2 + Math.max(NODE.height, ...heights);
  const all = new Map<string, Place>();
  columns.forEach((column, at) => {
    let y = Math.round((height - (heights[at] ?? 0)) / 2);
    for (const id of column) {
      all.set(id, { x: MARGIN + at * (NODE.width + GAP.x), y });
      y += tall(id);
    }
  });
  const through = new Map<string, Place[]>();
  for (const [lane, way] of lanes) {
    const place = all.get(lane);
    all.delete(lane);
    if (!place) continue;
    const points = through.get(way) ?? [];
    points.push(place);
    through.set(way, points);
  }
  const width = MARGIN * 2 + Math.max(1, columns.length) * (NODE.width + GAP.x) - GAP.x;
  return { places: all, lanes: through, width, height };
}

/** Callers to called, without the ways that close a circle. */
function acyclic(ids: string[], ways: Ways): Lists {
  const called: Lists = new Map(ids.map((id) => [id, []]));
  for (const { from, to } of ways) {
    const list = called.get(from);
    if (list && from !== to && called.has(to) && !list.includes(to)) list.push(to);
  }
  for (const list of called.values()) list.sort(compare);
  const forward: Lists = new Map(ids.map((id) => [id, []]));
  const state = new Map<string, "open" | "done">();
  const uncalled = new Set(ids);
  for (const list of called.values()) for (const to of list) uncalled.delete(to);
  // Whoever nobody calls comes first; only what is left in circles is begun anywhere.
  for (const root of [...uncalled, ...ids]) {
    if (state.has(root)) continue;
    const stack = [{ id: root, next: 0 }];
    state.set(root, "open");
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const to = called.get(top.id)?.[top.next++];
      if (to === undefined) {
        state.set(top.id, "done");
        stack.pop();
        continue;
      }
      if (state.get(to) === "open") continue;
      forward.get(top.id)?.push(to);
      if (!state.has(to)) {
        state.set(to, "open");
        stack.push({ id: to, next: 0 });
      }
    }
  }
  return forward;
}

function columnsOf(ids: string[], forward: Lists): string[][] {
  const waiting = new Map<string, number>(ids.map((id) => [id, 0]));
  for (const list of forward.values()) for (const to of list) waiting.set(to, (waiting.get(to) ?? 0) + 1);
  const column = new Map<string, number>();
  const ready = ids.filter((id) => waiting.get(id) === 0);
  for (const id of ready) column.set(id, 0);
  for (let at = 0; at < ready.length; at++) {
    const id = ready[at] as string;
    for (const to of forward.get(id) ?? []) {
      column.set(to, Math.max(column.get(to) ?? 0, (column.get(id) ?? 0) + 1));
      const left = (waiting.get(to) ?? 1) - 1;
      waiting.set(to, left);
      if (left === 0) ready.push(to);
    }
  }
  const deepest = Math.max(0, ...column.values()) + 1;
  const scale = Math.min(1, MOST_COLUMNS / deepest);
  const columns: string[][] = Array.from({ length: Math.ceil(deepest * scale) }, () => []);
  for (const id of ids) columns[Math.floor((column.get(id) ?? 0) * scale)]?.push(id);
  return columns;
}

/** Puts a lane into each column that a way goes over; what follows what then, and each lane's way. */
function laned(columns: string[][], forward: Lists): { next: Lists; lanes: Map<string, string> } {
  const column = new Map(columns.flatMap((list, at) => list.map((id) => [id, at] as const)));
  const long: [string, string, number, number][] = [];
  let count = 0;
  for (const [from, list] of forward) {
    for (const to of list) {
      const [first, last] = [column.get(from) ?? 0, column.get(to) ?? 0];
      if (last - first > 1) long.push([from, to, first, last]);
      count += Math.max(0, last - first - 1);
    }
  }
  const lanes = new Map<string, string>();
  if (count > MOST_LANES) return { next: forward, lanes };
  const next: Lists = new Map([...forward].map(([from, list]) => [from, [...list]]));
  for (const [from, to, first, last] of long) {
    const way = `${from}\n${to}`;
    let before = from;
    next.set(from, (next.get(from) ?? []).filter((id) => id !== to));
    for (let at = first + 1; at < last; at++) {
      const lane = `${way}\n${at}`;
      lanes.set(lane, way);
      columns[at]?.push(lane);
      next.get(before)?.push(lane);
      next.set(lane, []);
      before = lane;
    }
    next.get(before)?.push(to);
  }
  return { next, lanes };
}

/** Each column by the middle of its neighbours, from left and from right in turns. */
function ordered(columns: string[][], forward: Lists): void {
  const backward: Lists = new Map();
  for (const [from, list] of forward) for (const to of list) backward.set(to, [...(backward.get(to) ?? []), from]);
  const row = new Map<string, number>();
  const number = (column: string[]): void => column.forEach((id, at) => row.set(id, (at + 0.5) / column.length));
  columns.forEach(number);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const neighbours = sweep % 2 === 0 ? backward : forward;
    const turn = sweep % 2 === 0 ? columns : [...columns].reverse();
    for (const column of turn) {
      const middle = new Map<string, number>();
      for (const id of column) {
        const near = neighbours.get(id) ?? [];
        const sum = near.reduce((all, other) => all + (row.get(other) ?? 0), 0);
        middle.set(id, near.length > 0 ? sum / near.length : (row.get(id) ?? 0));
      }
      column.sort((one, other) => (middle.get(one) ?? 0) - (middle.get(other) ?? 0) || compare(one, other));
      number(column);
    }
  }
}
