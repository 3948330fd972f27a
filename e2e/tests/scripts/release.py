"""What a release consists of: archives, lists of crates and sums, without compiling anything."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib

from checkout import ROOT, TRIPLE
from tiers import checkout

RELEASE = os.path.join(ROOT, "e2e/release")
CHART = os.path.join(ROOT, "charts/weft")
INDEX = "registry+https://git.example/public-index"
DIGEST = "sha256:" + "1" * 64
PARTS = {"proxy": "weft-proxy", "controller": "weft-controller", "injector": "weft-injector", "echo": "weft-echo"}
LINKED = ("libc.a", "libgcc.a", "libgcc_eh.a", "rcrt1.o")
# The prefix of tools for each processor.
TOOLS = {"amd64": "", "arm64": "aarch64-linux-gnu-"}
# strip --strip-all -o OUT IN
STRIP = '#!/bin/sh\ncp "$4" "$3"\n'
CRATES = ("proxy", "controller", "injector", "e2e", "cli")


def called(name, *arguments):
    ended = subprocess.run([os.path.join(RELEASE, name), *arguments], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="weft-release-") as made:
        yield made


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def packed(chart, out):
    os.makedirs(out, exist_ok=True)
    digests = write(os.path.join(out, "digests"), f"proxy {DIGEST}\ncontroller {DIGEST}\n")
    status, output = called("chart", "--chart", chart, "--digests", digests, "--epoch", "1700000000", "--out", out)
    assert status == 0, output
    return output.strip()


def test_chart_is_the_same_bytes_from_two_folders():
    with folder() as made:
        first = packed(CHART, f"{made}/a")
        copied = shutil.copytree(CHART, f"{made}/elsewhere/weft", copy_function=shutil.copyfile)
        for top, _, names in os.walk(copied):
            for name in names:
                os.chmod(os.path.join(top, name), 0o600)
        # What .helmignore names.
        write(f"{copied}/.git/config", "")
        write(f"{copied}/templates/old.tgz", "")
        write(f"{copied}/values.yaml~", "")
        second = packed(copied, f"{made}/b")
        assert os.path.basename(first) == os.path.basename(second), (first, second)
        assert read(first) == read(second) == read(packed(CHART, f"{made}/c"))
        # The control: another content is another archive.
        with open(f"{copied}/values.yaml", "a", encoding="utf-8") as file:
            file.write("# more\n")
        assert read(packed(copied, f"{made}/d")) != read(first)


def test_chart_archive_has_the_charts_files_and_the_digests():
    with folder() as made:
        with tarfile.open(packed(CHART, made)) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
            owners = {(one.uid, one.gid, one.mode, one.mtime) for one in archive.getmembers()}
        assert owners == {(0, 0, 0o644, 1700000000)}, owners
        listed = subprocess.run(
            ["find", ".", "-type", "f", "-printf", "weft/%P\n"], cwd=CHART, capture_output=True, text=True, check=True
        )
        assert members.pop("weft/image-digests.yaml").decode() == f"controller: {DIGEST}\nproxy: {DIGEST}\n"
        assert sorted(members) == sorted(listed.stdout.split()), "files are missing or too many"
        # The values above all: helm carries them to the next chart.
        for name, content in members.items():
            assert content == read(os.path.join(CHART, name.removeprefix("weft/"))), name


def test_chart_with_other_digests_is_refused():
    with folder() as made:
        write(f"{made}/chart/Chart.yaml", "name: a\nversion: 1.0.0\n")
        write(f"{made}/chart/values.yaml", "image: {}\n")
        good = write(f"{made}/good", f"proxy {DIGEST}\n")
        bad = write(f"{made}/bad", "proxy latest\n")
        for digests, reason in ((bad, "is no digest"), (good, "has image-digests.yaml already")):
            if digests == good:
                write(f"{made}/chart/image-digests.yaml", "")
            arguments = ("--chart", f"{made}/chart", "--digests", digests, "--epoch", "1", "--out", made)
            status, output = called("chart", *arguments)
            assert status != 0 and reason in output, output
        assert not [name for name in os.listdir(made) if name.endswith(".tgz")], os.listdir(made)


def test_sums_cover_every_file_once():
    with folder() as made:
        for name in ("b", "a", "with space", "deep/er/c", ".hidden"):
            write(f"{made}/{name}", name)
        for _ in range(2):
            assert called("sums", made)[0] == 0
        lines = read(f"{made}/SHA256SUMS").decode().splitlines()
        assert [line[66:] for line in lines] == [".hidden", "a", "b", "deep/er/c", "with space"], lines
        for line in lines:
            assert line[:64] == hashlib.sha256(line[66:].encode()).hexdigest(), line
        assert sorted(os.listdir(made)) == [".hidden", "SHA256SUMS", "a", "b", "deep", "with space"]


def crate(name, *needs, local=False, license="MIT/Apache-2.0"):
    """A package and its node; a need is a name, or a name and the kinds of the dependency."""
    source = None if local else INDEX
    package = {"id": f"{name} 1.0.0", "name": name, "version": "1.0.0", "source": source, "license": license}
    needs = [need if isinstance(need, tuple) else (need, None) for need in needs]
    deps = [
        {"pkg": f"{need[0]} 1.0.0", "dep_kinds": [{"kind": kind, "target": None} for kind in need[1:]]} for need in needs
    ]
    return package, {"id": package["id"], "deps": deps}


def metadata(*crates):
    return {"packages": [package for package, _ in crates], "resolve": {"nodes": [node for _, node in crates]}}


SOME = (
    crate("proxy", "policy", "tokio", ("proptest", "dev"), ("cc", "build"), ("both", "dev", None), local=True),
    crate("policy", "derive", local=True, license="Apache-2.0"),
    crate("tokio", "bytes", "optional"),
    crate("bytes"),
    # A feature that another member of the workspace asks for.
    crate("optional"),
    crate("both"),
    crate("proptest", "rand"),
    crate("rand"),
    crate("cc"),
    # A macro: it runs in the compiler.
    crate("derive", "syn"),
    crate("syn"),
    crate("unrelated"),
)
TREE = "proxy v1.0.0 (/x/proxy)\npolicy v1.0.0 (/x/policy)\ntokio v1.0.0\nbytes v1.0.0\nboth v1.0.0\n"
IN_PROXY = ["both", "bytes", "policy", "proxy", "tokio"]


def lock(crates):
    names = [package["name"] for package, _ in crates if package["source"]]
    entries = [f'[[package]]\nname = "{name}"\nversion = "1.0.0"\nchecksum = "{name:0<64}"\n' for name in names]
    return "\n".join(entries)


def listed(made, tree=TREE):
    """Status and output of the program that lists the crates of `proxy`, in `made`."""
    return called(
        "sbom",
        *("--metadata", write(f"{made}/metadata", json.dumps(metadata(*SOME)))),
        *("--tree", write(f"{made}/tree", tree), "--lock", write(f"{made}/lock", lock(SOME))),
        *("--package", "proxy", "--program", "weft-proxy", "--binary", write(f"{made}/weft-proxy", "program")),
        *("--epoch", "1700000000", "--library", "glibc@2.36"),
        *("--audit", f"{made}/audit", "--cyclonedx", f"{made}/bom"),
    )


def test_sbom_has_normal_dependencies_of_the_program_alone():
    with folder() as made:
        status, output = listed(made)
        assert status == 0, output
        bom = json.loads(read(f"{made}/bom"))
        names = [one["name"] for one in bom["components"]]
        assert sorted(names) == ["both", "bytes", "glibc", "policy", "tokio"], names
        tokio = next(one for one in bom["components"] if one["name"] == "tokio")
        assert tokio["purl"] == "pkg:cargo/tokio@1.0.0", tokio
        assert tokio["licenses"] == [{"expression": "MIT OR Apache-2.0"}], tokio
        assert tokio["hashes"][0]["content"] == f"{'tokio':0<64}", tokio
        # A published crate may have the name of one of ours.
        assert all("purl" not in one for one in bom["components"] if one["name"] == "policy"), bom
        assert bom["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(b"program").hexdigest()
        assert bom["metadata"]["timestamp"] == "2023-11-14T22:13:20Z", bom["metadata"]
        edges = {one["ref"]: one["dependsOn"] for one in bom["dependencies"]}
        assert edges["pkg:cargo/tokio@1.0.0"] == ["pkg:cargo/bytes@1.0.0"], edges
        known = set(edges)
        assert all(need in known for needs in edges.values() for need in needs), edges
        first = read(f"{made}/bom")
        listed(made)
        assert read(f"{made}/bom") == first


def test_audit_section_has_the_same_crates_by_their_places():
    with folder() as made:
        assert listed(made)[0] == 0
        packages = json.loads(zlib.decompress(read(f"{made}/audit")))["packages"]
        assert [one["name"] for one in packages] == IN_PROXY, packages
        proxy = packages[IN_PROXY.index("proxy")]
        assert proxy["root"] and proxy["source"] == "local", proxy
        assert [packages[place]["name"] for place in proxy["dependencies"]] == ["both", "policy", "tokio"], proxy
        assert packages[0]["source"] == "public" and "root" not in packages[0], packages[0]


def test_crate_that_no_normal_dependency_reaches_is_refused():
    with folder() as made:
        status, output = listed(made, TREE + "proptest v1.0.0\n")
        assert status != 0 and "cargo tree has proptest 1.0.0 in proxy" in output, output
        assert not os.path.exists(f"{made}/bom") and not os.path.exists(f"{made}/audit")


STUBS = {
    "rustc": r"""#!/bin/sh
