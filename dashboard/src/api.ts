// Client of the mesh's read API: the parts that the page shows, and the queries for them.

export interface Latency { p50: number; p95: number; p99: number }
export interface Minute { start: string; requests: number; failure: number; cancelled?: number; p95?: number }
export interface Route { route: string; requests: number; failure: number; cancelled?: number; ms?: Latency }

export interface Edge {
  id: string;
  from: string;
  to: string;
  service?: string;
  port?: number;
  backend?: string;
  split?: string;
  /** Route of the Gateway API that chose the backend, such as `HTTPRoute shop/web`. */
  rule?: string;
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
  /** Bytes. */
  sent?: number;
  mtls?: number;
  /** What the called side counted of the same calls. */
  server?: unknown;
  /** Only the called side reported them. */
  callerSilent?: boolean;
  ms?: Latency;
  identities?: string[];
  allowedBy?: string[];
  lastSeen: string;
  quiet?: boolean;
  history?: Minute[];
  historyLeftOut?: boolean;
}

export interface MeshNode {
  id: string;
  kind: string;
  namespace?: string;
  name: string;
  accounts?: string[];
  pods?: number;
  meshed?: number;
  /** Pods that request a proxy and have none; not set by older controllers. */
  withoutProxy?: number;
  access?: string;
  mtls?: string;
  services?: string[];
  gone?: boolean;
  unproven?: boolean;
  routes?: Route[];
}

export interface Graph {
  metadata: {
    end: string;
    windowSeconds: number;
    complete: boolean;
    incomplete?: string;
    unsettled?: boolean;
    leftOut?: number;
    /** Minutes before this are not known, where they were queried. */
    historySince?: string;
  };
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
    /** The Revocation that ends its pod for good: no controller serves it. */
    revokedBy?: string;
    acknowledged: number;
    needed: number;
    behindSeconds?: number;
    nacks?: { object: string; reason: string }[];
    certificate?: { issued?: string; ttlSeconds?: number; notAfter: string };
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

/** A route of the Gateway API, as far as the page reads it; `kind` is of the list that it came in. */
export interface GatewayRoute {
  kind: string;
  metadata: { namespace: string; name: string };
  spec: {
    parentRefs?: { group?: string; kind?: string; name: string }[];
    rules?: { name?: string; backendRefs?: { name: string; namespace?: string; weight?: number }[] }[];
  };
}

/** Calls, and those of them that are bad by a check. */
export interface Counts { requests: number; bad: number }
export interface Condition { type: string; status: string; reason?: string; message?: string }

/** A CanaryRelease. */
export interface Release {
  metadata: { namespace: string; name: string };
  spec: { service?: string; deployment?: string; steps?: { weight?: number; mirror?: number; duration?: string; pause?: boolean; matches?: { kind: string; name: string }[] }[] };
  status?: {
    phase?: string;
    summary?: string;
    stable?: { revision: string; pods: number };
    candidate?: { revision: string; pods: number };
    run?: { number: number; step: number; weight: number; stepStartedAt?: string };
    checks?: { name: string; verdict?: string; evidence?: string; stable?: Counts; candidate?: Counts }[];
    /** The newest first. */
    history?: { number: number; revision: string; result: string; reason?: string; by?: string; endedAt?: string; requests?: number; bad?: number }[];
    conditions?: Condition[];
  };
}

/** A FaultExperiment. */
export interface Experiment {
  metadata: { namespace: string; name: string };
  spec: { targetRef?: { name: string; port?: number }; share?: string };
  status?: {
    phase?: string;
    target?: string;
    verdict?: string;
    run?: { endsAt?: string };
    calls?: { total?: number; harmed?: number };
    checks?: { name: string; verdict?: string }[];
  };
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
      refusedBy?: string[];
      steps?: { step: string; text: string; objects?: string[] }[];
      backends?: { service: string; share: number; verdict: string; reason?: string; ready: number; endpoints: number; judged?: number; pods?: string[] }[];
      seen?: { windowSeconds: number; requests: number; failure: number; refused?: Record<string, number> };
      programmed?: { proxies: number; of: number; nacks?: string[] };
      fix?: { objects?: unknown[]; commands?: string[]; warnings?: string[] };
    };
  };
  yaml: string;
}

