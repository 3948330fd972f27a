// What the graph means for a person: sums, health, and the narrowed graph.

import type { Edge, Graph, MeshNode } from "./api";

/** Shares of failed calls from which something is worth a look, and is wrong. */
const WORTH_A_LOOK = 0.005;
const WRONG = 0.05;

/** Why the mesh refuses a call by its configuration. All other reasons are failures, as of a Service without endpoints. */
const BY_POLICY: ReadonlySet<string> = new Set([
  "not-allowed",
  "no-identity",
  "limit",
  "shadow-write",
  "egress-denied",
  "revoked",
]);

export type Health = "bad" | "warn" | "ok" | "idle";

/** All calls from one node to another. */
export interface Way {
  from: string;
  to: string;
  edges: Edge[];
  requests: number;
  success: number;
  failure: number;
  /** By policy. */
  refused: number;
  open: number;
  health: Health;
  /**
   * Lowest share of mutual TLS among the edges, without those that the applications' own TLS secures and those that
   * never left; undefined where it is unknown, and where it would be 1 but is unknown of some, or own TLS secures them.
   */
  mtls: number | undefined;
  /** None of the edges had a call. */
  quiet: boolean;
}

/** Why a window that ends now is not complete, in the message of controllers that report it by nothing else. */
const UNSETTLED = "reports of the last seconds may still come";

/**
 * Why numbers are missing for good. That reports of the last seconds may still come is so of
 * every window that ends now, and no loss.
 */
export function loss({ complete, unsettled, incomplete }: Graph["metadata"]): string | undefined {
  if (complete || unsettled || incomplete === UNSETTLED) return undefined;
  return incomplete ?? "the controller does not say why";
}

/** From the least to the worst. */
const ORDER: readonly Health[] = ["idle", "ok", "warn", "bad"];

export function worse(one: Health, other: Health): Health {
  return ORDER.indexOf(one) < ORDER.indexOf(other) ? other : one;
}

export function refusals(edge: Edge): number {
  return Object.values(edge.refused ?? {}).reduce((sum, count) => sum + count, 0);
}

/** Those that policies refused: they make no workload ill. */
export function denials(edge: Edge): number {
  const reasons = Object.entries(edge.refused ?? {});
  return reasons.reduce((sum, [reason, count]) => (BY_POLICY.has(reason) ? sum + count : sum), 0);
}

/** Calls, and how they ended; `requests` has the cancelled ones too. */
export interface Ended { requests: number; success: number; failure: number }

/** Share that succeeded, as `weft` reckons it: cancelled calls do not count; undefined where there are no others. */
export function successRate({ success, failure }: Pick<Ended, "success" | "failure">): number | undefined {
  const answered = success + failure;
  return answered > 0 ? success / answered : undefined;
}

/** `excused`: failures that make no workload ill. */
export function health({ requests, success, failure }: Ended, excused = 0): Health {
  if (requests === 0) return "idle";
  const share = Math.max(0, failure - excused) / Math.max(1, success + failure);
  return share >= WRONG ? "bad" : share >= WORTH_A_LOOK ? "warn" : "ok";
}

/** Whether TLS of the applications' own secures what mutual TLS does not. */
export function hasOwnTls({ protocol, mtls }: Edge): boolean {
  return protocol === "tls" && mtls !== undefined && mtls < 1;
}

/**
 * Whether the callers' own proxies refused all of its calls, so that nothing went anywhere and there was nothing to
 * secure. `weft edges` evaluates it in the same way.
 */
export function neverLeft(edge: Edge): boolean {
  const reportedByCallers = !edge.callerSilent && !edge.server;
  // No proxy reports what secured a call without an endpoint, and each such attempt failed.
  const nothingSent = (!edge.attempts || edge.mtls === undefined) && !edge.success && !edge.sent;
  const nothingOpen = !edge.open && !edge.opened;
  return edge.requests > 0 && reportedByCallers && nothingSent && nothingOpen;
}

/** Edges put together by their ends, in order of the ends. */
export function ways(edges: Edge[]): Way[] {
  const found = new Map<string, Way>();
  const unsaid = new Set<Way>();
  for (const edge of edges) {
    const key = `${edge.from}\n${edge.to}`;
    let way = found.get(key);
    if (!way) {
      way = { from: edge.from, to: edge.to, edges: [], requests: 0, success: 0, failure: 0, refused: 0, open: 0, health: "idle", mtls: undefined, quiet: true };
      found.set(key, way);
    }
    way.edges.push(edge);
    way.requests += edge.requests;
    way.success += edge.success;
    way.failure += edge.failure;
    way.refused += denials(edge);
    way.open += edge.open;
    way.quiet &&= edge.quiet ?? false;
    if (neverLeft(edge)) continue;
    if (edge.mtls !== undefined && !hasOwnTls(edge)) way.mtls = Math.min(way.mtls ?? 1, edge.mtls);
    else if (edge.requests + edge.open > 0) unsaid.add(way);
  }
  const all = [...found.values()];
  for (const way of all) {
    way.health = health(way, way.refused);
    // An unknown share may be any, and own TLS is no mutual one: that the others had it all closes no lock.
    if (way.mtls === 1 && unsaid.has(way)) way.mtls = undefined;
  }
  return all.sort((one, other) => compare(one.from, other.from) || compare(one.to, other.to));
}