[ "$1" != --print ] || exec echo "$FAKE_ROOT/stubs/rustlib/$4"
echo rustc ${RUSTUP_TOOLCHAIN:-1}
echo release: ${RUSTUP_TOOLCHAIN:-1}
""",
    "rustup": r"""#!/bin/sh
[ "$1 $2" = "target add" ] && mkdir -p "$FAKE_ROOT/stubs/rustlib/$3"
""",
    # -p SIZE PROGRAM ARGUMENT
    "qemu-aarch64": r"""#!/bin/sh
[ "$1 $2" = "-p 65536" ] && EMULATED=arm64 exec "$3" "$4"
""",
}
COMPILER = r"""#!/bin/sh
case $1 in
-print-file-name=*) echo "$FAKE_ROOT/stubs/lib/ARCH/${1#*=}" ;;
-dumpfullversion) echo 12.2.0 ;;
-E) echo "2 . 36" ;;
*) echo cc 1 for ARCH ;;
esac
"""
# Like binutils, which read files of one processor.
OBJCOPY = r"""#!/bin/bash
[ "$1" != --version ] || { echo objcopy 1 for ARCH; exit; }
grep -q "for ARCH" "$5" && cat "$5" "${2#*=}" > "$6"
"""
BUILD = r"""#!/bin/bash
set -e
[ "$PROFILE $CLUSTER" = "release external" ]
env | cut -d= -f1 | sort > target/environment
env | grep ^JEMALLOC | sort > target/jemalloc
. e2e/cluster/lib/cargo.sh
for_architecture "$ARCHITECTURE"
echo "$ARCHITECTURE $WEFT_PROXY_PROFILE" >> target/profiles
# Nothing of another release is left.
[ ! -e "target/release-build/$TRIPLE" ]
[ "$ARCHITECTURE" != amd64 ] || [ ! -e target/release-build ]
mkdir -p "target/release-build/$TRIPLE/release" target/images/release
for one in weft PROGRAMS; do
  # Programs of another processor do not run by themselves.
  printf '#!/bin/sh\n# for %s\n[ "${EMULATED:-amd64}" = %s ] || exit 1\necho %s %s\nexit\n' \
    "$ARCHITECTURE" "$ARCHITECTURE" "$one" "${PRINTED:-0.1.0}" > "target/release-build/$TRIPLE/release/$one"
  # Of another build, which may run at the same time.
  echo other > "target/images/release/$one"
