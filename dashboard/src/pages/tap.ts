// Requests as they end, of one workload, for readers with the right to watch them. It is
// the one page that holds a stream: as long as it is shown, until Stop is pressed.

import { Refusal, type TapCounts, type TapLine, type TapRequest } from "../api";
import { h, set, write } from "../dom";
import { Choice, field, METHODS } from "../form";
import { type Model, title } from "../model";
import { type Cell, type Row, Table } from "../table";
import { clock, milliseconds, quoted } from "../text";
import type { App, Page, State, View } from "../view";

/** Requests that are kept; the oldest goes first. */
const MOST = 200;
/** Between two drawings. */
const EACH = 250;
/** From one stream to the next at least, and the same after several that ended at once. */
const PAUSE = 1000;
const LONGEST_PAUSE = 5000;
/** How long a controller that announces a retry time is queried before anything came. */
const PATIENCE = 60_000;
/** Kinds whose pods' requests can be watched. */
const KINDS = [
  "CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "ReplicationController", "Rollout", "StatefulSet",
];
const COLUMNS = ["Time", "Direction", "From", "To", "Method", "Path", "Status", "Latency", "Reason", "Secured", "Route"];

const ENDS = ["to", "from"] as const;
const TYPED = ["method", "path", "route", "status", "slower", "maxRps"] as const;
const FILTERS = [...ENDS, ...TYPED] as const;
type Filter = (typeof FILTERS)[number];
/** How the command line calls those that it calls otherwise. */
const FLAGS: Partial<Record<Filter, string>> = { maxRps: "max-rps" };
/** Whose requests, and which of them: ends as `Kind/name`; an empty filter lets all pass. */
type Question = Record<"kind" | "name" | Filter, string>;
type Sums = Pick<TapCounts, "matched" | "shown" | "dropped">;

export class TapPage implements Page {
  readonly name = "tap";
  readonly title = "Tap";
  readonly element: HTMLElement;
  private readonly of = new Choice("tap-of");
  private readonly ends = { to: new Choice("tap-to"), from: new Choice("tap-from") };
  private readonly inputs = {
    method: h("select", { id: "tap-method" }, h("option", { value: "" }, "any"), ...METHODS.map((name) => h("option", {}, name))),
    path: text("tap-path"),
    route: text("tap-route"),
    status: text("tap-status"),
    slower: text("tap-slower"),
    maxRps: h("input", { id: "tap-max-rps", type: "number", min: 1, max: 1000 }),
  };
  private readonly form: HTMLElement;
  private readonly outcome = h("p", { class: "outcome", role: "status" });
  private readonly counted = h("p", { class: "words" });
  private readonly table = new Table("Requests, the newest first", COLUMNS, "No request was shown.");
  /** Where it watches, or did. */
  private place = "";
  /** The last query of the address. */
  private asked = "";
  private stop: AbortController | undefined;
  private rows: Row[] = [];
  private next = 0;
  private timer = 0;
  /** What the streams before counted, and this one. */
  private before: Sums = { matched: 0, shown: 0, dropped: 0 };
  private counts: TapCounts | undefined;

  constructor(private readonly app: App) {
    this.form = h(
      "form",
      { submit: (event) => this.submit(event) },
      field("tap-of", "Whose requests", this.of.element),
      field("tap-to", "Calls to", this.ends.to.element),
      field("tap-from", "Calls from", this.ends.from.element),
      field("tap-method", "Method", this.inputs.method),
      field("tap-path", "Path begins with", this.inputs.path),
      field("tap-route", "Route, such as cart/read", this.inputs.route),
      field("tap-status", "Status, such as 5xx", this.inputs.status),
      field("tap-slower", "Took at least, such as 200ms", this.inputs.slower),
      field("tap-max-rps", "Requests per second at most (100 unless set)", this.inputs.maxRps),
      h("button", { type: "submit" }, "Start"),
      h("button", { type: "button", click: () => this.leave() }, "Stop"),
    );
    this.element = h(
      "section",
      {},
      h("h1", {}, "Tap"),
      h("p", {}, "Requests as they end, without bodies, queries and headers. The watching user is named in the controller's log and in an Event at the watched workload."),
      this.form,
      this.outcome,
      this.counted,
      this.table.element,
    );
  }

