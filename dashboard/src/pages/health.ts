// Whether all is well: a line per thing that can be seen from here, and what to do.

import type { MeshNode, Proxy } from "../api";
import { h, write } from "../dom";
import { success } from "../calls";
import { compare, loss, type Model, successRate, title } from "../model";
import { behind, lacks, late } from "../proxy";
import { type Cell, Table, type Row } from "../table";
import { clock, percent, rate } from "../text";
import type { App, Page, View } from "../view";

/** Proxies whose clock is further off count in other slots of time than the rest. */
const CLOCK = 5000;

type Status = Proxy["status"];
type Found = "good" | "bad" | "unknown";
type Result = [Found, string];

const SHOWN: Record<Found, Cell> = {
  good: { text: "✓ well", tone: "good" },
  bad: { text: "✗ problem", tone: "bad" },
  unknown: { text: "? not known", tone: "warn" },
};

/** What is called and fails many of its calls, the worst first. */
function failing(model: Model): string[] {
  const called = [...model.nodes.values()].filter(({ id }) => (model.into.get(id) ?? []).length > 0);
  const ill = called.map((node) => ({ node, sums: model.sums(node.id) })).filter(({ sums }) => sums.health === "bad");
  const failed = ill.map(({ node, sums }) => ({ node, count: sums.failure - sums.refused, all: sums.success + sums.failure }));
  failed.sort((one, other) => other.count - one.count);
  return failed.map(({ node, count, all }) => `${node.namespace ? `${node.namespace}/` : ""}${node.name}: ${percent(count / all)} of ${all} calls fail`);
}

/** The command with more about each. */
const FURTHER: Record<string, string> = {
  "Controller answers": "weft check",
  "Numbers are complete": "weft check",
  "Calls succeed": "weft stat deploy",
  "Proxies are connected": "weft proxies",
  "Proxies took all that they were sent": "weft proxies",
  "Proxies have acknowledged what concerns them": "weft proxies",
  "Certificates last": "weft proxies -o wide",
  "Clocks agree": "weft proxies -o wide",
  "Workloads are in the mesh": "weft stat deploy",
};
/** Workloads that are listed; the overview has all. */
const MOST_WORKLOADS = 10;

/** What the controller itself knows of every proxy. */
const known = (): boolean => true;

export class HealthPage implements Page {
  readonly name = "health";
  readonly title = "Health";
  readonly needs = ["proxies" as const];
  private readonly words = h("p", { class: "words" });
  private readonly table = new Table("Checks of the mesh", ["Check", "Result", "Details", "To look further"], "");
  private readonly sum = h("p", { class: "sum" });
  private readonly workloads = new Table("Workloads whose calls fail, the worst first", ["Name", "Namespace", "Success", "Calls/s"], "None: no workload's calls fail.");
  readonly element = h(
    "section",
    {},
    h("h1", {}, "Health of the mesh"),
    this.words,
    this.sum,
    this.table.element,
    this.workloads.element,
    h("p", {}, "The whole list, with the control plane, webhooks and certificates of the authority, is ", h("code", {}, "weft check"), "."),
  );

  constructor(private readonly app: App) {}

  update({ model, extra, at, lost }: View): void {
    write(this.words, extra.words.join(" "));
    const few = (all: string[]): string => all.slice(0, 5).join("; ") + (all.length > 5 ? ` and ${all.length - 5} more` : "");
    const of = (bad: string[], good: string): Result => (bad.length === 0 ? ["good", good] : ["bad", few(bad)]);
    // Those of revoked pods are no fault, as for `weft check`.
    const meant = (extra.proxies ?? []).filter(({ status }) => status.revokedBy === undefined);
    const ended = (extra.proxies ?? []).length - meant.length;
    const named = (fits: (status: Status) => boolean): string[] => meant.filter(({ status }) => fits(status)).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
    const waiting = named(lacks);
    // A value that is not reported is not well.
    const proxies = (reported: (status: Status) => unknown, bad: (status: Status) => boolean, good: string): Result => {
      if (!extra.proxies) return ["unknown", "the proxies could not be read"];
      const ill = named(bad);
      const silent = named((status) => status.connected && reported(status) === undefined);
      return ill.length === 0 && silent.length > 0 ? ["unknown", `not reported by ${few(silent)}`] : of(ill, good);
    };
    const now = Date.parse(model.graph.metadata.end);
    const { metadata } = model.graph;
    const missing = loss(metadata);
    const bare = (node: MeshNode): number => node.withoutProxy ?? (node.pods ?? 0) - (node.meshed ?? 0);
    const unmeshed = [...model.nodes.values()].filter((node) => bare(node) > 0).map((node) => `${node.namespace ?? ""}/${node.name}: ${bare(node)} of ${node.pods} pods`);
    const checks: [string, Result][] = [
      ["Controller answers", lost ? [lost.controller ? "bad" : "unknown", `since ${clock(lost.since)} ${lost.why}: ${lost.message}`] : ["good", `at ${clock(at)}`]],
      ["Numbers are complete", missing === undefined ? ["good", `window of ${metadata.windowSeconds} s up to ${metadata.end}`] : ["bad", missing]],
      ["Calls succeed", of(failing(model), "nothing that was called in the last minute fails 5 % of its calls")],
      ["Proxies are connected", proxies(known, (status) => !status.connected, `${meant.length} of ${meant.length}${ended > 0 ? `, and ${ended} revoked` : ""}`)],
      ["Proxies took all that they were sent", proxies(known, (status) => (status.nacks ?? []).length > 0, "nothing was refused")],
      ["Proxies have acknowledged what concerns them", proxies(known, behind, waiting.length === 0 ? "all have" : `something is on its way to ${few(waiting)}`)],
      ["Certificates last", proxies((status) => status.certificate, (status) => late(status, now), "none is about to end")],
      ["Clocks agree", proxies((status) => status.clockAheadMs, (status) => Math.abs(status.clockAheadMs ?? 0) > CLOCK, "within 5 s")],
      ["Workloads are in the mesh", of(unmeshed, "all that asked for a proxy have one")],
    ];
    const rows: Row[] = checks.map(([name, [found, text]]) => ({
      key: name,
      cells: [{ text: name }, SHOWN[found], { text }, { text: found === "good" ? "" : (FURTHER[name] ?? "weft check") }],
    }));
    this.table.update(rows);
    const count = (found: Found): number => checks.filter(([, [one]]) => one === found).length;
    const parts = [`${count("good")} of ${checks.length} checks are well`];
    if (count("bad") > 0) parts.push(`${count("bad")} found a problem`);
    if (count("unknown") > 0) parts.push(`of ${count("unknown")} nothing is known`);
    write(this.sum, `${parts.join(", ")}.`);
    this.list(model);
  }

  private list(model: Model): void {
    const ill = [...model.nodes.values()].map((node) => ({ node, sums: model.sums(node.id) })).filter(({ sums }) => sums.health === "bad" || sums.health === "warn");
    const share = ({ sums }: (typeof ill)[number]): number => successRate(sums) ?? 1;
    ill.sort((one, other) => share(one) - share(other) || compare(one.node.id, other.node.id));
    this.workloads.update(
      ill.slice(0, MOST_WORKLOADS).map(({ node, sums }) => ({
        key: node.id,
        cells: [{ text: title(node), press: () => this.app.go({ page: "graph", node: node.id, hops: 0 }) }, { text: node.namespace ?? "" }, success(sums), { text: rate(sums.requests, model.seconds), by: sums.requests }],
      })),
    );
  }

  command(): string {
    return "weft check";
  }
}
