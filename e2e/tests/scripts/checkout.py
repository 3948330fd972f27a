"""A checkout with the real scripts and a cargo that compiles nothing.

Of the programs that scripts call those that take long or change the machine are replaced:
cargo, the cluster's `up` and `down`, and what installs packages.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))
SCRIPTS = (
    "Makefile",
    ".ci/run",
    "bench/run",
    "e2e/claims",
    "e2e/cluster/lib",
    "e2e/demo/run",
    "e2e/dependencies",
    "e2e/drill/run",
    "e2e/images/build",
    "e2e/run",
    "e2e/supervise",
    "e2e/test-programs",
    "proxy/profile",
)
HERE = os.path.dirname(os.path.abspath(__file__))
TRIPLE = "x86_64-unknown-linux-gnu"

# Package, and what its test programs are called.
PROGRAMS = {
    "proxy": ("netns", "interop", "path", "memory"),
    "cli": ("dashboard",),
    "e2e": ("prometheus", "mesh", "alone"),
}
OVERRIDES = """
require_packages() { :; }
require_disk() { :; }
lack_of_disk() { return 1; }
require_browser() { :; }
build_helm() { :; }
build_cert_manager() { return 1; }
module_files() { echo /nowhere; }
"""


class Checkout:
    def __init__(self):
        self.mark = f"WEFT_SCRIPTS_TEST={uuid.uuid4().hex}"
        self.root = tempfile.mkdtemp(prefix="weft-scripts-")
        self.bin = self.path("stubs")
        os.makedirs(self.bin)
        for name in SCRIPTS:
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            source = os.path.join(ROOT, name)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, self.path(name))
        with open(self.path("e2e/cluster/lib/load.sh"), "a", encoding="utf-8") as file:
            file.write(OVERRIDES)
        for name in (".cargo/config.toml", "Cargo.toml", "Cargo.lock"):
            self.write(name, "")
        self.write("e2e/landing-tests", "dashboard a::passes\nmesh a::passes  # claim\nalone a::passes\n")
        self.write(".gitignore", "/cache\n/calls\n/stubs\n/target\n")
        for name in ("up", "down"):
            self.script(f"e2e/cluster/{name}", f'#!/bin/bash\nexec "{HERE}/stub" {name}\n')
        # Whose images are packed and loaded is no matter here.
        self.script("e2e/images/build", '#!/bin/bash\nexit 0\n')
        for name in ("wrk", "h2load", "iperf3", "ip", "nginx"):
            self.script(f"stubs/{name}", "#!/bin/sh\nexit 0\n")
        # Not the one of a version manager, which takes longer to start than a test.
        os.symlink(sys.executable, self.path("stubs/python3"))
        self.script("stubs/id", "#!/bin/sh\necho 0\n")
        self.script("stubs/cargo", f'#!/bin/bash\nexec "{HERE}/stub" cargo "$@"\n')
        self.script("stubs/rustc", "#!/bin/sh\necho rustc 1\n")
        envoy = "cache/weft/bench/envoy-1.40.0"
        self.write(f"{envoy}/complete", "")
        self.script(f"{envoy}/envoy", "#" * (2 << 20))
        self.tests = {}
        for package, names in PROGRAMS.items():
            for name in names:
                self.program(package, name, [("a::passes", 0, "ok")])
        self.program("proxy", "netns", [("capture::passes", 0, "ok"), ("stalls::passes", 0, "ok")])
        self.script("e2e/tests/scripts/run", '#!/bin/bash\necho 1 0 > "$1/$2.counts"\n')
        self.script("e2e/field/run", '#!/bin/bash\necho 1 0 > "$1/$2.counts"\n')
        self.change("e2e/test-programs", r"FIRST = \(.*?\)\n", 'FIRST = ("proxy/path",)\n')
        self.change("e2e/test-programs", r"ALONE = \(.*?\n\)\n", 'ALONE = ("proxy/memory",)\n')

    def path(self, name):
        return os.path.join(self.root, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def change(self, name, pattern, text):
        changed, count = re.subn(pattern, text, self.read(name), flags=re.S)
        assert count == 1, (name, pattern, count)
        self.script(name, changed)

    def script(self, name, text):
        self.write(name, text)
        os.chmod(self.path(name), stat.S_IRWXU)

    def program(self, package, name, tests, status=None):
        """A test program with these tests, each a name, its seconds and its result."""
        path = self.path(f"target/{TRIPLE}/debug/deps/{name}-0123456789abcdef")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.script(path, f'#!/bin/bash\nexec "{HERE}/stub" program "$0" "$@"\n')
        self.tests[f"{package}/{name}"] = {"path": path, "tests": tests, "status": status}
        self.write("target/programs.json", json.dumps(self.tests))

    def environment(self, **more):
        kept = ("HOME", "LANG", "PYENV_ROOT", "PYENV_VERSION", "TERM", "USER")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        name, value = self.mark.split("=")
        environment.update(
            {
                name: value,
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "FAKE_ROOT": self.root,
                "XDG_CACHE_HOME": self.path("cache"),
                "GIT_CONFIG_NOSYSTEM": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **more,
            }
        )
        return environment

    def run(self, *command, **more):
        """Status and output."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def processes(self):
        """Those that have the mark in their environment, with their command lines."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if self.mark.encode() not in file.read().split(b"\0"):
                        continue
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[int(pid)] = file.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return found

    def remove(self):
        shutil.rmtree(self.root, ignore_errors=True)