  update({ model, state }: View): void {
    const moved = this.place !== state.place;
    if (moved) {
      this.leave();
      this.place = state.place;
      this.forget();
      write(this.outcome, "");
    }
    const nowhere = state.place === "";
    set(this.form, "hidden", nowhere);
    if (nowhere) {
      write(this.outcome, "Requests are shown of one namespace; choose it above.");
      return;
    }
    const known = new Map<string, string>();
    const add = (kind: string, name: string): void => {
      known.set(JSON.stringify({ kind, name }), title({ kind, name }));
    };
    add("Namespace", state.place);
    for (const node of model.nodes.values()) {
      if (node.namespace !== state.place || node.gone || (node.meshed ?? 0) === 0) continue;
      if (KINDS.includes(node.kind)) add(node.kind, node.name);
      for (const service of node.services ?? []) {
        const [namespace, name] = service.split("/");
        if (namespace === state.place && name) add("Service", name);
      }
    }
    const ends = endsIn(model, state.place);
    let chosen = this.of.chosen;
    const end = moved ? { to: "", from: "" } : { to: this.ends.to.chosen, from: this.ends.from.chosen };
    if (state.tap !== "" && state.tap !== this.asked) {
      // An address fills in the form and starts nothing: a watching user is named.
      this.asked = state.tap;
      const question = read(state.tap);
      if (question.name !== "") add(question.kind, question.name);
      chosen = JSON.stringify({ kind: question.kind, name: question.name });
      for (const filter of TYPED) this.inputs[filter].value = question[filter];
      for (const filter of ENDS) end[filter] = question[filter];
    }
    this.of.update(known, chosen);
    for (const filter of ENDS) {
      // What was chosen stays, even if the graph has it no longer.
      const offered = new Map(ends).set(end[filter], named(end[filter]));
      this.ends[filter].update(offered, end[filter]);
    }
  }

  command(state: State): string {
    const question = read(state.tap);
    const words = ["weft tap", question.name === "" ? "deploy/web" : quoted(title(question))];
    for (const filter of ENDS) if (question[filter] !== "") words.push(`--${filter}`, quoted(named(question[filter])));
    for (const filter of TYPED) if (question[filter] !== "") words.push(`--${FLAGS[filter] ?? filter}`, quoted(question[filter]));
    if (state.place !== "") words.push("-n", quoted(state.place));
    return words.join(" ");
  }

  leave(): void {
    if (!this.stop) return;
    this.end("Stopped.");
  }

  private submit(event: Event): void {
    event.preventDefault();
    const chosen = read(this.of.chosen);
    const question: Question = { ...read(""), kind: chosen.kind, name: chosen.name };
    for (const filter of ENDS) question[filter] = this.ends[filter].chosen;
    for (const filter of TYPED) question[filter] = this.inputs[filter].value.trim();
    if (question.name === "") return;
    this.leave();
    this.forget();
    this.asked = JSON.stringify(question);
    this.app.go({ tap: this.asked });
    this.stop = new AbortController();
    void this.follow(question, this.stop.signal);
  }

  /** One stream after the other: each ends by itself, and the next is authorised anew. */
  private async follow(question: Question, stop: AbortSignal): Promise<void> {
    const query = new URLSearchParams({ watch: "true", of: `${question.kind}/${question.name}` });
    for (const filter of FILTERS) if (question[filter] !== "") query.set(filter, question[filter]);
    const watching = `Watching ${title(question)}.`;
    const until = performance.now() + PATIENCE;
    let worked = false;
    let pause = PAUSE;
    write(this.outcome, `Asking for the requests of ${title(question)}.`);
    for (;;) {
      const started = performance.now();
      let last = false;
      let again = 0;
      try {
        for await (const line of this.app.mesh.tap(this.place, query.toString(), stop)) {
          if (stop.aborted) return;
          worked = true;
          write(this.outcome, watching);
          last = this.take(line);
        }
      } catch (error) {
        if (stop.aborted) return;
        const refusal = error instanceof Refusal ? error : new Refusal(0, "the answer cannot be read");
        again = (refusal.again ?? 0) * 1000;
        // A controller that was there before may be away for a moment, and one that is there may have no room for a tap.
        const waits = worked ? refusal.passes : again > 0 && performance.now() + again <= until;
        if (!waits) return this.end(refusal.message);
        write(this.outcome, `${worked ? "Nothing is shown for a moment" : "Asking again, for a minute at most"}: ${refusal.message}`);
      }
      if (stop.aborted) return;
      this.before = this.sums();
      this.counts = undefined;
      const now = performance.now();
      if (now - started > PAUSE) pause = PAUSE;
      const wait = (last ? started : now) + Math.max(pause, Math.min(again, PATIENCE)) - now;
      pause = Math.min(pause * 2, LONGEST_PAUSE);
      if (wait > 0) await new Promise((done) => setTimeout(done, wait));
      if (stop.aborted) return;
    }
  }

