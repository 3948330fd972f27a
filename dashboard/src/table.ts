// A table that is kept up to date in place, so that the keyboard, the eye and the screen
// reader stay where they are. Its heads sort it.

import { h, order, s, set, write } from "./dom";
import { compare } from "./model";

export interface Cell {
  text: string;
  /** What it is sorted by, where that is not the text. */
  by?: number;
  tone?: "good" | "warn" | "bad";
  /** What a button in it does. */
  press?: () => void;
  /** A share from 0 to 1, drawn as a bar beside the text. */
  bar?: number;
  /** Drawn as a small line beside the text; `to` is its upper end, `from` its lower one. */
  line?: { values: (number | null)[]; from: number; to: number };
}

export interface Row {
  key: string;
  cells: Cell[];
}

interface RowElements { row: HTMLTableRowElement; cells: HTMLTableCellElement[] }

export class Table {
  readonly element: HTMLElement;
  private readonly body = h("tbody", { role: "rowgroup" });
  private readonly columns: string[];
  private readonly heads: HTMLTableCellElement[];
  private readonly empty = h("p", { class: "empty" });
  private readonly held = new Map<string, RowElements>();
  private rows: Row[] = [];
  private sorted: { column: number; down: boolean } | undefined;

  constructor(caption: string, columns: string[], private readonly none: string) {
    this.heads = columns.map((name, at) =>
      h("th", { scope: "col", role: "columnheader" }, h("button", { type: "button", click: () => this.sort(at) }, name)),
    );
    this.columns = columns;
    // Roles by name: a narrow window shows rows as blocks, and tables of blocks are none by themselves.
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...this.heads));
    const table = h("table", { role: "table" }, h("caption", {}, caption), head, this.body);
    this.element = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": caption }, table, this.empty);
  }

  update(rows: Row[]): void {
    this.rows = rows;
    const wanted = new Set(rows.map((row) => row.key));
    for (const key of this.held.keys()) if (!wanted.has(key)) this.held.delete(key);
    for (const row of rows) {
      let held = this.held.get(row.key);
      if (!held) {
        const cells = row.cells.map((_, at) => (at === 0 ? h("th", { scope: "row", role: "rowheader" }) : h("td", { role: "cell", "data-column": this.columns[at] })));
        held = { row: h("tr", { role: "row" }, ...cells), cells };
        this.held.set(row.key, held);
      }
      row.cells.forEach((cell, at) => fill(held.cells[at] as HTMLTableCellElement, cell));
    }
    write(this.empty, rows.length === 0 ? this.none : "");
    this.arrange();
  }

  private sort(column: number): void {
    this.sorted = { column, down: this.sorted?.column === column && !this.sorted.down };
    this.heads.forEach((head, at) =>
      set(head, "aria-sort", at === column ? (this.sorted?.down ? "descending" : "ascending") : undefined),
    );
    this.arrange();
  }

  private arrange(): void {
    const rows = [...this.rows];
    const sorted = this.sorted;
    if (sorted) {
      const by = (row: Row): Cell => row.cells[sorted.column] ?? { text: "" };
      rows.sort((one, other) => {
        const [a, b] = [by(one), by(other)];
        const both = a.by !== undefined && b.by !== undefined;
        return (sorted.down ? -1 : 1) * (both ? (a.by as number) - (b.by as number) : compare(a.text, b.text));
      });
    }
    order(this.body, rows.map((row) => (this.held.get(row.key) as RowElements).row));
  }
}

/** A text of so many letters is not broken into lines. */
const BRIEF = 24;
const LINE = { width: 96, height: 22 };

/** Texts that are pressed: what they do now, since a row lives longer than an answer. */
const pressed = new WeakMap<HTMLButtonElement, () => void>();

function fill(element: HTMLTableCellElement, cell: Cell): void {
  const brief = cell.text.length <= BRIEF;
  set(element, "class", [cell.tone, brief ? "brief" : "long"].filter(Boolean).join(" "));
  if (cell.press) {
    let button = element.querySelector("button");
    if (!button) {
      const made = h("button", { type: "button", click: () => pressed.get(made)?.() });
      element.replaceChildren(made);
      button = made;
    }
    pressed.set(button, cell.press);
    write(button, cell.text);
  } else if (cell.bar !== undefined) {
    let [bar, words] = [element.querySelector("meter"), element.querySelector("span")];
    if (!bar || !words) {
      [bar, words] = [h("meter", { min: 0, max: 1, "aria-hidden": "true" }), h("span")];
      element.replaceChildren(bar, words);
    }
    bar.value = cell.bar;
    write(words, cell.text);
  } else if (cell.line) {
    let [drawn, words] = [element.querySelector("polyline"), element.querySelector("span")];
    if (!drawn || !words) {
      [drawn, words] = [s("polyline"), h("span")];
      const { width, height } = LINE;
      element.replaceChildren(words, s("svg", { class: "line", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" }, s("path", { d: `M0 ${height - 0.5}H${width}` }), drawn));
    }
    write(words, cell.text);
    set(drawn, "points", points(cell.line));
  } else write(element, cell.text);
}

/** Unknown values are skipped, and the line goes on over them. */
function points({ values, from, to }: NonNullable<Cell["line"]>): string {
  const [across, up] = [LINE.width / Math.max(1, values.length - 1), (LINE.height - 3) / (to - from || 1)];
  return values
    .map((value, at) => (value === null ? "" : `${(at * across).toFixed(1)},${(LINE.height - 1.5 - (Math.min(to, Math.max(from, value)) - from) * up).toFixed(1)}`))
    .filter((point) => point !== "")
    .join(" ");
}
