"""Writes evidence/interop.md."""

import os
import platform
import re
import subprocess
import time

from .differences import BY_DEFAULT, NAMED

# Reasons that do not change from machine to machine.
NEVER_TRIED = [
    "grpc-go's interop cases `compute_engine_creds`, `compute_engine_channel_credentials`, `service_account_creds`, `jwt_token_creds`, "
    "`per_rpc_creds`, `oauth2_auth_token`, `google_default_credentials`, and its programs for ALTS, grpclb and xDS: they need credentials or "
    "services of a cloud.",
    "grpc-go's interop case `pick_first_unary`: it asks servers for an id of theirs, which grpc-go's own server does not have; it fails "
    "without the mesh too.",
    "grpc-java's own interop programs, `grpc-interop-testing`: Maven could not fetch them. grpc-java over Netty is tried by a program "
    "of the harness.",
    "MongoDB: Debian has no package of it. NATS stands in its place.",
    "Libraries for Redis, PostgreSQL and MariaDB other than those in C, which their command-line clients use.",
    "NATS and Memcached by clients of their own: both are spoken to by hand, on sockets.",
    "slowhttptest: it is a hostile client, and runs in `make attack`.",
]


def write(results, rows, missing, proxy, seconds, more=()):
    through = [one for one in results if one.place != "direct"]
    lines = [
        "# Clients and servers that we did not write",
        "",
        "Written by `make interop`; do not edit. Every client talks to every server of its row three times in network",
        "namespaces: directly, through two proxies with mutual TLS and real redirection to a port that its Service declares,",
        "and the same on an undeclared port. What the clients print (bytes, their order, how it ended, errors) must",
        "be the same, apart from the differences that this page names. Any other fails the run.",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Linux {platform.release()}, {proxy}. "
        f"{len(through)} trials through the mesh in {seconds / 60:.1f} min, {len([one for one in through if one.difference])} with a difference that is not named below.",
        "",
        "| server | client | declared | undeclared |",
        "|---|---|---|---|",
    ]
    for row in rows:
        shown = version(row)
        for client in row.clients:
            states = [state(one) for name in ("declared", "undeclared") for one in through
                      if one.row is row and one.client is client and one.place == name]
            if states:
                lines.append(f"| {row.name}{shown} | {client.name} | {' | '.join(states)} |")
                shown = ""
    lines += [*loads(results, rows), *more]
    lines += ["", "## Differences", ""]
    lines += ["| name | difference | why | seen by |", "|---|---|---|---|"]
    for name, difference in NAMED.items():
        seen = sorted({f"{one.row.name}" for one in through if name in one.named})
        lines.append(f"| {name} | {difference.says} | {difference.reason} | {', '.join(seen) or 'no client in this run'} |")
    lines += ["", "What is done without any policy ([resilience](../docs/resilience.md#without-any-policy)), and no transcript shows:", ""]
    lines += ["| difference | why |", "|---|---|", *[f"| {one.says} | {one.reason} |" for one in BY_DEFAULT]]
    lines += ["", "## Programs", "", *programs(), "", "## Not tried", ""]
    lines += [f"- {one}" for one in [*missing, *NEVER_TRIED]]
    return "\n".join(lines) + "\n"


def loads(results, rows):
    """The clients that count their calls, with what they counted in each place."""
    lines = ["", "## Loads", "", "Calls that each client made in a place, and how many of them failed.", "",
             "| server | client | directly | declared | undeclared |", "|---|---|---|---|---|"]
    for row in rows:
        for client in row.clients:
            counts = {one.place: counted(one.transcript) for one in results if one.row is row and one.client is client}
            if any(counts.values()):
                cells = [counts.get(name) or "not counted" for name in ("direct", "declared", "undeclared")]
                lines.append(f"| {row.name} | {client.name} | {' | '.join(cells)} |")
    return lines


def counted(transcript):
    """By our own loads' line, or by h2load's, whose calls are all that it was to make."""
    if own := re.search(r"^calls (\d+) failed (\d+)$", transcript, re.M):
        calls, failed = map(int, own.groups())
    elif h2load := re.search(r"^requests: (\d+) total, .* (\d+) succeeded", transcript, re.M):
        calls, failed = int(h2load[1]), int(h2load[1]) - int(h2load[2])
    else:
        return None
    return f"{spaced(calls)}, {spaced(failed)} failed"


def spaced(number):
    return f"{number:,}".replace(",", " ")


def state(one):
    if one.difference:
        return "**differs**"
    return f"same but for {', '.join(one.named)}" if one.named else "same"


def version(row):
    return f" {number(row.version)}" if row.version else ""


def number(line):
    try:
        done = subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    found = re.search(r"\d+\.\d+(?:\.\d+)*", done.stdout + done.stderr)
    return found[0] if found else ""


def programs():
    """Versions of what several rows use."""
    each = {
        "curl": ["curl", "--version"], "Node": ["node", "--version"], "Go": ["go", "version"], "Python": ["python3", "--version"],
        "Java": ["java", "-version"], "nghttp2": ["h2load", "--version"], "redis-cli": ["redis-cli", "--version"],
        "psql": ["psql", "--version"], "OpenSSH": ["ssh", "-V"], "HAProxy": ["haproxy", "-v"], "Apache": ["apache2", "-v"],
    }
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    lines = [", ".join(f"{name} {number(line)}" for name, line in each.items() if number(line)) + "."]
    with open(f"{here}/python/requirements.txt", encoding="ascii") as pins:
        lines.append("Python packages: " + ", ".join(pin.strip().replace("==", " ") for pin in pins) + ".")
    with open(f"{here}/go/go.mod", encoding="ascii") as pins:
        go = re.search(r"google.golang.org/grpc v(\S+)", pins.read())[1]
    with open(f"{here}/java/pom.xml", encoding="ascii") as pins:
        java = re.search(r"<artifactId>grpc-netty</artifactId>\s*<version>([^<]+)", pins.read())[1]
    lines.append(f"grpc-go {go}, grpc-java {java}.")
    return lines