done
chmod -R +x target/release-build target/images
"""


@contextlib.contextmanager
def releasing():
    """A checkout that e2e/release/run can be run in; programs are texts, and tools copy them."""
    with checkout() as made:
        for name in ("e2e/release", "charts/weft"):
            shutil.copytree(os.path.join(ROOT, name), made.path(name))
        for name in ("e2e/images/pack", "e2e/images/command-fits"):
            shutil.copy2(os.path.join(ROOT, name), made.path(name))
        crates = [crate(name, "bytes", local=True) for name in CRATES] + [crate("bytes")]
        made.write("Cargo.toml", '[workspace.package]\nversion = "0.1.0"\n')
        made.write("Cargo.lock", lock(crates))
        made.write("stubs/metadata", json.dumps(metadata(*crates)))
        made.script(
            "stubs/cargo",
            f'#!/bin/bash\n[ "$1" != metadata ] || exec cat "{made.path("stubs/metadata")}"\n'
            'while [ "$1" != -p ]; do shift; done\nprintf "%s v1.0.0 (/x)\\nbytes v1.0.0\\n" "$2"\n',
        )
        for name, script in STUBS.items():
            made.script(f"stubs/{name}", script.replace("$FAKE_ROOT", made.root))
        os.makedirs(made.path(f"stubs/rustlib/{TRIPLE}"))
        for arch, prefix in TOOLS.items():
            for name, script in ((f"{prefix}gcc" if prefix else "cc", COMPILER), (f"{prefix}objcopy", OBJCOPY)):
                made.script(f"stubs/{name}", script.replace("$FAKE_ROOT", made.root).replace("ARCH", arch))
            made.script(f"stubs/{prefix}strip", STRIP)
            for name in LINKED:
                made.write(f"stubs/lib/{arch}/{name}", f"{name} for {arch}")
        made.script("e2e/release/in-place", '#!/bin/bash\nexec "$@"\n')
        made.script("e2e/images/build", BUILD.replace("PROGRAMS", " ".join(PARTS.values())))
        made.run("git", "init", "-q")
        committed(made)
        yield made


def committed(made):
    made.run("git", "add", "-A")
    status, output = made.run("git", "-c", "user.name=a", "-c", "user.email=a@a.example", "commit", "-qm", "a")
    assert status == 0, output


def path_without(made, *names):
    """A folder for PATH with this machine's programs but these, and but what would install them."""
    links = made.path("stubs/without")
    os.makedirs(links)
    for one in os.scandir("/usr/bin"):
        if one.name not in (*names, "apt-get"):
            os.symlink(one.path, os.path.join(links, one.name))
    return f"{made.bin}:{links}"


