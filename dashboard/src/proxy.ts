// What a proxy's status means: by the same limits as `weft check`.

import type { Proxy } from "./api";

/** A proxy renews when 40 to 30 % of its certificate's life are left; it is late with less than one part of so many. */
const PARTS = 5;
/** The same where its lifetime is unknown, which is 24 h unless the chart sets another. */
const SOON = 600_000;
/** Seconds for which a proxy may lack what is on its way: each change of an object is. */
const ON_ITS_WAY = 60;

type Status = Proxy["status"];

/** Whether its certificate has missed its renewal. */
export function late({ certificate }: Status, now: number): boolean {
  if (!certificate) return false;
  const ends = Date.parse(certificate.notAfter);
  const life = certificate.issued === undefined ? NaN : ends - Date.parse(certificate.issued);
  // An older proxy does not report it; its controller reports what it issues, which may be minutes.
  return ends - now < (Number.isNaN(life) ? Math.min(SOON, ((certificate.ttlSeconds ?? Infinity) * 1000) / PARTS) : life / PARTS);
}

/** Whether it lacks something that concerns it, which may be on its way. */
export function lacks({ connected, acknowledged, needed }: Status): boolean {
  return connected && acknowledged < needed;
}

/** The same for too long; of one whose controller does not say for how long, too. */
export function behind(status: Status): boolean {
  return lacks(status) && (status.behindSeconds ?? Infinity) > ON_ITS_WAY;
}
