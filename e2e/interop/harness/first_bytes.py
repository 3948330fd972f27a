"""First bytes of every class, by every way, to every kind of port: what of them reached an
application that they must not reach, in one mesh. The same goes to an older proxy where one
is given: holes that this saw there are holes that it would see.
"""

import concurrent.futures
import json
import pathlib
import re
import subprocess
import time

from . import place
from .meshes import MESHES

HERE = pathlib.Path(__file__).resolve().parents[1]
PORTS = {"guarded": 9001, "declared": 9002, "bytes": 9003}
RULES = [
    {"name": "both", "ports": [9001], "paths": ["/public"]},
    {"name": "declared", "paths": ["/public"], "ports": [9002]},
    {"name": "bytes", "ports": [9003]},
    {"name": "large", "ports": [9004], "paths": ["/.*"]},
]
DECLARED = {9002: "http1", 9004: "http1"}
WAYS = {"proxy": "client", "direct": "stranger", "tunnel": "tunneller"}
# Pods beside client and server, with what the stand-in says of them.
OTHERS = {"stranger": None, "tunneller": {"sees": "opaque"}}
# A request that every parser reads as HTTP: where everything is allowed it arrives.
PLAIN = "get"
SECONDS = 240
# What the classes are made to find. Which book has it, at which ports, and whether by an upgrade.
HOLES = {
    "layer 7 rules walked around on an undeclared port": ("past", ("guarded",), False),
    "an identity forged on an undeclared port": ("forged", ("guarded", "bytes"), False),
    "HTTP/2 smuggled by an upgrade": ("past", ("guarded", "declared"), True),
}


def classes(python):
    text = place.run(str(python), "-c", "import json, first_bytes as f; print(json.dumps({'classes': list(f.CLASSES), 'not_http': list(f.NOT_HTTP)}))",
                     cwd=HERE / "python")
    return json.loads(text)


def serve(where, python, name, log, ports):
    """The application that believes anything, which writes down what reached it."""
    where.start("server", [python, HERE / "python/sink.py", log, *ports], name)
    for port in ports:
        place.until(lambda port=port: where.listening("server", port), 20, f"the application at {port}")


class FirstBytes:
    """What became of them in one mesh; the counts are by class, way and port."""

    def __init__(self, mesh, where, log, python):
        self.mesh, self.where, self.log, self.python = mesh, where, log, python
        self.known = classes(python)
        self.past, self.forged, self.sent, self.wrong = {}, {}, {}, []

    def complain(self, said):
        self.wrong.append(f"{self.where.name}: {said}")

    def allowed(self):
        """What is allowed passes, or nothing below means anything."""
        for pod, port in (("client", 9001), ("client", 9002)):
            got = self.where.call(pod, ["curl", "-s", "-m", "5", f"http://{place.SERVICE_IP}:{port}/public"], 10)[1]
            if got != "ok":
                self.complain(f"an allowed call from {pod} to {port} gave {got!r}")
        for pod in ("client", "tunneller"):
            got = self.where.call(pod, ["bash", "-c", f"exec 3<>/dev/tcp/{place.SERVICE_IP}/9003; printf 'get k\\r\\n' >&3; timeout 5 head -c 8 <&3"], 10)[1]
            if got != "HTTP/1.1":
                self.complain(f"allowed bytes from {pod} to 9003 gave {got!r}")

    def send(self):
        before = self.log.stat().st_size if self.log.exists() else 0
        with concurrent.futures.ThreadPoolExecutor(len(WAYS)) as pool:
            tries = {}
            for way, pod in WAYS.items():
                host = place.SERVER_IP if way == "direct" else place.SERVICE_IP
                line = [self.python, HERE / "python/first_bytes.py", way, *[f"{host}:{port}" for port in PORTS.values()]]
                tries[way] = pool.submit(self.where.call, pod, line, SECONDS)
            for way, one in tries.items():
                status, out, err = one.result()
                if status != 0:
                    self.complain(f"first bytes, {way}: {status} {err[-300:]}")
                for said in out.splitlines():
                    key = (json.loads(said)["class"], way)
                    self.sent[key] = self.sent.get(key, 0) + 1
        time.sleep(0.5)
        with open(self.log, encoding="utf-8") as log:
            log.seek(before)
            self.judge([json.loads(line) for line in log])

    def judge(self, came):
        """Books what of `came` should not have: each class once for each way and port."""
        past, forged, arrived = set(), set(), set()
        for one in came:
            for way, number in re.findall(r"private-(\w+)-(\d+)\.", one["came"]):
                arrived.add((self.known["classes"][int(number)], way, one["port"]))
            for way, number in re.findall(r"spiffe://forged/(\w+)-(\d+)\.", one["came"]):
                key = (self.known["classes"][int(number)], way, one["port"])
                # Folded into another field it is that field's text, and in a tunnel of bytes no identity.
                if key[0] not in self.known["not_http"] and key[0] != "folded identity":
                    forged.add(key)
                # No request without a certificate may pass.
                if way == "direct" and self.mesh.mtls == "strict":
                    past.add(key)
        past.update(key for key in arrived if self.forbidden(*key[1:]))
        for seen, book in ((past, self.past), (forged, self.forged)):
            for key in seen:
                book[key] = book.get(key, 0) + 1
        for way in WAYS:
            here = (PLAIN, way, PORTS["guarded"])
            if not self.forbidden(*here[1:]) and here not in arrived:
                self.complain(f"{PLAIN} by {way} is allowed at {here[2]} and did not arrive: what did not pass may not have been seen")

    def forbidden(self, way, port):
        """Whether the private path must not be reached by this way at this port."""
        if way == "direct":
            return not self.mesh.lets_strangers_in()
        return self.mesh.has_rules() and port != PORTS["bytes"]


