// Why a call passes or not, and the objects that would let it pass.

import type { End, Explanation, Question } from "../api";
import { Refusal } from "../api";
import { h, write } from "../dom";
import { Choice, field, METHODS } from "../form";
import { title } from "../model";
import { percent, quoted } from "../text";
import { type App, asEnd, type Page, type State, type View } from "../view";

const KINDS: Record<string, string> = {
  CronJob: "cj", DaemonSet: "ds", Deployment: "deploy", Job: "job", Pod: "pod", ReplicaSet: "rs", Rollout: "ro",
  StatefulSet: "sts", Service: "svc", ServiceAccount: "sa", External: "external",
};

const UNSAID = "Which of the requests were refused is not counted, and the answer depends on that: set method and path, then press Explain. Tap shows requests as they end.";
/** Refusals of proxies that are shown; those of one object are mostly alike. */
const NACKS = 5;
/** Workloads, and pods of one backend, that are named. */
const NAMED = 4;

type Status = NonNullable<Explanation["explanation"]["status"]>;

export class ExplainPage implements Page {
  readonly name = "explain";
  readonly title = "Explain";
  readonly asks = true;
  readonly element: HTMLElement;
  private readonly from = new Choice("from");
  private readonly to = new Choice("to");
  private readonly port = h("input", { id: "port", type: "number", min: 1, max: 65535 });
  private readonly method = h("select", { id: "method" }, ...METHODS.map((name) => h("option", {}, name)));
  private readonly path = h("input", { id: "path", type: "text", value: "/", spellcheck: "false" });
  private readonly tcp = h("input", { id: "tcp", type: "checkbox" });
  private readonly outcome = h("section", { class: "outcome", role: "status", "aria-label": "Answer" });
  private asked = "";

  constructor(private readonly app: App) {
    this.element = h(
      "section",
      {},
      h("h1", {}, "Explain a call"),
      h(
        "form",
        { submit: (event) => this.submit(event) },
        field("from", "Who calls", this.from.element),
        field("to", "What is called", this.to.element),
        field("port", "Port", this.port),
        field("method", "Method", this.method),
        field("path", "Path", this.path),
        field("tcp", "TCP, not HTTP", this.tcp),
        h("button", { type: "submit" }, "Explain"),
      ),
      this.outcome,
    );
  }

  update({ model, state }: View): void {
    const [callers, called] = [new Map<string, string>(), new Map<string, string>()];
    callers.set(JSON.stringify({ outside: true }), "outside: a caller without a proxy");
    for (const node of model.nodes.values()) {
      const end = JSON.stringify(asEnd(node));
      const text = node.namespace ? `${title(node)} in ${node.namespace}` : title(node);
      if (node.namespace && node.kind !== "Service") callers.set(end, text);
      if (node.kind !== "Outside" && node.kind !== "ServiceAccount" && node.kind !== "Unknown") called.set(end, text);
      for (const service of node.services ?? []) {
        const [namespace, name] = service.split("/");
        called.set(JSON.stringify({ kind: "Service", namespace, name }), `svc/${name} in ${namespace}`);
      }
    }
    if (state.ask !== "" && state.ask !== this.asked) {
      const question = read(state.ask);
      const { port, ...to } = question.to;
      name(callers, question.from);
      name(called, to);
      this.from.update(callers, JSON.stringify(question.from));
      this.to.update(called, JSON.stringify(to));
      this.port.value = port ? String(port) : "";
      this.method.value = question.method ?? "GET";
      this.path.value = question.path ?? "/";
      this.tcp.checked = question.tcp ?? false;
      this.asked = state.ask;
      if (complete(question)) void this.explain(question);
      else this.outcome.replaceChildren(h("p", {}, UNSAID));
    } else {
      this.from.update(callers, this.from.chosen);
      this.to.update(called, this.to.chosen);
    }
  }

  command(state: State): string {
    const { from, to, method, path, tcp } = read(state.ask);
    if (!to.name) return "weft explain deploy/web svc/cart GET /";
    const caller = from.outside ? "outside" : `${KINDS[from.kind ?? ""] ?? from.kind}/${from.name}`;
    const words = ["weft explain", quoted(caller), quoted(`${KINDS[to.kind ?? ""] ?? to.kind}/${to.name}${to.port ? `:${to.port}` : ""}`)];
    words.push(tcp ? "--tcp" : method === undefined ? "METHOD PATH" : `${quoted(method)} ${quoted(path ?? "/")}`);
    if (to.namespace) words.push("-n", quoted(to.namespace));
    if (from.namespace && from.namespace !== to.namespace) words.push("--from-namespace", quoted(from.namespace));
    return words.join(" ");
  }

  private submit(event: Event): void {
    event.preventDefault();
    const question: Question = { from: JSON.parse(this.from.chosen) as End, to: JSON.parse(this.to.chosen) as End };
    if (this.port.value !== "") question.to.port = Number(this.port.value);
    if (this.tcp.checked) question.tcp = true;
    else Object.assign(question, { method: this.method.value, path: this.path.value || "/" });
    const ask = JSON.stringify(question);
    // The same query is sent again: something may have been applied meanwhile.
    if (ask === this.asked) void this.explain(question);
    else this.app.go({ ask });
  }

  private async explain(question: Question): Promise<void> {
    const asked = this.asked;
    this.outcome.replaceChildren(h("p", {}, "Asking the mesh."));
    try {
      const answer = await this.app.mesh.explain(question);
      if (asked === this.asked) this.show(answer);
    } catch (error) {
      if (asked !== this.asked) return;
      const words = error instanceof Refusal ? error.message : "the answer cannot be read";
      this.outcome.replaceChildren(h("h2", { class: "bad" }, "The result is unknown"), h("p", {}, words));
    }
  }

