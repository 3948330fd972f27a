// The data that a page gets with each change, and what it may request.

import type { Cause, Edge, End, Experiment, GatewayRoute, Mesh, MeshNode, Proxy, Release, Split, Target } from "./api";
import type { Model } from "./model";

/** Where the person is; all of it stands in the address, so it can be kept and shared. */
export interface State {
  page: string;
  /** Namespace; empty for all. */
  place: string;
  /** Id of the node that is open. */
  node: string;
  /** Only what is so many calls away from it; 0 for everything. */
  hops: number;
  view: "picture" | "table";
  /** What a row of the overview is. */
  by: "workload" | "service";
  /** Whether calls are shown that were, and are not now. */
  quiet: boolean;
  /** The query of the explain page, as JSON. */
  ask: string;
  /** The one of the tap page, likewise. */
  tap: string;
}

export interface Extra {
  proxies?: Proxy[];
  splits?: Split[];
  /** Routes of the Gateway API. */
  routes?: GatewayRoute[];
  targets?: Target[];
  releases?: Release[];
  experiments?: Experiment[];
  /** Why something of these is missing. */
  words: string[];
}

export interface View {
  state: State;
  model: Model;
  extra: Extra;
  /** The end of what this shows, by the controller's clock: this machine's may be wrong. */
  at: number;
  /** When it came, on a clock that only measures how long things take. */
  came: number;
  /** Since when there is no answer, or none for this reader, by the controller's clock. */
  lost?: Cause & { since: number; message: string };
  /** There is no such namespace. */
  absent: boolean;
}

export interface Page {
  readonly name: string;
  readonly title: string;
  readonly element: HTMLElement;
  /** What it shows besides the graph. */
  readonly needs?: (keyof Omit<Extra, "words">)[];
  /** Shows the last half hour. */
  readonly history?: boolean;
  /** Is of use before anything is known. */
  readonly asks?: boolean;
  update(view: View): void;
  /** Another page or another place is shown from now on. */
  leave?(): void;
  /** The same on a command line. */
  command(state: State): string;
}

export interface App {
  readonly mesh: Mesh;
  go(change: Partial<State>): void;
  /** Writes to screen readers and the line below the head. */
  say(words: string): void;
}

/** One end of an edge, as a query names it. */
export function asEnd(node: MeshNode): End {
  if (node.kind === "Outside") return { outside: true };
  return node.namespace ? { kind: node.kind, namespace: node.namespace, name: node.name } : { kind: node.kind, name: node.name };
}

/** The query for the calls of an edge; of requests without method and path, which are not counted. */
export function question(model: Model, edge: Edge): string {
  const [from, to] = [model.nodes.get(edge.from), model.nodes.get(edge.to)];
  const [namespace, name] = (edge.service ?? "").split("/");
  const called: End = namespace && name ? { kind: "Service", namespace, name } : to ? asEnd(to) : {};
  if (edge.port) called.port = edge.port;
  const tcp = edge.protocol === "tcp" || edge.protocol === "tls";
  return JSON.stringify({ from: from ? asEnd(from) : {}, to: called, ...(tcp ? { tcp } : {}) });
}