def test_images_for_another_cluster_need_no_containerd():
    with checkout() as made:
        # With the real list of packages.
        for name in ("e2e/cluster/lib/load.sh", "e2e/images"):
            shutil.rmtree(made.path(name), ignore_errors=True)
            source = os.path.join(ROOT, name)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, made.path(name))
        made.write("Cargo.toml", '[workspace.package]\nversion = "0.1.0"\n')
        built = f"{TRIPLE}/release"
        made.script(
            "stubs/cargo",
            f"#!/bin/bash\nmkdir -p target/{built} target/profiled/{built}\n"
            f"for one in weft {' '.join(PARTS.values())}; do\n"
            f'echo "$one" > target/{built}/$one; cp target/{built}/$one target/profiled/{built}/\ndone\n'
            f"chmod -R +x target/{built} target/profiled/{built}\n",
        )
        made.script("stubs/strip", STRIP)
        path = path_without(made, "containerd", "runc")
        status, output = made.run("e2e/images/build", PROFILE="release", CLUSTER="external", PATH=path)
        assert status == 0, output
        assert os.path.exists(made.path("target/images/release/proxy.tar")), output
        # The control: a cluster of this machine needs it.
        status, output = made.run("e2e/images/build", PROFILE="release", PATH=path)
        assert status != 0 and "please install:" in output and " containerd " in output, output


