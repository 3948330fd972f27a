// Releases and experiments, as the status of each object has them.

import { h, set, write } from "../dom";
import { compare } from "../model";
import { type Cell, Table } from "../table";
import { clock, percent, until } from "../text";
import type { Counts, Experiment, Release } from "../api";

/** Steps of a release that lists none. */
const STEPS = [5, 20, 50, 100].map((weight) => ({ weight }));
/** Phases in which calls go by the weight of the run. */
const UNDER_WAY = ["Progressing", "Paused", "Promoting"];

function nameOf({ metadata }: { metadata: { namespace: string; name: string } }): string {
  return `${metadata.namespace}/${metadata.name}`;
}

/** A share of bad calls; nothing where there was none. */
function share(counts: Counts | undefined): string {
  return counts && counts.requests > 0 ? percent(counts.bad / counts.requests) : "-";
}

function counted(counts: Counts | undefined): string {
  return counts ? `${counts.bad}/${counts.requests}` : "";
}

/** Evidence as `0.4 of 400`, drawn by its logarithm: it grows by factors. */
function evidence(text: string | undefined): Cell {
  const [now, wanted] = (text ?? "").split(" of ").map(Number);
  if (now === undefined || wanted === undefined || !(wanted > 1)) return { text: text ?? "" };
  return { text: text ?? "", by: now, bar: Math.min(1, Math.log1p(Math.max(0, now)) / Math.log1p(wanted)) };
}

function verdict(text: string | undefined): Cell {
  return text === "worse" ? { text, tone: "bad" } : { text: text ?? "" };
}

/** How much of a hundred calls the pods allow the candidate. */
function cap({ status }: Release): number {
  const [candidate, stable] = [status?.candidate?.pods ?? 0, status?.stable?.pods ?? 0];
  return candidate > 0 ? Math.max(1, Math.floor((100 * candidate) / (candidate + stable))) : 0;
}

