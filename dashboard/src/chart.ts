// A chart over half an hour with axes, drawn by uPlot. Its colours are those of the page, by day
// and by night; its words say the same to a screen reader.

import uPlot from "uplot";
import { h, set, write } from "./dom";
import { clock } from "./text";
import type { Values } from "./series";

const HEIGHT = 150;
/** Names of colours, and dashes, that distinguish several lines also without colour. */
const LINES: { colour: string; dash: number[] }[] = [
  { colour: "--link", dash: [] },
  { colour: "--warn", dash: [8, 4] },
  { colour: "--good", dash: [2, 3] },
  { colour: "--bad", dash: [10, 3, 2, 3] },
];
const NIGHT = window.matchMedia("(prefers-color-scheme: dark)");

export interface Line {
  name: string;
  values: Values;
  /** Failures are drawn in their own colour. */
  bad?: boolean;
}

interface Options {
  title: string;
  /** Class of the figure. */
  name?: string;
  /** A value as the axis and the reader see it. */
  text: (value: number) => string;
  /** Ends of the axis; from 0 to the highest value where it is absent. */
  range?: (least: number, most: number) => [number, number];
}

export class Chart {
  readonly element: HTMLElement;
  private readonly ground = h("div", { class: "plot", "aria-hidden": "true" });
  private readonly read = h("span", { class: "read", "aria-hidden": "true" });
  private readonly legend = h("ul", { class: "lines", "aria-hidden": "true" });
  private plot: uPlot | undefined;
  private drawn = "";
  private lines: Line[] = [];
  private minutes: number[] = [];

  constructor(private readonly options: Options) {
    const head = h("div", { class: "chart-head", "aria-hidden": "true" }, h("b", {}, options.title), this.read);
    this.element = h("div", { class: `chart ${options.name ?? ""}`.trim(), role: "img", "aria-label": options.title }, head, this.ground, this.legend);
    new ResizeObserver(() => this.draw()).observe(this.ground);
    NIGHT.addEventListener("change", () => this.plot?.redraw());
  }

  /** `description`: the same in words. */
  update(minutes: number[], lines: Line[], description: string): void {
    [this.minutes, this.lines] = [minutes, lines];
    set(this.element, "aria-label", `${this.options.title}: ${description}`);
    this.draw();
  }

  private draw(): void {
    const width = this.ground.clientWidth;
    if (width === 0 || this.minutes.length === 0) return;
    const names = this.lines.map(({ name }) => name).join("\n");
    if (this.plot && this.drawn !== names) {
      this.plot.destroy();
      this.plot = undefined;
    }
    const data: uPlot.AlignedData = [this.minutes, ...this.lines.map(({ values }) => values)];
    if (this.plot) {
      if (this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
      this.plot.setData(data);
      return;
    }
    this.drawn = names;
    this.legend.replaceChildren(...(this.lines.length > 1 ? this.lines.map(({ name, bad }, at) => h("li", { class: bad ? "line-bad" : `line-${at % LINES.length}` }, name)) : []));
    this.plot = new uPlot(this.made(width), data, this.ground);
  }

  private made(width: number): uPlot.Options {
    const { text, range } = this.options;
    const axis = { stroke: () => this.colour("--faint"), grid: { stroke: () => this.colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, DejaVu Sans, sans-serif" };
    return {
      width,
      height: HEIGHT,
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false, setScale: false }, y: false, points: { show: false } },
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)] },
      scales: { x: { time: true }, y: { range: (_, least, most) => (range ?? fromNothing)(least ?? 0, most ?? 0) } },
      axes: [
        { ...axis, size: 24, space: 60, values: (_, splits) => splits.map((at) => clock(at * 1000).slice(0, 5)) },
        { ...axis, size: 58, space: 34, values: (_, splits) => splits.map(text) },
      ],
      series: [{}, ...this.lines.map(({ bad }, at): uPlot.Series => {
        const { colour, dash } = bad ? { colour: "--bad", dash: [] } : (LINES[at % LINES.length] as (typeof LINES)[number]);
        return { stroke: () => this.colour(colour), dash, width: 1.5, points: { show: false }, spanGaps: false };
      })],
    };
  }

  /** The values of the minute below the pointer. */
  private point(at: number | null | undefined): void {
    const minute = at === null || at === undefined ? undefined : this.minutes[at];
    if (at === null || at === undefined || minute === undefined) {
      write(this.read, "");
      return;
    }
    const several = this.lines.length > 1;
    const values = this.lines.map(({ name, values }) => {
      const value = values[at];
      return `${several ? `${name} ` : ""}${value === null || value === undefined ? "none" : this.options.text(value)}`;
    });
    write(this.read, `${clock(minute * 1000).slice(0, 5)} ${values.join(", ")}`);
  }

  private colour(name: string): string {
    return getComputedStyle(this.element).getPropertyValue(name).trim();
  }
}

function fromNothing(_: number, most: number): [number, number] {
  return [0, most > 0 ? most * 1.1 : 1];
}

/** Of a share of success: all of it at the top, and near below it what was missing. */
export function upToAll(least: number): [number, number] {
  return [least < 0.5 ? 0 : least < 0.9 ? 0.5 : least < 0.99 ? 0.9 : 0.99, 1];
}