def test_images_for_arm64_are_built_for_another_cluster_alone():
    triple = "aarch64-unknown-linux-gnu"
    with checkout() as made:
        for name in ("e2e/images/build", "e2e/images/pack", "e2e/images/command-fits"):
            shutil.copy2(os.path.join(ROOT, name), made.path(name))
        made.write("Cargo.toml", '[workspace.package]\nversion = "0.1.0"\n')
        made.script(
            "stubs/cargo",
            '#!/bin/bash\necho "$CARGO_BUILD_TARGET $*" >> calls\n'
            'folder=${CARGO_TARGET_DIR:-target}\nwhile [ $# -gt 0 ]; do\n'
            '[ "$1" != --target-dir ] || folder=$2\nshift\ndone\n'
            'folder+=/$CARGO_BUILD_TARGET/release\nmkdir -p "$folder"\n'
            f'for one in weft {" ".join(PARTS.values())}; do echo "$one" > "$folder/$one"; done\n'
            'chmod -R +x "$folder"\n',
        )
        made.script("stubs/aarch64-linux-gnu-strip", STRIP)
        # A profile of this machine.
        made.write("cache/weft/profile/any", "")
        settings = {"PROFILE": "release", "ARCHITECTURE": "arm64"}
        status, output = made.run("e2e/images/build", CLUSTER="external", **settings)
        assert status == 0, output
        with tarfile.open(made.path("target/images/release-arm64/proxy.tar")) as archive:
            configs = [archive.extractfile(one).read() for one in archive.getnames() if one.startswith("blobs/")]
        assert any(one.startswith(b'{"architecture":"arm64"') for one in configs), configs
        calls = made.read("calls").splitlines()
        assert calls and all(one.startswith(f"{triple} build ") for one in calls), calls
        assert not [one for one in calls if "profile-use" in one], calls
        for more, refusal in (
            (settings, "the local cluster runs programs for amd64 alone"),
            ({"ARCHITECTURE": "s390x", "CLUSTER": "external"}, "ARCHITECTURE=s390x: images are built for"),
        ):
            status, output = made.run("e2e/images/build", **more)
            assert status != 0 and refusal in output, output


def test_index_of_images_names_each_processor_once():
    pack = os.path.join(ROOT, "e2e/images/pack")
    with folder() as made:
        for arch in TOOLS:
            write(f"{made}/{arch}", arch)

        def packed(*arguments):
            arguments = (*arguments, "--image", "weft/x:1", "--user", "5", "--out", f"{made}/x.tar")
            ended = subprocess.run([pack, *arguments], capture_output=True, text=True, check=False)
            return ended.stdout.strip() or ended.stderr

        both = [f"arm64={made}/arm64", f"amd64={made}/amd64"]
        digest = packed("--name", "x", "--binaries", *both)
        assert [image_of(f"{made}/x.tar", digest, arch) for arch in TOOLS] == [b"amd64", b"arm64"]
        assert packed("--name", "x", "--binaries", *reversed(both)) == digest
        for arguments, refusal in (
            (["--name", "x", "--binaries", both[0], both[0]], "names a processor twice"),
            (["--name", "x", "--binaries", f"mips={made}/arm64"], "write amd64=PATH or arm64=PATH"),
            (["--binaries", *both], "belong together"),
        ):
            assert refusal in packed(*arguments), arguments