/** When a step ends at the earliest, in milliseconds since 1970. */
function endOfStep({ spec, status }: Release): number | undefined {
  const run = status?.run;
  if (status?.phase !== "Progressing" || !run?.stepStartedAt) return undefined;
  const duration = spec.steps ? spec.steps[run.step - 1]?.duration : undefined;
  return Date.parse(run.stepStartedAt) + milliseconds(duration ?? "1m");
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Of a duration such as `1m30s`. */
function milliseconds(duration: string): number {
  return [...duration.matchAll(/(\d+)(ms|s|m|h)/g)].reduce((sum, [, count, unit]) => sum + Number(count) * (UNITS[unit ?? ""] ?? 0), 0);
}

/** The releases, and of those that are opened their steps, checks and last runs. */
export class Releases {
  private readonly opened = new Set<string>();
  private readonly details = new Map<string, ReleaseDetails>();
  private readonly table = new Table(
    "CanaryReleases",
    ["Release", "Phase", "Step", "Weight", "Errors stable/candidate", "Evidence", "Left"],
    "",
  );
  private readonly below = h("div");
  readonly element = h("div", {}, this.table.element, this.below);
  private shown: Release[] = [];
  private at = 0;

  update(releases: Release[], at: number): void {
    this.shown = [...releases].sort((one, other) => compare(nameOf(one), nameOf(other)));
    this.at = at;
    set(this.element, "hidden", releases.length === 0);
    this.table.update(this.shown.map((release) => ({ key: nameOf(release), cells: this.cells(release) })));
    this.open();
  }

  private cells(release: Release): Cell[] {
    const { spec, status } = release;
    const name = nameOf(release);
    const run = status?.run;
    const goes = run !== undefined && UNDER_WAY.includes(status?.phase ?? "");
    const errors = status?.checks?.find((check) => check.name.startsWith("errorRate"));
    const end = endOfStep(release);
    return [
      { text: name, press: () => this.toggle(name) },
      { text: status?.phase ?? "", ...(status?.phase === "RolledBack" ? { tone: "bad" as const } : {}) },
      { text: goes && run.step > 0 ? `${run.step}/${(spec.steps ?? STEPS).length}` : "", by: run?.step ?? 0 },
      goes ? { text: `${run.weight} % (cap ${cap(release)} %)`, by: run.weight, bar: Math.min(run.weight, cap(release)) / 100 } : { text: "", by: -1 },
      { text: errors ? `${share(errors.stable)} / ${share(errors.candidate)}` : "" },
      evidence(errors?.evidence),
      { text: end === undefined || end <= this.at ? (status?.summary ?? "") : until(new Date(end).toISOString(), this.at) },
    ];
  }

  private toggle(name: string): void {
    if (!this.opened.delete(name)) this.opened.add(name);
    this.open();
  }

  private open(): void {
    const open = this.shown.filter((release) => this.opened.has(nameOf(release)));
    for (const key of this.details.keys()) if (!open.some((release) => nameOf(release) === key)) this.details.delete(key);
    this.below.replaceChildren(
      ...open.map((release) => {
        const details = this.details.get(nameOf(release)) ?? new ReleaseDetails();
        this.details.set(nameOf(release), details);
        details.update(release);
        return details.element;
      }),
    );
  }
}

class ReleaseDetails {
  private readonly name = h("h2");
  private readonly summary = h("p");
  private readonly steps = new Table("Steps", ["Step", "Calls", "Copies", "At least", "Pause"], "");
  private readonly checks = new Table("Checks of this step", ["Check", "Stable", "Candidate", "Evidence", "Verdict"], "Nothing is checked now.");
  private readonly runs = new Table("Last runs", ["Run", "Revision", "Result", "Reason", "By", "Ended", "Bad calls"], "There was no run.");
  readonly element = h("section", { class: "split" }, this.name, this.summary, this.steps.element, this.checks.element, this.runs.element);

  update({ metadata, spec, status }: Release): void {
    write(this.name, nameOf({ metadata }));
    const refused = (status?.conditions ?? []).filter(({ type, status: is }) => is === "False" && ["Accepted", "ResolvedRefs"].includes(type));
    write(this.summary, [status?.summary ?? "", ...refused.map(({ type, message }) => `${type}: ${message}`)].filter((text) => text !== "").join("; "));
    const steps: NonNullable<Release["spec"]["steps"]> = spec.steps ?? STEPS;
    this.steps.update(
      steps.map((step, at) => ({
        key: String(at),
        cells: [
          { text: `${at + 1}${status?.run?.step === at + 1 ? " (now)" : ""}`, by: at },
          { text: step.weight === undefined ? "" : `${step.weight} %${step.matches?.length ? ` of ${step.matches.map(({ name }) => name).join(", ")}` : ""}` },
          { text: step.mirror === undefined ? "" : `${step.mirror} %` },
          { text: step.duration ?? "1m" },
          { text: step.pause ? "until resume" : "" },
        ],
      })),
    );
    this.checks.update(
      (status?.checks ?? []).map((check) => ({
        key: check.name,
        cells: [{ text: check.name }, { text: `${counted(check.stable)} ${check.stable ? share(check.stable) : ""}` }, { text: `${counted(check.candidate)} ${check.candidate ? share(check.candidate) : ""}` }, evidence(check.evidence), verdict(check.verdict)],
      })),
    );
    this.runs.update(
      (status?.history ?? []).map((run) => ({
        key: String(run.number),
        cells: [
          { text: String(run.number), by: run.number },
          { text: run.revision },
          { text: run.result, ...(run.result === "RolledBack" ? { tone: "bad" as const } : {}) },
          { text: run.reason ?? "" },
          { text: run.by ?? "" },
          { text: run.endedAt ? clock(Date.parse(run.endedAt)) : "" },
          { text: counted({ requests: run.requests ?? 0, bad: run.bad ?? 0 }) },
        ],
      })),
    );
  }
}

/** The experiments. */
export class Experiments {
  private readonly table = new Table(
    "FaultExperiments",
    ["Experiment", "Phase", "Target", "Share", "Harmed", "Checks", "Ends in", "Last verdict"],
    "",
  );
  readonly element = this.table.element;

  update(experiments: Experiment[], at: number): void {
    const sorted = [...experiments].sort((one, other) => compare(nameOf(one), nameOf(other)));
    set(this.element, "hidden", experiments.length === 0);
    this.table.update(
      sorted.map((experiment) => {
        const { spec, status } = experiment;
        const target = spec.targetRef?.port ? `${spec.targetRef.name}:${spec.targetRef.port}` : spec.targetRef?.name;
        const running = status?.phase === "Running";
        return {
          key: nameOf(experiment),
          cells: [
            { text: nameOf(experiment) },
            { text: status?.phase ?? "" },
            { text: status?.target ?? target ?? "" },
            { text: spec.share ?? "" },
            { text: status?.calls ? `${status.calls.harmed ?? 0} of ${status.calls.total ?? 0}` : "", by: status?.calls?.harmed ?? 0 },
            { text: (status?.checks ?? []).map(({ name, verdict }) => `${name} ${verdict ?? ""}`.trim()).join("; ") },
            { text: running && status?.run?.endsAt ? until(status.run.endsAt, at) : "" },
            { text: status?.verdict ?? "", ...(status?.verdict === "Harmful" ? { tone: "bad" as const } : {}) },
          ],
        };
      }),
    );
  }
}
