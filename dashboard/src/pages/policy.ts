// Allowed calls: what TrafficTargets allow, and what became of the calls that there were.

import { refused } from "../calls";
import { h, write } from "../dom";
import { refusals } from "../model";
import { Table } from "../table";
import { quoted } from "../text";
import type { App, Page, State, View } from "../view";

export class PolicyPage implements Page {
  readonly name = "policy";
  readonly title = "Policy";
  readonly needs = ["targets" as const];
  private readonly words = h("p", { class: "words" });
  private readonly calls = new Table(
    "Calls of the last minute, and what decided about them",
    ["From", "To", "Access of the called", "Allowed by", "Would be refused by deny", "Refused"],
    "No calls in the last minute.",
  );
  private readonly targets = new Table("TrafficTargets", ["Name", "Who is called", "Who may call", "What"], "There is no TrafficTarget here.");
  readonly element = h("section", {}, h("h1", {}, "Policy"), this.words, this.calls.element, this.targets.element);

  constructor(private readonly app: App) {}

  update({ model, extra }: View): void {
    write(this.words, extra.words.join(" "));
    const edges = [...model.graph.edges].sort((one, other) => refusals(other) - refusals(one));
    this.calls.update(
      edges.map((edge) => ({
        key: edge.id,
        cells: [
          { text: model.name(edge.from) },
          { text: model.name(edge.to) },
          { text: model.nodes.get(edge.to)?.access ?? "" },
          { text: (edge.allowedBy ?? []).join(", ") },
          { text: edge.audit > 0 ? String(edge.audit) : "", by: edge.audit },
          refused(this.app, model, edge),
        ],
      })),
    );
    const subject = (one: { kind: string; name: string; namespace?: string }): string => `${one.namespace ? `${one.namespace}/` : ""}${one.name}${one.kind === "ServiceAccount" ? "" : ` (${one.kind})`}`;
    this.targets.update(
      (extra.targets ?? []).map(({ metadata, spec }) => ({
        key: `${metadata.namespace}/${metadata.name}`,
        cells: [
          { text: `${metadata.namespace}/${metadata.name}` },
          { text: spec.destination ? subject(spec.destination) : "" },
          { text: (spec.sources ?? []).map(subject).join(", ") },
          { text: (spec.rules ?? []).map((rule) => `${rule.kind} ${rule.name}${rule.matches?.length ? `: ${rule.matches.join(", ")}` : ""}`).join("; ") },
        ],
      })),
    );
  }

  command(state: State): string {
    return `weft edges --refused ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }
}