/** One request, as the proxy of one end reports it. */
export interface TapRequest {
  time: string;
  direction: "inbound" | "outbound";
  pod: string;
  peer: string;
  port: number;
  mtls: boolean;
  /** It was sent to no endpoint; not set by older controllers. */
  unsent?: boolean;
  method: string;
  host?: string;
  path: string;
  route?: string;
  status: number;
  grpcStatus?: number;
  reason?: string;
  ms: number;
}

/** How many requests there were since the stream began. */
export interface TapCounts {
  proxies: number;
  takingPart: number;
  matched: number;
  shown: number;
  dropped: number;
  /** The stream ends with this line. */
  last?: boolean;
}

export interface TapLine { request?: TapRequest; metadata?: TapCounts }

/** `named`: the namespace was given, and is not only the kubeconfig's. */
export interface Start { namespace: string; named: boolean; all: boolean; version: string }
/** `cluster`: all namespaces are listed, unless the list is truncated or not complete yet. */
export interface Scope { cluster: boolean; namespaces: string[]; truncated?: boolean; incomplete?: boolean }

/** Status of what came and is no answer, as that of a gateway which got such a one. */
export const UNREADABLE = 502;

/** What is missing, as words for a person. */
export interface Cause {
  why: string;
  /** The message once it is over. */
  over: string;
  /** Whether it is the controller that does not answer. */
  controller: boolean;
}

/** A refused or missing answer: `status` as HTTP has it, 0 without an answer. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Of an object that is not there, and not of an API that is not served. */
    private readonly missing = false,
    /** Seconds after which to query again, where the answer has them: what it lacks comes by itself. */
    readonly again: number | undefined = undefined,
  ) {
    super(message);
  }

  /** No controller was reached; the last view is still the best that there is. */
  get lost(): boolean {
    return this.status === 0 || this.status >= 500;
  }

  /** The controller has too many queries, and reports so to authorised readers. */
  get crowded(): boolean {
    return this.status === 429;
  }

  get cause(): Cause {
    const of = (why: string, over: string, controller = false): Cause => ({ why, over, controller });
    const back = "The controller answers again.";
    if (this.crowded) return of("the controller has too much to answer and is asked again", back, true);
    if (this.status === 0) return of("this page has no connection", "weft dashboard answers again.");
    // The API server reports so of controllers that are away, and a controller while it starts.
    if ([503, 504].includes(this.status)) return of(this.again === undefined ? "no controller answers" : "the controller cannot answer yet", back, true);
    if (this.lost) return of("there is no answer to show", "There are answers again.");
    return of("no answer is given to this reader", "This reader is answered again.");
  }

  /** Of a query that had an answer before: its object may have no pod for a moment, and is
   *  then refused as a filter (400) or as the object (404). */
  get passes(): boolean {
    return this.lost || this.missing || [400, 429].includes(this.status);
  }
}

const OBSERVE = "/apis/observe.weft.dev/v1alpha1";
/** Minutes of history in a query. */
export const HISTORY = 30;
/** Longer than `weft` itself waits for the API server by default, so that its words arrive. */
const WITHIN = 15_000;
/** Characters of a line of a stream; the longest has a tenth of that. */
const LONGEST_LINE = 256 * 1024;

export class Mesh {
  constructor(private readonly key: string) {}

