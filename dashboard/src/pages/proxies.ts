// Every proxy: what it is, whether it is led, and how long its certificate lasts.

import type { Proxy } from "../api";
import { h, write } from "../dom";
import { behind, late } from "../proxy";
import { Table, type Cell } from "../table";
import { bytes, quoted, until } from "../text";
import type { Page, State, View } from "../view";

/** Whether it holds a stream, which no controller gives to a revoked pod. */
function connection({ connected, draining, revokedBy }: Proxy["status"]): Cell {
  if (revokedBy !== undefined) return { text: "revoked", tone: "warn" };
  return connected ? { text: draining ? "yes, leaving" : "yes", tone: "good" } : { text: "no", tone: "bad" };
}

export class ProxiesPage implements Page {
  readonly name = "proxies";
  readonly title = "Proxies";
  readonly needs = ["proxies" as const];
  private readonly words = h("p", { class: "words" });
  private readonly table = new Table(
    "Proxies",
    ["Pod", "Workload", "Version", "Connected", "Acknowledged", "Refused", "Certificate ends in", "Memory", "Identity"],
    "There is no proxy here.",
  );
  readonly element = h("section", {}, h("h1", {}, "Proxies and certificates"), this.words, this.table.element);

  update({ extra, model }: View): void {
    write(this.words, extra.words.join(" "));
    // By the controller's clock: this machine's may be wrong.
    const now = Date.parse(model.graph.metadata.end);
    this.table.update(
      (extra.proxies ?? []).map(({ metadata, status }) => {
        const nacks = status.nacks ?? [];
        const ends = status.certificate?.notAfter;
        const left = ends ? Date.parse(ends) - now : undefined;
        const certificate: Cell = { text: ends ? until(ends, now) : "", by: left ?? -1 };
        return {
          key: `${metadata.namespace}/${metadata.name}`,
          cells: [
            { text: `${metadata.namespace}/${metadata.name}` },
            { text: status.workload },
            { text: status.version ?? "" },
            connection(status),
            { text: `${status.acknowledged} of ${status.needed}`, by: status.acknowledged - status.needed, ...(behind(status) ? { tone: "warn" } : {}) },
            { text: nacks.map((nack) => `${nack.object}: ${nack.reason}`).join("; "), ...(nacks.length > 0 ? { tone: "bad" } : {}) },
            late(status, now) ? { ...certificate, tone: "warn" } : certificate,
            { text: bytes(status.memory), by: status.memory ?? -1 },
            { text: status.identity },
          ] as Cell[],
        };
      }),
    );
  }

  command(state: State): string {
    return `weft proxies ${state.place === "" ? "-A" : `-n ${quoted(state.place)}`}`;
  }
}
