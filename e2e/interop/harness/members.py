"""Floods by members that hold certificates of the mesh and have no proxy that would keep to
its rules, and by strangers that speak HTTP/2 as no client does; and what must be seen of a
flood, or it was no attack.

Certificates come as those of proxies do: from the stand-in controller, for a name. Members
are let in by every rule; the one that is not admitted has an identity and nothing else.
"""

import json
import pathlib
import re

from . import place

HERE = pathlib.Path(__file__).resolve().parents[1]
POD = "member"
ADMITTED = [f"member-{number}" for number in range(8)]
OUTSIDER = "outsider"
CERTIFIED = {**{name: {} for name in ADMITTED}, OUTSIDER: {"admitted": False}}
MESH_PORT = 15108
# kind, connections, names of the certificates' owners; without any it is the unauthenticated peer, at this port.
# A hundred tunnels or uploads go over each connection of these kinds, so that 1 000 stand open.
# The hoarders ask for more connections than a proxy of 64 MiB has permits, 2 048.
FLOODS = [
    ("mute", 1000, ADMITTED[:1], MESH_PORT), ("mute", 1000, [OUTSIDER], MESH_PORT), ("mute", 2000, ADMITTED, MESH_PORT), ("mute", 500, [], 9001),
    ("tunnels", 10, ADMITTED[:1], MESH_PORT), ("tunnels", 10, [OUTSIDER], MESH_PORT), ("hoard", 2100, ADMITTED, MESH_PORT),
    ("half", 500, ADMITTED[:1], MESH_PORT), ("half", 500, [], 9002), ("uploads", 10, ADMITTED[:1], MESH_PORT),
    ("forged", 10, ADMITTED[:1], MESH_PORT), ("forged", 10, [OUTSIDER], MESH_PORT), ("forged1", 10, ADMITTED[:1], MESH_PORT),
    # All kinds of control frames at once from peers that are not admitted or unauthenticated: they are read before the identity counts.
    ("pings", 10, ADMITTED[:1], MESH_PORT), ("settings", 10, ADMITTED[:1], MESH_PORT), ("updates", 10, ADMITTED[:1], MESH_PORT),
    ("priorities", 10, ADMITTED[:1], MESH_PORT), ("empty", 10, ADMITTED[:1], MESH_PORT),
    ("control", 1, ADMITTED[:1], MESH_PORT), ("control", 10, [OUTSIDER], MESH_PORT), ("control", 10, [], 9004),
    ("resets", 1, ADMITTED[:1], MESH_PORT), ("resets", 10, ADMITTED[:1], MESH_PORT), ("resets", 10, [OUTSIDER], MESH_PORT), ("resets", 10, [], 9004),
]
# Those beside which honest calls may take as long as beside slowhttptest: they cost their sender even less.
OF_FRAMES = {"pings", "settings", "updates", "priorities", "empty", "control", "resets"}
# Frames of them that each connection must have sent: some batches, or it ended before it was read.
FRAMES = 1000
# Seconds after which a silent peer gets a PING.
PING_WITHIN = 12
# What proxies say to each other and no application ever reads.
BETWEEN_PROXIES = re.compile(r"(?im)^weft[^a-z0-9:\s](?:status|upgrade|target|port|protocol|unsent|proof)\s*:")
# Of the connections that were held at most, how many the proxy must have accepted: the last ones may be on their way.
ACCEPTED = 0.9


def own(flood, mesh):
    """Whether its result depends on the mesh. All meshes read a member's bytes on the mesh port
    alike. Only forged identities are also sent where no rule keeps them from the application;
    to a peer with a certificate, a mesh that requires one is as open as one without rules."""
    kind, _, names, _ = flood
    return not names or kind.startswith("forged") and names != [OUTSIDER] and mesh.mtls == "permissive"


def let_in(mesh, names):
    """Whether a peer with these certificates may request what every rule allows members."""
    if not names:
        return mesh.lets_strangers_in()
    return not mesh.has_rules() or names != [OUTSIDER]


def certify(where, python):
    line = [python, HERE / "python/certify.py", f"{where.control[POD]}:8443", where.folder, *CERTIFIED]
    status, out, err = where.call(POD, line, 60)
    if status != 0:
        raise place.Failed(f"no certificates for the members: {out}{err}")


