// Parts of forms that more than one page has.

import { h } from "./dom";
import { compare } from "./model";

export const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** An input below its name. */
export function field(id: string, text: string, input: HTMLElement): HTMLElement {
  return h("div", { class: "field" }, h("label", { for: id }, text), input);
}

/** Ends to choose from. The page holds their numbers only, never their names as values. */
export class Choice {
  readonly element: HTMLSelectElement;
  private ends: string[] = [];
  private shown = "";

  constructor(id: string) {
    this.element = h("select", { id });
  }

  get chosen(): string {
    return this.ends[this.element.selectedIndex] ?? "{}";
  }

  update(known: Map<string, string>, chosen: string): void {
    const sorted = [...known].sort(([, one], [, other]) => compare(one, other));
    const shown = sorted.flat().join("\n");
    if (this.shown !== shown) {
      this.shown = shown;
      this.ends = sorted.map(([end]) => end);
      this.element.replaceChildren(...sorted.map(([, text], at) => h("option", { value: at }, text)));
    }
    this.element.selectedIndex = Math.max(0, this.ends.indexOf(chosen));
  }
}