  private show({ explanation, yaml }: Explanation): void {
    const status = explanation.status ?? { verdict: "Unknown" };
    const tone = status.verdict === "Allowed" ? "good" : status.verdict === "Refused" ? "bad" : "warn";
    const first = [status.verdict, status.httpStatus, status.reason].filter(Boolean).join(" ") + refusing(status);
    const parts: HTMLElement[] = [h("h2", { class: tone }, first)];
    const steps = status.steps ?? [];
    if (steps.length === 0 && status.owner) parts.push(h("p", {}, `Namespace ${status.owner} decides; who may read it may see why.`));
    if (steps.length > 0) {
      parts.push(
        h("ol", { class: "steps" }, ...steps.map((step) =>
          h("li", { class: step.step === "rule" ? "rule" : undefined }, h("b", {}, step.step), " ", step.text, h("small", {}, (step.objects ?? []).join(", "))),
        )),
      );
    }
    const backends = status.backends ?? [];
    for (const backend of backends) {
      const verdict = [backend.verdict, backend.reason].filter(Boolean).join(" ");
      const parted = backends.filter((other) => other.service === backend.service).length > 1;
      const pods = parted && backend.pods?.length ? `; so at ${few(status, backend.pods, backend.judged)}` : "";
      parts.push(h("p", {}, `${backend.service}: ${percent(backend.share)} of the calls, ${verdict}, ${backend.ready} of ${backend.endpoints} endpoints ready${pods}`));
    }
    if (status.seen) {
      const refused = Object.entries(status.seen.refused ?? {}).map(([reason, count]) => `, ${count} refused ${reason}`);
      parts.push(h("p", {}, `Seen in ${Math.ceil(status.seen.windowSeconds / 60)} min: ${status.seen.requests} calls, ${status.seen.failure} failed${refused.join("")}`));
    }
    if (status.programmed && status.programmed.of > 0) {
      const { proxies, of } = status.programmed;
      parts.push(h("p", {}, `${proxies} of ${of} proxies have what this says${proxies < of ? "; the others judge by the version before" : ""}.`));
    }
    const nacks = status.programmed?.nacks ?? [];
    for (const nack of nacks.slice(0, NACKS)) parts.push(h("p", { class: "warn" }, `A proxy refused it: ${nack}`));
    if (nacks.length > NACKS) parts.push(h("p", { class: "warn" }, `${nacks.length - NACKS} more refused it.`));
    parts.push(...this.fix(status.fix, yaml));
    this.outcome.replaceChildren(...parts);
  }

  private fix(fix: { commands?: string[]; warnings?: string[] } | undefined, yaml: string): HTMLElement[] {
    if (!fix) return [];
    const parts: HTMLElement[] = [];
    for (const warning of fix.warnings ?? []) parts.push(h("p", { class: "warn" }, `Warning: ${warning}`));
    for (const command of fix.commands ?? []) parts.push(h("p", {}, "No object mends this; run: ", h("code", {}, command)));
    if (yaml !== "") {
      const text = h("pre", { class: "yaml", tabindex: 0, role: "region", "aria-label": "Objects that would allow it" });
      // Lines are lines here; all else that acts stays an escape.
      for (const line of yaml.split("\n")) text.append(h("span", {}, line), "\n");
      const copy = h("button", { type: "button", click: () => void navigator.clipboard.writeText(yaml).then(() => write(copy, "Copied")) }, "Copy");
      parts.push(h("h3", {}, `These objects would allow this call${(fix.warnings ?? []).length > 0 ? "; see the warnings" : " and nothing else"}`), text, copy, h("p", {}, "The page changes nothing: apply them with ", h("code", {}, "kubectl apply -f -")));
    }
    return parts;
  }
}

/** The end of the first line: whose proxies refuse. */
function refusing(status: Status): string {
  const named = (status.refusedBy ?? []).map((workload) => workload.slice(workload.indexOf(" ") + 1));
  if (named.length === 0) return "";
  return `, ${status.verdict === "Mixed" ? "some calls refused " : ""}by the proxies of ${few(status, [...new Set(named)])}`;
}

/** The first of so many `namespace/name`, without the namespace where it is that of what is called. */
function few(status: Status, keys: string[], of = keys.length): string {
  const near = `${status.owner ?? ""}/`;
  const names = keys.slice(0, NAMED).map((key) => (key.startsWith(near) ? key.slice(near.length) : key));
  const more = of - names.length;
  if (more > 0) return `${names.join(", ")} and ${more} more`;
  const last = names.pop() ?? "";
  return names.length > 0 ? `${names.join(", ")} and ${last}` : last;
}

function read(ask: string): Question {
  try {
    const question = JSON.parse(ask) as Partial<Question>;
    return { ...question, from: question.from ?? {}, to: question.to ?? {} };
  } catch {
    return { from: {}, to: {} };
  }
}

/** Whether it holds a request; a link from the graph knows both ends and no more. */
function complete(question: Question): boolean {
  return question.tcp === true || question.method !== undefined;
}

/** Adds the object of the query, even if the graph does not have it. */
function name(known: Map<string, string>, end: Question["from"]): void {
  const key = JSON.stringify(end);
  if (!known.has(key)) known.set(key, `${KINDS[end.kind ?? ""] ?? end.kind ?? ""}/${end.name ?? ""} in ${end.namespace ?? ""}`);
}