def against_older(proxy, options, inner, python):
    """The classes against an older proxy, once in each mesh: the books, and what went wrong."""
    books, wrong = [], []
    for mesh in MESHES:
        name = f"older-{mesh.name}"
        where = None
        try:
            where = place.Place(name, inner / name, proxy, options.stand_in, DECLARED, mesh.access, mesh.mtls,
                                rules=RULES if mesh.has_rules() else (), others=OTHERS)
            log = inner / name / "came.jsonl"
            serve(where, python, "sink", log, PORTS.values())
            book = FirstBytes(mesh, where, log, python)
            book.allowed()
            book.send()
            books.append(book)
            wrong += [*book.wrong, *misread(book)]
        except (place.Failed, OSError, ValueError, subprocess.SubprocessError) as failed:
            wrong.append(f"{name}: the older proxy could not take part, so nothing shows what this run would see: {failed}")
        finally:
            if where:
                where.close()
    for hole, times in holes(books).items():
        if not times:
            wrong.append(f"the older proxy shows no hole of this kind, so nothing shows that this run would see one: {hole}; "
                         "give one that has it as PREVIOUS")
    return books, wrong


def misread(book):
    """Signs that an older proxy did not read the configuration of today's stand-in: what passes it is no hole of its own then."""
    said = []
    # It refuses this, where it has rules at all.
    if any((PLAIN, "proxy", PORTS[kind]) in book.past for kind in ("guarded", "declared")):
        said.append(f"{book.where.name}: the older proxy let {PLAIN} past its rules, as if it had none, so its holes show nothing")
    if "refused" in pathlib.Path(book.where.stand_in.log).read_text():
        said.append(f"{book.where.name}: the older proxy refused configuration, so its holes show nothing; see stand-in.log")
    return said


def holes(books):
    """How often each kind of hole was seen. Only rules can be walked around."""
    found = dict.fromkeys(HOLES, 0)
    for hole, (kept, kinds, upgraded) in HOLES.items():
        ports = [PORTS[kind] for kind in kinds]
        for book in books:
            if kept == "past" and not book.mesh.has_rules():
                continue
            found[hole] += sum(times for (name, _, port), times in getattr(book, kept).items()
                               if port in ports and ("upgrade" in name) == upgraded)
    return found


def row(name, books):
    """Cells of a class: how often it was sent, and by each way what passed and what was forged."""
    sent = sum(count for book in books for (one, _), count in book.sent.items() if one == name)
    cells = [str(sent)]
    for kept in ("past", "forged"):
        by_way = [sum(times for book in books for (one, by, _), times in getattr(book, kept).items() if (one, by) == (name, way)) for way in WAYS]
        cells.append(", ".join(map(str, by_way)))
    return cells


def total(books, kept):
    return sum(sum(getattr(book, kept).values()) for book in books)
