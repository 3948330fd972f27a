// A table that is kept up to date in place, so that the keyboard, the eye and the screen
// reader stay where they are. Its heads sort it.

import { h, order, set, write } from "./dom";
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
}

export interface Row {
  key: string;
  cells: Cell[];
}

interface RowElements { row: HTMLTableRowElement; cells: HTMLTableCellElement[] }

export class Table {
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private readonly heads: HTMLTableCellElement[];
  private readonly empty = h("p", { class: "empty" });
  private readonly held = new Map<string, RowElements>();
  private rows: Row[] = [];
  private sorted: { column: number; down: boolean } | undefined;

  constructor(caption: string, columns: string[], private readonly none: string) {
    this.heads = columns.map((name, at) =>
      h("th", { scope: "col" }, h("button", { type: "button", click: () => this.sort(at) }, name)),
    );
    const table = h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...this.heads)), this.body);
    this.element = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": caption }, table, this.empty);
  }

  update(rows: Row[]): void {
    this.rows = rows;
    const wanted = new Set(rows.map((row) => row.key));
    for (const key of this.held.keys()) if (!wanted.has(key)) this.held.delete(key);
    for (const row of rows) {
      let held = this.held.get(row.key);
      if (!held) {
        const cells = row.cells.map((_, at) => (at === 0 ? h("th", { scope: "row" }) : h("td")));
        held = { row: h("tr", {}, ...cells), cells };
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

/** Texts that are pressed: what they do now, since a row lives longer than an answer. */
const pressed = new WeakMap<HTMLButtonElement, () => void>();

function fill(element: HTMLTableCellElement, cell: Cell): void {
  set(element, "class", cell.tone);
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
  } else write(element, cell.text);
}