export function add(lists: Map<string, Edge[]>, key: string, edge: Edge): void {
  const list = lists.get(key);
  if (list) list.push(edge);
  else lists.set(key, [edge]);
}

/** By code units, which is the same everywhere. */
export function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

export class Model {
  readonly nodes: Map<string, MeshNode>;
  readonly seconds: number;
  /** Edges by the node that is called, and by the one that calls. */
  readonly into = new Map<string, Edge[]>();
  readonly out = new Map<string, Edge[]>();

  constructor(
    readonly graph: Graph,
    /** Edges within a node that stands for several, by its id. */
    readonly inner: ReadonlyMap<string, Edge[]> = new Map(),
    /** The worst health of those that a node stands for, by its id. */
    private readonly worst: ReadonlyMap<string, Health> = new Map(),
  ) {
    this.nodes = new Map(graph.nodes.map((node) => [node.id, node]));
    // What an edge names is there, even if the answer had no room for it.
    for (const edge of graph.edges) {
      for (const id of [edge.from, edge.to]) {
        if (!this.nodes.has(id)) this.nodes.set(id, { id, kind: "Unknown", name: id });
      }
      add(this.into, edge.to, edge);
      add(this.out, edge.from, edge);
    }
    this.seconds = graph.metadata.windowSeconds;
  }

  name(id: string): string {
    const node = this.nodes.get(id);
    return node ? title(node) : id;
  }

  /** What it served; for one that only calls, what it called. One that stands for several is as ill as its worst. */
  sums(id: string): { requests: number; failure: number; success: number; refused: number; open: number; health: Health } {
    const served = [...(this.into.get(id) ?? []), ...(this.inner.get(id) ?? [])];
    const counted = served.length > 0 ? served : (this.out.get(id) ?? []);
    const sums = { requests: 0, failure: 0, success: 0, refused: 0, open: 0, health: "idle" as Health };
    for (const edge of counted) {
      sums.requests += edge.requests;
      sums.failure += edge.failure;
      sums.success += edge.success;
      sums.refused += denials(edge);
      sums.open += edge.open;
    }
    // A workload that refuses calls by its policies is not ill.
    sums.health = worse(health(sums, sums.refused), this.worst.get(id) ?? "idle");
    return sums;
  }

  /** What is at most so many calls away from a node, in either direction. */
  around(centre: string, hops: number): Model {
    const near = new Set([centre]);
    for (let hop = 0; hop < hops; hop++) {
      const before = new Set(near);
      for (const { from, to } of this.graph.edges) {
        if (before.has(from)) near.add(to);
        if (before.has(to)) near.add(from);
      }
    }
    return new Model({
      ...this.graph,
      nodes: [...this.nodes.values()].filter((node) => near.has(node.id)),
      edges: this.graph.edges.filter((edge) => near.has(edge.from) && near.has(edge.to)),
    });
  }

  /** Whether all words of a search occur in the node's own. */
  static fits(node: MeshNode, search: string): boolean {
    const own = [node.id, ...(node.services ?? []), ...(node.accounts ?? [])].join(" ").toLowerCase();
    return search.toLowerCase().split(/\s+/).every((word) => own.includes(word));
  }
}

const SHORT: Record<string, string> = {
  CronJob: "cj", DaemonSet: "ds", Deployment: "deploy", Job: "job", Pod: "pod", ReplicaSet: "rs",
  ReplicationController: "rc", Rollout: "ro", StatefulSet: "sts", Service: "svc", ServiceAccount: "sa", Namespace: "ns", External: "external",
};

/** What the id of a node names, also before anything is known of the node; nothing where `weft` has no word for it. */
export function named(id: string): Pick<MeshNode, "kind" | "namespace" | "name"> | undefined {
  const [first = "", kind = "", ...rest] = id.split("/");
  if (first === "External") return kind === "" ? undefined : { kind: first, name: [kind, ...rest].join("/") };
  const name = rest.join("/");
  return Object.hasOwn(SHORT, kind) && name !== "" ? { kind, namespace: first, name } : undefined;
}

/** A node as kubectl names it. */
export function title(node: Pick<MeshNode, "kind" | "name">): string {
  const kind = SHORT[node.kind];
  return kind ? `${kind}/${node.name}` : node.kind === "Outside" ? `outside ${node.name}` : node.name;
}