  /** Whether it is the last line of its stream. */
  private take({ request, metadata }: TapLine): boolean {
    if (request) {
      this.rows.unshift({ key: String(this.next++), cells: cells(request) });
      this.rows.length = Math.min(this.rows.length, MOST);
    }
    if (metadata) this.counts = metadata;
    if (this.timer === 0) {
      this.timer = window.setTimeout(() => {
        this.timer = 0;
        this.show();
      }, EACH);
    }
    return metadata?.last ?? false;
  }

  private end(words: string): void {
    this.stop?.abort();
    this.stop = undefined;
    write(this.outcome, words);
    this.show();
  }

  /** What was shown of something else must not be read as if it were of this. */
  private forget(): void {
    this.rows = [];
    this.before = { matched: 0, shown: 0, dropped: 0 };
    this.counts = undefined;
    this.show();
  }

  private sums(): Sums {
    const { before, counts } = this;
    if (!counts) return before;
    return {
      matched: before.matched + counts.matched,
      shown: before.shown + counts.shown,
      dropped: before.dropped + counts.dropped,
    };
  }

  private show(): void {
    this.table.update(this.rows);
    const { matched, shown, dropped } = this.sums();
    const parts = [`${shown} of ${matched} matching requests shown, ${dropped} dropped for want of room`];
    if (this.counts) parts.push(`${this.counts.takingPart} of ${this.counts.proxies} proxies report`);
    if (shown > MOST) parts.push(`the newest ${MOST} are listed`);
    write(this.counted, matched > 0 || this.counts ? `${parts.join("; ")}.` : "");
  }
}

function text(id: string): HTMLInputElement {
  return h("input", { id, type: "text", autocomplete: "off", spellcheck: "false" });
}

/** A query as the address or the choice holds it; an empty name where it is none. */
function read(encoded: string): Question {
  const question: Question = { kind: "", name: "", to: "", from: "", method: "", path: "", route: "", status: "", slower: "", maxRps: "" };
  try {
    const parts = JSON.parse(encoded) as Record<string, unknown>;
    for (const name of ["kind", "name", ...FILTERS] as const) {
      const part = parts[name];
      if (typeof part === "string") question[name] = part;
    }
  } catch {
    // An address may hold anything.
  }
  return question;
}

/** What can be at the other end, by how the API names it: what there is here, and other namespaces. */
function endsIn(model: Model, place: string): Map<string, string> {
  const ends = new Set([""]);
  for (const { kind, name, namespace, services, gone } of model.nodes.values()) {
    if (namespace && namespace !== place) ends.add(`Namespace/${namespace}`);
    if (namespace !== place || gone) continue;
    if (KINDS.includes(kind)) ends.add(`${kind}/${name}`);
    for (const service of services ?? []) {
      const [of, called] = service.split("/");
      if (of === place && called) ends.add(`Service/${called}`);
    }
  }
  return new Map([...ends].map((end) => [end, named(end)] as const));
}

/** `Kind/name` as kubectl has it. */
function named(end: string): string {
  const [kind = "", name = ""] = end.split("/");
  return end === "" ? "any" : title({ kind, name });
}

function cells(request: TapRequest): Cell[] {
  const peer = request.peer === "" ? "not known" : request.peer;
  const out = request.direction === "outbound";
  const [from, to] = out ? [request.pod, peer] : [peer, request.pod];
  const reason = request.reason ?? "";
  const grpc = request.grpcStatus === undefined ? "" : ` gRPC ${request.grpcStatus}`;
  const status: Cell = { text: `${request.status}${grpc}`, by: request.status };
  return [
    { text: clock(Date.parse(request.time)) },
    { text: out ? "out" : "in" },
    { text: from },
    { text: `${to}:${request.port}` },
    { text: request.method },
    { text: `${request.host ?? ""}${request.path}` },
    request.status >= 500 || reason !== "" ? { ...status, tone: "bad" } : status,
    { text: milliseconds(request.ms), by: request.ms },
    { text: reason },
    request.mtls ? { text: "mTLS", tone: "good" } : request.unsent ? { text: "-" } : { text: "plaintext", tone: "warn" },
    { text: request.route ?? "" },
  ];
}