def beside(attack, flood, seconds):
    """One of FLOODS while the client of `attack` calls on."""
    kind, count, names, port = flood
    where = attack.where
    pod = POD if names else "stranger"
    by = {0: "", 1: " by a member"}.get(len(names), f" by {len(names)} members") + (" that no rule admits" if names == [OUTSIDER] else "")
    name = f"{count} x {kind} at {port}{by}"
    script = [attack.python, HERE / "python/members.py", kind, f"{place.SERVER_IP}:{port}", count, seconds,
              *[where.folder / f"{one}.pem" for one in names]]
    logs = {log: log.stat().st_size if log.exists() else 0 for log in (attack.log, attack.flooded)}
    before = accepted(where, names)

    def described(said):
        if len(said) < 2:
            attack.complain(f"{name} said nothing of itself")
            return ""
        counts = json.loads(said[-2])
        counts["accepted"] = accepted(where, names) - before
        came = {log: read(log, size) for log, size in logs.items()}
        counts["stuck"] = sum("POST /stuck" in text for text in came[attack.flooded])
        passed = judge_what_came(attack, name, came[attack.log]) if kind.startswith("forged") else ""
        for lacks in unseen(flood, let_in(attack.mesh, names), counts, seconds):
            attack.complain(f"{name}: {lacks}")
        uploads = f"; {counts['stuck']} uploads reached the application" if kind == "uploads" else ""
        return f"{said[-1]}; the proxy accepted {counts['accepted']}{uploads}{passed}"

    one = attack.beside(name, script, seconds, pod, described)
    if one and kind in OF_FRAMES:
        attack.hold_to_p99(name, one)


def accepted(where, names):
    """Connections that the server's proxy has accepted, of meshed peers or of any."""
    wanted = ('direction="inbound"', f'security="{"mtls" if names else "plaintext"}"')
    lines = [line for line in where.metrics("server").splitlines() if line.startswith("weft_connections_total{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if all(one in line for one in wanted))


def read(log, start):
    if not log.exists():
        return []
    with open(log, encoding="utf-8") as lines:
        lines.seek(start)
        return [json.loads(line)["came"] for line in lines]


def judge_what_came(attack, name, came):
    """What of the lies reached the application, in words; what must not have is complained of."""
    past, forged, between = set(), set(), 0
    for text in came:
        past.update(re.findall(r"private-member-(\d+)\.", text))
        forged.update(re.findall(r"spiffe://forged/member-(\d+)\.", text))
        between += bool(BETWEEN_PROXIES.search(text))
    # Where everything is open, every path may be requested.
    if not attack.mesh.has_rules():
        past.clear()
    for wrong, what in ((past, "kinds of requests that no rule admits reached the application"), (forged, "kinds of forged identities reached the application"),
                        (range(between), "times a header that proxies say to each other reached the application")):
        if wrong:
            attack.complain(f"beside {name} {len(wrong)} {what}")
    return f"; {len(past)} past a rule, {len(forged)} forged, {between} with headers of proxies"


def unseen(flood, may, counts, seconds):
    """What should have been seen of a flood and was not. `may`: it is let in."""
    kind, count, names, _ = flood
    most, answers = counts.get("most", 0), counts["answers"]
    good, refused = answers.get("200", 0), answers.get("403", 0)
    lacks = []
    if most < min(count, 1000) / 2:
        lacks.append(f"only {most} connections were held")
    # An unauthenticated peer's unfinished head is no request yet, and no connection of HTTP.
    if counts["accepted"] < most * ACCEPTED and not (kind == "half" and not names):
        lacks.append(f"the proxy accepted {counts['accepted']} connections, and {most} were held")
    if kind == "half":
        if counts.get("frames", 0) < 2 * most:
            lacks.append("hardly a head went on")
    elif kind == "uploads":
        if counts.get("requests", 0) < count * 100 or not counts["stuck"]:
            lacks.append(f"{counts.get('requests', 0)} uploads began, and {counts['stuck']} reached the application")
    elif may and not good:
        lacks.append(f"what it may do was not done: {answers}")
    elif not may and (good or not refused):
        lacks.append(f"what it may not do was not refused: {answers}")
    if kind in OF_FRAMES and counts.get("frames", 0) < count * FRAMES:
        lacks.append(f"only {counts.get('frames', 0)} frames were sent")
    if kind == "mute" and names and seconds > PING_WITHIN and not counts.get("pings"):
        lacks.append("no PING came that it could have left without an answer")
    if kind.startswith("forged") and not sum(number for status, number in answers.items() if status != "200"):
        lacks.append("no lie was refused")
    return lacks