def test_linker_for_arm64_makes_static_programs_position_independent():
    with checkout() as made:
        made.script("stubs/aarch64-linux-gnu-gcc", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
        wrapper = os.path.join(RELEASE, "arm64-gcc")
        status, output = made.run(wrapper, "a b.o", "-static", "-no-pie", "-Wl,-O1")
        assert (status, output) == (0, "a b.o\n-static-pie\n-Wl,-O1\n"), output


def test_release_has_every_part_and_is_the_same_again():
    with releasing() as made:
        status, output = made.run("make", "release")
        assert status == 0, output
        out = "target/release-0.1.0"
        found = sorted(os.listdir(made.path(out)))
        boms = [f"{program}-{arch}.cdx.json" for program in [*PARTS.values(), "weft"] for arch in TOOLS]
        images = [f"{part}.tar" for part in PARTS]
        others = ["SHA256SUMS", "build-environment", "image-digests", "weft-0.1.0.tgz"]
        others += [f"weft-linux-{arch}" for arch in TOOLS]
        assert found == sorted(boms + images + others), found
        assert not os.path.exists(made.path("target/release-work")), output
        sums = made.read(f"{out}/SHA256SUMS")
        assert [line.split()[1] for line in sums.splitlines()] == [name for name in found if name != "SHA256SUMS"], sums
        digests = dict(line.split() for line in made.read(f"{out}/image-digests").splitlines())
        assert sorted(digests) == sorted(PARTS), digests
        with tarfile.open(made.path(f"{out}/weft-0.1.0.tgz")) as archive:
            packed_digests = archive.extractfile("weft/image-digests.yaml").read().decode()
        assert f"proxy: {digests['proxy']}\n" in packed_digests, packed_digests
        assert "architectures: [amd64, arm64]\n" in packed_digests, packed_digests
        described = made.read(f"{out}/build-environment").splitlines()
        for arch in TOOLS:
            for name in LINKED:
                content = hashlib.sha256(f"{name} for {arch}".encode()).hexdigest()
                assert f"{arch} {name} sha256:{content}" in described, described
            assert f"{arch} cc 1 for {arch}" in described and f"{arch} objcopy 1 for {arch}" in described, described
            bom = json.loads(made.read(f"{out}/weft-proxy-{arch}.cdx.json"))
            assert [one["bom-ref"] for one in bom["components"] if "generic" in one["bom-ref"]] == [
                "pkg:generic/glibc@2.36",
                "pkg:generic/libgcc@12.2.0",
                "pkg:generic/rust-std@1",
            ], bom
            program = image_of(made.path(f"{out}/proxy.tar"), digests["proxy"], arch)
            assert program.startswith(f"#!/bin/sh\n# for {arch}\n".encode()), program
            assert bom["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(program).hexdigest(), bom
        status, output = made.run("make", "release")
        assert status == 0 and made.read(f"{out}/SHA256SUMS") == sums, output


def image_of(path, digest, arch):
    """The one file of the archive's image for a processor. Digest: of what its name stands for."""
    with tarfile.open(path) as archive:

        def blob(digest):
            content = archive.extractfile(f"blobs/{digest.replace(':', '/')}").read()
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}", digest
            return content

        (named,) = json.loads(archive.extractfile("index.json").read())["manifests"]
        assert named["digest"] == digest and named["mediaType"].endswith(".image.index.v1+json"), named
        platforms = {one["platform"]["architecture"]: one for one in json.loads(blob(digest))["manifests"]}
        manifest = json.loads(blob(platforms[arch]["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        assert (config["architecture"], config["os"]) == (arch, "linux"), config
        with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0]["digest"]))) as layer:
            return layer.extractfile(config["config"]["Entrypoint"][0].removeprefix("/")).read()


def test_release_for_one_processor_has_nothing_of_the_other():
    for arch, other in (("amd64", "arm64"), ("arm64", "amd64")):
        with releasing() as made:
            for tool in ("gcc" if TOOLS[other] else "cc", "strip", "objcopy"):
                os.remove(made.path(f"stubs/{TOOLS[other]}{tool}"))
            if other == "arm64":
                os.remove(made.path("stubs/qemu-aarch64"))
            for name in ("weft-proxy.profdata", "weft-proxy.order"):
                made.write(f"cache/of/{name}", name)
            status, output = made.run("make", "release", ARCH=arch, WEFT_PROXY_PROFILE="cache/of")
            assert status == 0, output
            out = "target/release-0.1.0"
            found = os.listdir(made.path(out))
            assert f"weft-linux-{arch}" in found and not [name for name in found if other in name], found
            assert ("weft-proxy.order" in found) == (arch == "amd64"), found
            digests = dict(line.split() for line in made.read(f"{out}/image-digests").splitlines())
            assert image_of(made.path(f"{out}/echo.tar"), digests["echo"], arch)
            with tarfile.open(made.path(f"{out}/weft-0.1.0.tgz")) as archive:
                packed_digests = archive.extractfile("weft/image-digests.yaml").read().decode()
            assert f"architectures: [{arch}]\n" in packed_digests, packed_digests


