// What the mesh says: the parts of the read API that the page shows, and how it is asked.

export interface Latency { p50: number; p95: number; p99: number }
export interface Minute { start: string; requests: number; failure: number; p95?: number }
export interface Route { route: string; requests: number; failure: number; ms?: Latency }

export interface Edge {
  id: string;
  from: string;
  to: string;
  service?: string;
  port?: number;
  backend?: string;
  split?: string;
  protocol: string;
  requests: number;
  success: number;
  failure: number;
  cancelled: number;
  attempts: number;
  refused?: Record<string, number>;
  audit: number;
  open: number;
  opened: number;
  mtls?: number;
  ms?: Latency;
  identities?: string[];
  allowedBy?: string[];
  lastSeen: string;
  quiet?: boolean;
  history?: Minute[];
}

export interface MeshNode {
  id: string;
  kind: string;
  namespace?: string;
  name: string;
  accounts?: string[];
  pods?: number;
  meshed?: number;
  access?: string;
  mtls?: string;
  services?: string[];
  gone?: boolean;
  unproven?: boolean;
  routes?: Route[];
}

export interface Graph {
  metadata: { end: string; windowSeconds: number; complete: boolean; incomplete?: string; leftOut?: number };
  nodes: MeshNode[];
  edges: Edge[];
}

export interface Proxy {
  metadata: { namespace: string; name: string };
  status: {
    workload: string;
    identity: string;
    version?: string;
    connected: boolean;
    acknowledged: number;
    needed: number;
    nacks?: { object: string; reason: string }[];
    certificate?: { notAfter: string };
    memory?: number;
    draining?: boolean;
    clockAheadMs?: number;
  };
}

export interface Proxies {
  metadata?: { remainingItemCount?: number };
  items: Proxy[];
}

export interface Split {
  metadata: { namespace: string; name: string };
  spec: { service: string; backends?: { service: string; weight: number }[] };
}

export interface Target {
  metadata: { namespace: string; name: string };
  spec: {
    destination?: { kind: string; name: string; namespace?: string };
    sources?: { kind: string; name: string; namespace?: string }[];
    rules?: { kind: string; name: string; matches?: string[] }[];
  };
}

export interface End { kind?: string; namespace?: string; name?: string; outside?: boolean; port?: number }
export interface Question { from: End; to: End; method?: string; path?: string; tcp?: boolean }
export interface Explanation {
  explanation: {
    status?: {
      verdict: string;
      reason?: string;
      httpStatus?: number;
      owner?: string;
      steps?: { step: string; text: string; objects?: string[] }[];
      backends?: { service: string; share: number; verdict: string; reason?: string; ready: number; endpoints: number }[];
      seen?: { windowSeconds: number; requests: number; failure: number; refused?: Record<string, number> };
      programmed?: { proxies: number; of: number };
      fix?: { objects?: unknown[]; commands?: string[]; warnings?: string[] };
    };
  };
  yaml: string;
}

export interface Start { namespace: string; all: boolean; version: string }
export interface Scope { cluster: boolean; namespaces: string[]; incomplete?: boolean }

/** An answer that is none: `status` as HTTP has it, 0 where nobody answered. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }

  /** Nobody who knows was reached; what was seen is still the best that there is. */
  get lost(): boolean {
    return this.status === 0 || this.status >= 500;
  }
}

const OBSERVE = "/apis/observe.weft.dev/v1alpha1";
/** Longer than `weft` itself waits for the API server by default, so that its words arrive. */
const WITHIN = 15_000;

export class Mesh {
  constructor(private readonly key: string) {}

  start = (): Promise<Start> => this.ask("/start");
  scope = (): Promise<Scope> => this.ask(`${OBSERVE}/scopes/live`);
  graph = (place: string, deep: boolean): Promise<Graph> =>
    this.ask(`${within(OBSERVE, place)}/graphs/live?window=60s${deep ? "&history=30m&routes=1" : ""}`);
  proxies = (place: string): Promise<Proxies> => this.ask(`${within(OBSERVE, place)}/proxies`);
  splits = async (place: string): Promise<Split[]> =>
    (await this.ask<{ items: Split[] }>(`${within("/apis/split.smi-spec.io/v1alpha4", place)}/trafficsplits`)).items;
  targets = async (place: string): Promise<Target[]> =>
    (await this.ask<{ items: Target[] }>(`${within("/apis/access.smi-spec.io/v1alpha4", place)}/traffictargets`)).items;
  explain = (question: Question): Promise<Explanation> =>
    this.ask(`/explanation?spec=${encodeURIComponent(JSON.stringify(question))}`);

  private async ask<T>(path: string): Promise<T> {
    let answer: Response;
    try {
      answer = await fetch(path, { headers: { "weft-dashboard": this.key }, signal: AbortSignal.timeout(WITHIN) });
    } catch {
      throw new Refusal(0, "weft dashboard does not answer; was it stopped?");
    }
    let told: unknown;
    try {
      told = await answer.json();
    } catch {
      throw new Refusal(answer.ok ? 0 : answer.status, "the answer cannot be read");
    }
    if (!answer.ok) throw new Refusal(answer.status, String((told as { message?: unknown }).message ?? answer.status));
    return told as T;
  }
}

function within(api: string, place: string): string {
  return place === "" ? api : `${api}/namespaces/${encodeURIComponent(place)}`;
}
