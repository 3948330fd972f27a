// Whether all is well: a line per thing that can be seen from here, and what to do.

import { h, write } from "../dom";
import { Table, type Row } from "../table";
import { clock } from "../text";
import type { Page, View } from "../view";

const SOON = 3_600_000;
/** Proxies whose clock is further off count in other slots of time than the rest. */
const CLOCK = 5000;

export class HealthPage implements Page {
  readonly name = "health";
  readonly title = "Health";
  readonly needs = ["proxies" as const];
  private readonly words = h("p", { class: "words" });
  private readonly table = new Table("What is seen from here", ["What", "Result", "Words"], "");
  readonly element = h(
    "section",
    {},
    h("h1", {}, "Health of the mesh"),
    this.words,
    this.table.element,
    h("p", {}, "The whole list, with the control plane, webhooks and certificates of the authority, is ", h("code", {}, "weft check"), "."),
  );

  update({ model, extra, at, lost }: View): void {
    write(this.words, extra.words.join(" "));
    const proxies = extra.proxies ?? [];
    const of = (bad: string[], good: string): [boolean, string] => (bad.length === 0 ? [true, good] : [false, bad.slice(0, 5).join("; ") + (bad.length > 5 ? ` and ${bad.length - 5} more` : "")]);
    const named = (fits: (status: (typeof proxies)[number]["status"]) => boolean): string[] => proxies.filter((proxy) => fits(proxy.status)).map((proxy) => `${proxy.metadata.namespace}/${proxy.metadata.name}`);
    const { metadata } = model.graph;
    const unmeshed = [...model.nodes.values()].filter((node) => (node.pods ?? 0) > (node.meshed ?? 0)).map((node) => `${node.namespace ?? ""}/${node.name}: ${(node.pods ?? 0) - (node.meshed ?? 0)} of ${node.pods} pods`);
    const checks: [string, [boolean, string]][] = [
      ["Controller answers", lost ? [false, `since ${clock(lost.since)} it does not: ${lost.why}`] : [true, `at ${clock(at)}`]],
      ["Numbers are complete", [metadata.complete, metadata.complete ? `window of ${metadata.windowSeconds} s up to ${metadata.end}` : (metadata.incomplete ?? "reports of the last seconds may still come")]],
      ["Proxies are connected", of(named((status) => !status.connected), `${proxies.length} of ${proxies.length}`)],
      ["Proxies took all that they were sent", of(named((status) => (status.nacks ?? []).length > 0), "nothing was refused")],
      ["Proxies have acknowledged what concerns them", of(named((status) => status.acknowledged < status.needed), "all have")],
      ["Certificates last", of(named((status) => status.certificate !== undefined && Date.parse(status.certificate.notAfter) - at < SOON), "none ends within an hour")],
      ["Clocks agree", of(named((status) => Math.abs(status.clockAheadMs ?? 0) > CLOCK), "within 5 s")],
      ["Workloads are in the mesh", of(unmeshed, "all that were seen")],
    ];
    const rows: Row[] = checks.map(([name, [good, text]]) => ({
      key: name,
      cells: [{ text: name }, { text: good ? "✓ well" : "✗ look", tone: good ? "good" : "bad" }, { text }],
    }));
    this.table.update(rows);
  }

  command(): string {
    return "weft check";
  }
}