def test_release_adds_the_standard_library_or_is_refused():
    with releasing() as made:
        made.script("stubs/rustup", "#!/bin/sh\nexit 1\n")
        status, output = made.run("make", "release")
        assert status != 0 and "rustup target add aarch64-unknown-linux-gnu" in output, output
        assert "compiling" not in output, output
        # The control: amd64 has its own.
        status, output = made.run("make", "release", ARCH="amd64")
        assert status == 0, output


def test_compilers_of_a_release_see_none_of_the_callers_settings():
    with releasing() as made:
        settings = {"RUSTFLAGS": "-C opt-level=0", "CFLAGS": "-O0", "JEMALLOC_SYS_WITH_LG_VADDR": "57"}
        settings |= {"RUSTUP_TOOLCHAIN": "nightly", "RUSTC": "mine"}
        status, output = made.run("e2e/release/run", **settings)
        assert status == 0, output
        seen = made.read("target/environment").split()
        assert not set(settings) & set(seen) - {"JEMALLOC_SYS_WITH_LG_VADDR"} and "PATH" in seen, seen
        # The same compiler is described as compiled.
        out = "target/release-0.1.0"
        assert "\nrustc 1\n" in made.read(f"{out}/build-environment"), made.read(f"{out}/build-environment")
        assert "pkg:generic/rust-std@1\"" in made.read(f"{out}/weft-proxy-arm64.cdx.json")
        # What differs between machines: the processor's address bits, the size of huge pages.
        fixed = ["JEMALLOC_SYS_WITH_LG_HUGEPAGE=21", "JEMALLOC_SYS_WITH_LG_VADDR=48"]
        assert made.read("target/jemalloc").split() == fixed


def test_release_without_its_tools_is_refused_first():
    python = f'exec {sys.executable} "$@"\n'
    old = '[ "$2" != "import tomllib" ] || exit 1\n[ "$1" != --version ] || { echo Python 3.9; exit; }\n'
    for name, script, refusal in (
        ("python3", old + python, "python3 is Python 3.9"),
        ("rustc", "exit 1\n", "rustc does not run"),
        ("cc", 'echo "${1#*=}"\n', "cc finds no libc.a"),
        ("aarch64-linux-gnu-gcc", 'echo "${1#*=}"\n', "install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"),
    ):
        with releasing() as made:
            # One of them is a link.
            os.remove(made.path(f"stubs/{name}"))
            made.script(f"stubs/{name}", f"#!/bin/sh\n{script}")
            status, output = made.run("e2e/release/run")
            assert status != 0 and refusal in output, output
            assert "compiling" not in output and "no profile" not in output, output


def test_folders_that_the_mount_hides_are_refused():
    in_place = os.path.join(RELEASE, "in-place")
    for name in ("RUSTUP_HOME", "WEFT_PROXY_PROFILE"):
        with checkout() as made:
            made.script("stubs/unshare", "#!/bin/sh\necho shared\n")
            made.script("e2e/release/in-place", read(in_place).decode().replace("/usr/local/src", made.path("place")))
            os.makedirs(made.path("place"))
            for path, hidden in (("place/of", True), ("place", True), ("elsewhere", False), ("places", False)):
                status, output = made.run("e2e/release/in-place", "true", **{name: made.path(path)})
                assert (status != 0) == hidden, (path, output)
                assert (f"{name}: {made.path(path)} is below {made.path('place')}" in output) == hidden, output
                assert ("shared" in output) != hidden, output


