// What a picture shows of a graph, so that it can be read: namespaces first; of those that are
// opened the workloads, with the namespaces around them; those without any call as one; and
// where that is too much, those that matter, with the rest of each sort as one. Pure, and by nothing that changes with every
// answer but by failures, so that a picture that is looked at does not jump.

import type { Edge, MeshNode } from "./api";
import { add, compare, type Health, Model, worse } from "./model";

/** Above these it is folded further, because more is not readable. */
const MOST_NODES = 300;
const MOST_WAYS = 1500;
/** What a search finds leaves its fold, if it is not more. */
const MOST_FOUND = 30;

const SORTS: Record<string, string> = { Namespace: "namespaces", External: "external", Outside: "outside" };
const OTHERS = "workloads";
const NUMBER_OF_SORTS = Object.keys(SORTS).length + 1;

export interface Wish {
  /** Namespaces whose workloads stand by themselves. */
  opened: ReadonlySet<string>;
  /** Id of the node that is open; empty for none. */
  node: string;
  /** What is looked for. */
  found: readonly MeshNode[];
}

export interface Folded {
  model: Model;
  /** Id of the node that stands for one of the whole: its own, or that of its fold. */
  at: (id: string) => string;
}

export function folded(whole: Model, { opened, node, found }: Wish): Folded {
  const held = new Set(found.length <= MOST_FOUND ? found.map((one) => one.id) : []);
  held.add(node);
  const first = merged(whole, (one) => (!one.namespace || opened.has(one.namespace) || held.has(one.id) ? one : namespace(one.namespace)));
  const second = withoutIdle(first.model, held);
  const third = bounded(second.model, held);
  return { model: third.model, at: (id) => third.at(second.at(first.at(id))) };
}

/** Those without calls in either direction, one for each sort; what stands alone has nothing to show. */
function withoutIdle(model: Model, held: ReadonlySet<string>): Folded {
  const called = ({ id }: MeshNode): boolean => model.into.has(id) || model.out.has(id) || (model.inner.get(id) ?? []).length > 0;
  const idle = [...model.nodes.values()].filter((node) => !held.has(node.id) && !called(node));
  if (idle.length === model.nodes.size) return { model, at: (id) => id };
  const folds = rest(idle, "idle");
  if (folds.size === 0) return { model, at: (id) => id };
  return merged(model, (node) => folds.get(node.id) ?? node);
}

function namespace(name: string): MeshNode {
  return { id: `Namespace/${name}`, kind: "Namespace", name };
}

/** What is held, what fails and what has the most neighbours stays, as much as can be read. */
function bounded(model: Model, held: ReadonlySet<string>): Folded {
  const itself: Folded = { model, at: (id) => id };
  if (model.nodes.size <= MOST_NODES && countWays(model, itself.at) <= MOST_WAYS) return itself;
  const neighbours = neighboursOf(model);
  const rank = (id: string): number => (held.has(id) ? 0 : model.sums(id).health === "bad" ? 1 : 2);
  const ranked = [...model.nodes.values()].map((node) => ({ node, rank: rank(node.id), near: neighbours.get(node.id)?.size ?? 0 }));
  ranked.sort((one, other) => one.rank - other.rank || other.near - one.near || compare(one.node.id, other.node.id));
  for (let most = MOST_NODES - NUMBER_OF_SORTS; ; most = Math.floor(most / 2)) {
    const folds = rest(ranked.slice(most).map(({ node }) => node));
    const fits = countWays(model, (id) => folds.get(id)?.id ?? id) <= MOST_WAYS;
    if (fits || most === 0) return merged(model, (node) => folds.get(node.id) ?? node);
  }
}

/** Lines that are drawn if nodes stand for others in this way. */
function countWays(model: Model, at: (id: string) => string): number {
  const ways = new Set<string>();
  for (const edge of model.graph.edges) {
    const [from, to] = [at(edge.from), at(edge.to)];
    if (from !== to) ways.add(`${from}\n${to}`);
  }
  return ways.size;
}

function neighboursOf(model: Model): Map<string, Set<string>> {
  const neighbours = new Map([...model.nodes.keys()].map((id) => [id, new Set<string>()] as const));
  for (const { from, to } of model.graph.edges) {
    neighbours.get(from)?.add(to);
    neighbours.get(to)?.add(from);
  }
  return neighbours;
}

/** The node that stands for each of these, one for each sort that has several. */
function rest(nodes: readonly MeshNode[], which = "more"): Map<string, MeshNode> {
  const sorts = new Map<string, MeshNode[]>();
  for (const node of nodes) {
    const sort = SORTS[node.kind] ?? OTHERS;
    const all = sorts.get(sort);
    if (all) all.push(node);
    else sorts.set(sort, [node]);
  }
  const folds = new Map<string, MeshNode>();
  for (const [sort, all] of sorts) {
    if (all.length < 2) continue;
    const fold: MeshNode = { id: `Rest/${which}/${sort}`, kind: "Rest", name: `${all.length} ${which} ${sort}` };
    for (const node of all) folds.set(node.id, fold);
  }
  return folds;
}

/** Each node as the one that stands for it, with the pods and the worst health of all; calls among those are its inner ones. */
function merged(model: Model, standsFor: (node: MeshNode) => MeshNode): Folded {
  const ids = new Map<string, string>();
  const nodes = new Map<string, MeshNode>();
  const worst = new Map<string, Health>();
  for (const node of model.nodes.values()) {
    const fold = standsFor(node);
    ids.set(node.id, fold.id);
    nodes.set(fold.id, fold === node ? node : counted(nodes.get(fold.id) ?? fold, node));
    worst.set(fold.id, worse(worst.get(fold.id) ?? "idle", model.sums(node.id).health));
  }
  const at = (id: string): string => ids.get(id) ?? id;
  const inner = new Map<string, Edge[]>();
  for (const [id, edges] of model.inner) for (const edge of edges) add(inner, at(id), edge);
  const edges: Edge[] = [];
  for (const edge of model.graph.edges) {
    const [from, to] = [at(edge.from), at(edge.to)];
    if (from === to && from !== edge.from) add(inner, from, edge);
    else edges.push(from === edge.from && to === edge.to ? edge : { ...edge, from, to });
  }
  return { model: new Model({ ...model.graph, nodes: [...nodes.values()], edges }, inner, worst), at };
}

/** A fold with the pods of one more; those of other namespaces are not reported. */
function counted(fold: MeshNode, node: MeshNode): MeshNode {
  if (node.pods === undefined) return fold;
  return { ...fold, pods: (fold.pods ?? 0) + node.pods, meshed: (fold.meshed ?? 0) + (node.meshed ?? 0) };
}
