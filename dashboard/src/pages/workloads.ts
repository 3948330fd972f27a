// All workloads with their numbers: the graph's nodes, to find the worst one.

import { success } from "../calls";
import { h } from "../dom";
import { title } from "../model";
import { Table, type Cell } from "../table";
import { milliseconds, quoted, rate } from "../text";
import type { App, Page, State, View } from "../view";

export class WorkloadsPage implements Page {
  readonly name = "workloads";
  readonly title = "Workloads";
  private readonly table = new Table(
    "What workloads served in the last minute",
    ["Name", "Namespace", "Meshed", "Success", "Calls/s", "p95 of the slowest caller", "Open", "Refused", "Access", "mTLS"],
    "No workload is known here.",
  );
  readonly element = h("section", {}, h("h1", {}, "Workloads"), this.table.element);

  constructor(private readonly app: App) {}

  update({ model }: View): void {
    const shown = [...model.nodes.values()].filter((node) => node.kind !== "External" && node.kind !== "Outside");
    this.table.update(
      shown.map((node) => {
        const into = model.into.get(node.id) ?? [];
        const sum = (of: (edge: (typeof into)[number]) => number): number => into.reduce((all, edge) => all + of(edge), 0);
        const ended = { requests: sum((edge) => edge.requests), success: sum((edge) => edge.success), failure: sum((edge) => edge.failure) };
        const slowest = Math.max(-1, ...into.map((edge) => edge.ms?.p95 ?? -1));
        const [pods, meshed] = [node.pods ?? 0, node.meshed ?? 0];
        const refused = model.sums(node.id).refused;
        const cells: Cell[] = [
          { text: title(node), press: () => this.app.go({ page: "graph", node: node.id }) },
          { text: node.namespace ?? "" },
          { text: pods > 0 ? `${meshed} of ${pods}` : "", by: pods > 0 ? meshed / pods : -1, ...(meshed < pods ? { tone: "warn" as const } : {}) },
          success(ended),
          { text: rate(ended.requests, model.seconds), by: ended.requests },
          { text: slowest < 0 ? "" : milliseconds(slowest), by: slowest },
          { text: String(sum((edge) => edge.open)), by: sum((edge) => edge.open) },
          { text: into.length > 0 && refused > 0 ? String(refused) : "", by: into.length > 0 ? refused : 0 },
          { text: node.access ?? "" },
          { text: node.mtls ?? "" },
        ];
        return { key: node.id, cells };
      }),
    );
  }

  command(state: State): string {
    return `weft stat deploy ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }
}
