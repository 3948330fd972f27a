"""evidence/attacks.md: what was tried, what became of it, and what is complained of."""

import time

from . import first_bytes
from .main import commit, program

HEAD = """# Hostile neighbours

Written by `make attack`; do not edit. Three meshes in network namespaces: one that enforces rules, one as installed, and
one that requires mutual TLS and has no rules. Each has a neighbour without a proxy, a member whose traffic comes in
tunnels, and members that hold certificates of the mesh and have no proxy that would keep to its rules. `past` counts
requests that no rule admits, or that come without a certificate where one is required, and that reached the
application; `forged` those that reached it with a `weft-client-id` of the sender's choice.
"""
CLASSES = """## First bytes

Ways: by the caller's proxy, directly without a proxy, in a tunnel. Sent to an undeclared guarded port, a guarded
one declared as HTTP/1.1, and one with a TCPRoute only.

| class | sent | past: proxy, direct, tunnel | forged: proxy, direct, tunnel |
|---|---|---|---|"""
FLOODS = """## Floods

From the neighbour without a proxy, by the client itself through its proxy, or by members with a certificate and no
proxy, while the client makes 40 calls a second and a probe comes each second. A flood at what is alike in all meshes (the
mesh port, the admin port, the client's own pair of proxies) is sent in one of them in each round. Of a member's flood the
server's proxy must have accepted as many connections as it reports to have held, and it must have been answered as such a
member is; of slowhttptest's it must have accepted nearly all. What was not seen was no attack, and is a complaint.
Floods of HTTP/2 frames (`pings`, `settings`, `updates`, `priorities`, `empty` DATA, `control` for all of them, and `resets`,
requests that are taken back at once) begin behind an answered request and send up to 100 000 frames a second. Beside them
and beside slowhttptest 99 of 100 honest calls must take no more than 100 ms. A probe must be answered within 3 s, and
beside a flood of the admin port within 1 s; its metrics are scraped each second then, and must come whole within 1 s.
Of connections that hold a place there the proxy must have closed half as many as the flood has at once.

| mesh | flood | honest calls | failed | p50 ms | p99 ms | probes missed | the flood says |
|---|---|---|---|---|---|---|---|"""


def write(attacks, rounds, took, memory_mib, options, older, wrong):
    """The page, and all complaints: `wrong` and those that its counts are."""
    books = [attack.bytes for attack in attacks]
    past, forged = first_bytes.total(books, "past"), first_bytes.total(books, "forged")
    restarts = sum(attack.restarts for attack in attacks)
    honest = [one for attack in attacks for _, one, *_ in attack.floods]
    calls, failed = (sum(one[what] for one in honest) for what in ("calls", "failed"))
    memory, too_much = memory_of(attacks, memory_mib)
    wrong = [*wrong, *(said for attack in attacks for said in attack.wrong), *too_much]
    if past:
        wrong.append(f"{past} times something passed a rule or came without a certificate")
    if forged:
        wrong.append(f"{forged} times a forged identity reached the application")
    lines = [HEAD, f"{time.strftime('%Y-%m-%d')}, weft-proxy {commit(options.proxy)}, {rounds} rounds in {took / 60:.0f} min: {past} past a rule, {forged} forged, "
             f"{restarts} restarts of a proxy, {failed} of {calls} honest calls failed, {len(wrong)} complaints.", *trial(options), "", CLASSES]
    names = dict.fromkeys(name for book in books for name, _ in book.sent)
    lines += [f"| {name} | {' | '.join(first_bytes.row(name, books))} |" for name in names]
    lines += ["", *of_older(older, options), "", FLOODS]
    for attack in attacks:
        for name, one, probes, missed, said in attack.floods:
            lines.append(f"| {attack.mesh.name} | {name} | {one['calls']} | {one['failed']} | {one['p50_ms']} | {one['p99_ms']} | {missed} of {probes} | {said} |")
    lines += ["", "## Memory", "", f"A proxy may take {memory_mib} MiB.", "", *memory]
    lines += ["", "## Complaints", "", *([f"- {said}" for said in wrong] or ["None."])]
    return "\n".join(lines) + "\n", wrong


def trial(options):
    return ["", f"A trial: each flood lasted {options.flood_seconds:g} s, in one of the meshes."] if options.trial else []


def of_older(books, options):
    """The classes that an older proxy lets through: holes that this run can see."""
    lines = ["## The same against an older proxy", ""]
    if not books:
        return [*lines, "Not tried in this run: `make attack PREVIOUS=weft-proxy` sends every class through an older program as well."]
    built_of = f"of {options.previous_commit}, " if options.previous_commit else ""
    past, forged = first_bytes.total(books, "past"), first_bytes.total(books, "forged")
    found = first_bytes.holes(books)
    if all(found.values()):
        shows = "Every kind of hole that the classes look for is open in it, so a 0 above is of what this run sees."
    else:
        shows = "Not every kind of hole was seen in it, so a 0 above may be of what this run does not see: a complaint."
    lines += [f"weft-proxy {built_of}program {program(options.previous)}, once in each mesh, with the classes and the judgement of above: {past} past a rule,",
              f"{forged} forged. {shows}", "",
              "| what the classes look for | seen |", "|---|---|",
              *[f"| {hole} | {times} |" for hole, times in found.items()], "",
              "These classes it let through; of every other class nothing passed.", "",
              "| class | sent | past: proxy, direct, tunnel | forged: proxy, direct, tunnel |", "|---|---|---|---|"]
    for name in dict.fromkeys(name for book in books for name, _ in book.sent):
        if any(name == one for book in books for one, *_ in [*book.past, *book.forged]):
            lines.append(f"| {name} | {' | '.join(first_bytes.row(name, books))} |")
    return lines


def memory_of(attacks, most_mib):
    """The table, and what of it is too much."""
    lines, too_much = ["| mesh | proxy of | most, MiB |", "|---|---|---|"], []
    for attack in attacks:
        for pod, most in attack.most.items():
            lines.append(f"| {attack.mesh.name} | {pod} | {most:.0f} |")
            if most > most_mib:
                too_much.append(f"{attack.mesh.name}: the proxy of {pod} took {most:.0f} MiB, more than {most_mib}")
    return lines, too_much
