// Text of the cluster, and numbers, for people.

/** A character that acts upon what shows it: those that control, turn the direction of writing, take no place, or are none; the same ones as `weft` has. */
const ACTS =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe-\uffff\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

/** The text with such characters written as escapes, as `weft` prints them. */
export function plain(text: string): string {
  return text.replace(ACTS, (letter) => `\\u{${letter.codePointAt(0)?.toString(16) ?? ""}}`);
}

/** A share from 0 to 1; never 100 % for less than all, nor 0 % for more than nothing. */
export function percent(share: number): string {
  const digits = share > 0 && share < 1 ? Math.min(99.99, Math.max(0.01, share * 100)).toFixed(2) : (share * 100).toFixed(0);
  return `${digits} %`;
}

/** A share of success as a part of a line; no part where it is unknown. */
export function succeeding(share: number | undefined, word = ""): string[] {
  return share === undefined ? [] : [percent(share) + word];
}

export function rate(count: number, seconds: number): string {
  const each = seconds > 0 ? count / seconds : 0;
  return each === 0 ? "0" : each < 10 ? each.toFixed(2) : each.toFixed(each < 100 ? 1 : 0);
}

export function milliseconds(ms: number | undefined): string {
  if (ms === undefined) return "";
  return ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

export function bytes(count: number | undefined): string {
  return count === undefined ? "" : `${(count / (1 << 20)).toFixed(1)} Mi`;
}

/** How long until a time of the cluster. */
export function until(time: string, now: number): string {
  const seconds = (Date.parse(time) - now) / 1000;
  if (Number.isNaN(seconds)) return "";
  return seconds <= 0 ? "ended" : length(seconds);
}

/** How long a time of the cluster is past. */
export function ago(time: string, now: number): string {
  const seconds = (now - Date.parse(time)) / 1000;
  return Number.isNaN(seconds) ? "" : `${length(Math.max(0, seconds))} ago`;
}

function length(seconds: number): string {
  const [size, unit] = seconds < 120 ? [1, "s"] : seconds < 7200 ? [60, "min"] : seconds < 172800 ? [3600, "h"] : [86400, "d"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/** The time of day here, of a moment of the cluster. */
export function clock(moment: number): string {
  return new Date(moment).toTimeString().slice(0, 8);
}

/** A word of a shell's command line. */
export function quoted(word: string): string {
  const text = plain(word);
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}