def test_release_publishes_the_profile_that_it_used():
    with releasing() as made:
        for name in ("weft-proxy.profdata", "weft-proxy.order"):
            made.write(f"cache/of/{name}", name)
        status, output = made.run("e2e/release/run", WEFT_PROXY_PROFILE="cache/of")
        assert status == 0, output
        assert made.read("target/release-0.1.0/weft-proxy.order") == "weft-proxy.order"
        assert made.read("target/profiles").splitlines()[0] == f"amd64 {made.path('cache/of')}"
        assert "weft-proxy.profdata" in made.read("target/release-0.1.0/SHA256SUMS")


def test_release_of_programs_with_another_version_is_refused():
    with releasing() as made:
        build = made.read("e2e/images/build").replace("set -e\n", "set -e\nPRINTED=0.0.9\n")
        made.script("e2e/images/build", build)
        committed(made)
        status, output = made.run("e2e/release/run")
        assert status != 0 and "weft-proxy --version printed 'weft-proxy 0.0.9'" in output, output
        assert not os.path.exists(made.path("target/release-0.1.0")), output


def test_release_of_changes_or_another_architecture_is_refused():
    with releasing() as made:
        for arch, refusal in (
            ("amd64 riscv64", "riscv64 is neither"),
            ("x86_64", "x86_64 is neither"),
            (" ", "none is neither"),
        ):
            status, output = made.run("make", "release", ARCH=arch)
            assert status != 0 and refusal in output, output
        made.write("new", "file")
        status, output = made.run("make", "release")
        assert status != 0 and "the checkout has changes (?? new)" in output, output
        assert not os.path.exists(made.path("target/release-0.1.0")), output


def test_release_without_its_day_or_upgrade_is_refused():
    with releasing() as made:
        made.write("Cargo.toml", '[workspace.package]\nversion = "0.2.0"\n')
        made.write("docs/upgrade.md", "")
        for page, text, refusal in (
            ("CHANGELOG.md", "## Unreleased\n", "CHANGELOG.md has no heading `## 0.2.0 (YEAR-MONTH-DAY)`"),
            ("CHANGELOG.md", "## 0.2.0 (2026-01-31)\n", "docs/upgrade.md has no heading `### To 0.2.0`"),
            # The control: it goes on to the programs, which are of 0.1.0.
            ("docs/upgrade.md", "### To 0.2.0\n", "weft-proxy --version printed"),
        ):
            made.write(page, text)
            committed(made)
            status, output = made.run("e2e/release/run")
            assert status != 0 and refusal in output, output


def test_release_with_files_that_settings_of_git_hide_is_refused():
    with releasing() as made:
        made.write("proxy/new.rs", "file")
        made.run("git", "config", "status.showUntrackedFiles", "no")
        status, output = made.run("e2e/release/run")
        assert status != 0 and "the checkout has changes (?? proxy/new.rs)" in output, output
        made.write(".git/info/exclude", "new.rs\n")
        status, output = made.run("e2e/release/run")
        assert status != 0 and "the checkout has changes (?? proxy/new.rs)" in output, output


def test_release_whose_head_moves_meanwhile_is_refused():
    commit = "git -c user.name=a -c user.email=a@a.example commit -q --allow-empty -m b"
    # While it compiles, and while it packs.
    for tool in ("cargo", "objcopy"):
        with releasing() as made:
            script = made.read(f"stubs/{tool}")
            made.script(f"stubs/{tool}", script.replace("\n", f"\n{commit} >/dev/null\n", 1))
            status, output = made.run("e2e/release/run")
            assert status != 0 and "a release is of one commit" in output, output
            assert not os.path.exists(made.path("target/release-0.1.0")), output


def test_chart_of_a_release_has_the_files_of_the_commit_alone():
    with releasing() as made:
        made.write("charts/weft/target/templates/hidden.yaml", "kind: ConfigMap\n")
        made.write(".gitignore", made.read(".gitignore").replace("/target", "target"))
        committed(made)
        status, output = made.run("e2e/release/run")
        assert status == 0, output
        with tarfile.open(made.path("target/release-0.1.0/weft-0.1.0.tgz")) as archive:
            names = archive.getnames()
        assert "weft/Chart.yaml" in names and "weft/.helmignore" in names, names
        assert not [name for name in names if "hidden" in name], names
