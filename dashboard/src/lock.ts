// The sign for mutual TLS: a lock that is closed, or open where not all calls have it.

import { s } from "./dom";

const BODY = "M-5-1H5V6H-5z";
/** Of 10 by 15, around a point below its middle. */
export const LOCKS = {
  closed: `M-4-1V-4a4 4 0 0 1 8 0V-1H2.4V-4a2.4 2.4 0 0 0-4.8 0V-1z${BODY}`,
  open: `M-4-1V-5a4 4 0 0 1 8 0V-3.6H2.4V-5a2.4 2.4 0 0 0-4.8 0V-1z${BODY}`,
} as const;

export type Lock = keyof typeof LOCKS;

/** Of the lowest share of mutual TLS; none where it is unknown. */
export function lockOf(mtls: number | undefined): Lock | undefined {
  return mtls === undefined ? undefined : mtls === 1 ? "closed" : "open";
}

/** It as a letter of a text. */
export function lockSign(lock: Lock): SVGSVGElement {
  return s("svg", { class: "sign", viewBox: "-7 -11 14 19", width: 11, height: 15, "aria-hidden": "true" }, s("path", { class: `lock ${lock}`, d: LOCKS[lock] }));
}
