// Edges as rows: the same numbers as in the picture, as a table.

import type { Edge } from "./api";
import { type Ended, type Model, hasOwnTls, health, neverLeft, refusals, successRate } from "./model";
import type { Cell, Row } from "./table";
import { ago, milliseconds, percent, rate } from "./text";
import { type App, question } from "./view";

export const COLUMNS = ["From", "To", "Service", "Protocol", "Secured", "Success", "Calls/s", "p50", "p95", "p99", "Open", "Refused", "Last call"];

const TONES = { ok: "good", warn: "warn", bad: "bad", idle: undefined } as const;

/** A cell with the share of good calls. */
export function success(ended: Ended): Cell {
  const share = successRate(ended);
  if (share === undefined) return { text: "", by: -1 };
  const cell: Cell = { text: percent(share), by: share };
  const tone = TONES[health(ended)];
  return tone ? { ...cell, tone } : cell;
}

export function secured(edge: Edge): Cell {
  const mtls = edge.mtls;
  if (neverLeft(edge)) return { text: "-", by: -1 };
  // Between plaintext and mutual TLS: the mesh knows no identity of it.
  if (hasOwnTls(edge)) return { text: "TLS", by: 0.5 };
  if (mtls === undefined) return { text: "not known", by: -1 };
  if (mtls === 1) return { text: "mTLS", by: 1, tone: "good" };
  return { text: mtls === 0 ? "plaintext" : `mTLS ${percent(mtls)}`, by: mtls, tone: "warn" };
}

/** How many were refused and why; pressed, it is explained. */
export function refused(app: App, model: Model, edge: Edge): Cell {
  const count = refusals(edge);
  if (count === 0) return { text: "", by: 0 };
  const reasons = Object.keys(edge.refused ?? {}).join(", ");
  return {
    text: `${count} ${reasons}: explain`,
    by: count,
    tone: "bad",
    press: () => app.go({ page: "explain", ask: question(model, edge) }),
  };
}

/** Of a quiet edge, to the hour; the others have calls. */
function lastCall(edge: Edge, now: number): Cell {
  return edge.quiet ? { text: ago(edge.lastSeen, now), by: Date.parse(edge.lastSeen) || 0 } : { text: "now", by: now };
}

/** A node that is opened if pressed. One that stands for a namespace opens that, and the rest nothing. */
function end(app: App, model: Model, id: string): Cell {
  const text = model.name(id);
  const node = model.nodes.get(id);
  if (node?.kind === "Rest") return { text };
  const there = node?.kind === "Namespace" ? { place: node.name, node: "", hops: 0 } : { node: id };
  return { text, press: () => app.go({ page: "graph", ...there }) };
}

/** `unfolded`: the edge between its own ends, where nodes of the model stand for others. */
export function row(app: App, model: Model, edge: Edge, unfolded = { model, edge }): Row {
  const time = (ms: number | undefined): Cell => ({ text: milliseconds(ms), by: ms ?? -1 });
  return {
    key: edge.id,
    cells: [
      end(app, model, edge.from),
      end(app, model, edge.to),
      { text: `${edge.service ? `${edge.service}:` : ""}${edge.port ?? ""}${edge.rule ? ` by ${edge.rule}` : ""}` },
      { text: edge.protocol },
      secured(edge),
      success(edge),
      { text: rate(edge.requests, model.seconds), by: edge.requests },
      time(edge.ms?.p50),
      time(edge.ms?.p95),
      time(edge.ms?.p99),
      { text: String(edge.open), by: edge.open },
      refused(app, unfolded.model, unfolded.edge),
      lastCall(edge, Date.parse(model.graph.metadata.end)),
    ],
  };
}