  start = (): Promise<Start> => this.ask("/start");
  scope = (): Promise<Scope> => this.ask(`${OBSERVE}/scopes/live`);
  /** `deep`: with history of HISTORY minutes and routes; `quiet`: with edges that had no call in the window too. */
  graph = (place: string, deep: boolean, quiet: boolean): Promise<Graph> =>
    this.ask(`${within(OBSERVE, place)}/graphs/live?window=60s${deep ? `&history=${HISTORY}m&routes=1` : ""}${quiet ? "&quiet=1" : ""}`);
  proxies = (place: string): Promise<Proxies> => this.ask(`${within(OBSERVE, place)}/proxies`);
  splits = async (place: string): Promise<Split[]> =>
    (await this.ask<{ items: Split[] }>(`${within("/apis/split.smi-spec.io/v1alpha4", place)}/trafficsplits`)).items;
  targets = async (place: string): Promise<Target[]> =>
    (await this.ask<{ items: Target[] }>(`${within("/apis/access.smi-spec.io/v1alpha4", place)}/traffictargets`)).items;
  releases = (place: string): Promise<Release[]> => this.automation(place, "canaryreleases");
  experiments = (place: string): Promise<Experiment[]> => this.automation(place, "faultexperiments");
  /** Those that are not served, or not for this reader to see, are left out: they are another project's kinds. */
  routes = async (place: string): Promise<GatewayRoute[]> => {
    const kinds = [["HTTPRoute", "httproutes"], ["GRPCRoute", "grpcroutes"]] as const;
    const lists = kinds.map(async ([kind, plural]) => {
      try {
        const { items } = await this.ask<{ items: GatewayRoute[] }>(`${within("/apis/gateway.networking.k8s.io/v1", place)}/${plural}`);
        return items.map((item) => ({ ...item, kind }));
      } catch (error) {
        if (error instanceof Refusal && [403, 404].includes(error.status)) return [];
        throw error;
      }
    });
    return (await Promise.all(lists)).flat();
  };
  explain = (question: Question): Promise<Explanation> =>
    this.ask(`/explanation?spec=${encodeURIComponent(JSON.stringify(question))}`);

  /** Requests of one namespace as they end, until their stream does or `stop` fires. */
  async *tap(place: string, query: string, stop: AbortSignal): AsyncGenerator<TapLine, void, undefined> {
    // Only its begin has a time limit.
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), WITHIN);
    const path = `${within(OBSERVE, place)}/taps/live?${query}`;
    const answer = await this.send(path, AbortSignal.any([stop, late.signal]));
    clearTimeout(timer);
    if (!answer.ok) await read(answer);
    for await (const line of lines(answer)) yield JSON.parse(line) as TapLine;
  }

  /** A mesh of before has no such kind, and so no object of it. The right to experiments is apart from
   *  all others: a reader without it has none to look after. */
  private async automation<T>(place: string, plural: string): Promise<T[]> {
    try {
      return (await this.ask<{ items: T[] }>(`${within("/apis/weft.dev/v1alpha1", place)}/${plural}`)).items;
    } catch (error) {
      const hidden = plural === "faultexperiments" && error instanceof Refusal && error.status === 403;
      if (hidden || (error instanceof Refusal && error.status === 404)) return [];
      throw error;
    }
  }

  private async ask<T>(path: string): Promise<T> {
    return (await read(await this.send(path, AbortSignal.timeout(WITHIN)))) as T;
  }

  private async send(path: string, signal: AbortSignal): Promise<Response> {
    try {
      return await fetch(path, { headers: { "weft-dashboard": this.key }, signal });
    } catch {
      throw new Refusal(0, "weft dashboard does not answer; was it stopped?");
    }
  }
}

/** The content of an answer, or the reason why there is none. */
async function read(answer: Response): Promise<unknown> {
  let parsed: unknown;
  try {
    parsed = await answer.json();
  } catch {
    throw new Refusal(answer.ok ? UNREADABLE : answer.status, "the answer cannot be read");
  }
  if (!answer.ok) {
    const { message, details } = parsed as { message?: unknown; details?: { name?: unknown; retryAfterSeconds?: unknown } };
    const missing = answer.status === 404 && Boolean(details?.name);
    const again = Number(details?.retryAfterSeconds ?? 0);
    throw new Refusal(answer.status, String(message ?? answer.status), missing, again > 0 ? again : undefined);
  }
  return parsed;
}

/** Lines of an answer as they come. */
async function* lines(answer: Response): AsyncGenerator<string, void, undefined> {
  const reader = answer.body?.getReader();
  if (!reader) return;
  const decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const part = await reader.read();
      if (part.done) return;
      const whole = (held + decoder.decode(part.value, { stream: true })).split("\n");
      held = whole.pop() ?? "";
      if (held.length > LONGEST_LINE) throw new Refusal(0, "a line of the answer is too long");
      yield* whole;
    }
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal(0, "the answer broke off");
  } finally {
    // Without a further read the stream is released.
    reader.cancel().catch(() => undefined);
  }
}

function within(api: string, place: string): string {
  return place === "" ? api : `${api}/namespaces/${encodeURIComponent(place)}`;
}
