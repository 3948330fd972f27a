"""Snapshots of compiled dependencies: complete or absent, of foreign crates only, two at most."""

import os
import shutil

from checkout import TRIPLE
from tiers import checkout

LOCK = """
[[package]]
name = "e2e"
version = "0.1.0"

[[package]]
name = "rustls-webpki"
version = "0.103.0"
source = "registry"

[[package]]
name = "libc"
version = "0.2.0"
source = "registry"
"""
OURS = ("deps/libe2e-0123456789abcdef.rlib", "deps/mesh-0123456789abcdef", ".fingerprint/e2e-0123456789abcdef/lib-e2e.json")
FOREIGN = (
    ".fingerprint/rustls-webpki-0123456789abcdef/lib-webpki.json",
    ".fingerprint/rustls-webpki-0123456789abcdef/lib-webpki",
    ".fingerprint/libc-1123456789abcdef/lib-libc.json",
    "build/libc-2123456789abcdef/out/made",
    "deps/libwebpki-0123456789abcdef.rlib",
    "deps/libwebpki-0123456789abcdef.rmeta",
    "deps/webpki-0123456789abcdef.d",
    "deps/liblibc-1123456789abcdef.rlib",
    "deps/libc-1123456789abcdef.d",
)


def files(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


def compiled(made):
    made.write("Cargo.lock", LOCK)
    for name in (*OURS, *FOREIGN):
        made.write(f"target/{TRIPLE}/debug/{name}", name)
        os.utime(made.path(f"target/{TRIPLE}/debug/{name}"), ns=(10**18, 10**18 + 123))


def snapshots(made):
    folder = made.path("cache/weft/deps")
    return os.listdir(folder) if os.path.isdir(folder) else []


def emptied(made):
    shutil.move(made.path("target/programs.json"), made.path("programs.json"))
    shutil.rmtree(made.path("target"))
    os.makedirs(made.path("target"))
    shutil.move(made.path("programs.json"), made.path("target/programs.json"))


def test_empty_target_gets_foreign_crates_with_their_times():
    with checkout() as made:
        compiled(made)
        status, output = made.run("e2e/dependencies", "save")
        assert status == 0 and len(snapshots(made)) == 1, output
        emptied(made)
        status, output = made.run("e2e/dependencies", "restore")
        folder = made.path(f"target/{TRIPLE}/debug")
        assert [name for name in files(folder) if name != ".cargo-lock"] == sorted(FOREIGN), (files(folder), output)
        assert all(os.stat(os.path.join(folder, name)).st_mtime_ns == 10**18 + 123 for name in FOREIGN)


def test_target_that_has_dependencies_is_left_alone():
    with checkout() as made:
        compiled(made)
        made.run("e2e/dependencies", "save")
        path = made.path(f"target/{TRIPLE}/debug/{FOREIGN[4]}")
        os.unlink(path)
        made.run("e2e/dependencies", "restore")
        assert not os.path.exists(path)


def test_snapshot_is_of_one_lock_file_and_two_are_kept():
    with checkout() as made:
        compiled(made)
        for version in range(4):
            made.write("Cargo.lock", f"{LOCK}# {version}\n")
            made.run("e2e/dependencies", "save")
        assert len(snapshots(made)) == 2, snapshots(made)
        made.write("Cargo.lock", f"{LOCK}# another\n")
        emptied(made)
        made.run("e2e/dependencies", "restore")
        assert not os.path.exists(made.path(f"target/{TRIPLE}/debug/deps"))


def test_debug_information_and_incremental_share_a_snapshot():
    with checkout() as made:
        compiled(made)
        made.run("e2e/dependencies", "save")
        made.run("e2e/dependencies", "save", CARGO_INCREMENTAL="0", CARGO_PROFILE_DEV_DEBUG="0")
        assert len(snapshots(made)) == 1, snapshots(made)
        made.run("e2e/dependencies", "save", RUSTFLAGS="-C target-cpu=native")
        assert len(snapshots(made)) == 2, snapshots(made)


def test_snapshot_that_is_not_whole_is_removed():
    with checkout() as made:
        compiled(made)
        made.run("e2e/dependencies", "save")
        snapshot = os.path.join(made.path("cache/weft/deps"), snapshots(made)[0])
        made.write(os.path.join(snapshot, TRIPLE, "debug", FOREIGN[4]), "shorter")
        emptied(made)
        status, output = made.run("e2e/dependencies", "restore")
        assert status == 0 and "is not whole" in output and not snapshots(made), output
        assert not os.path.exists(made.path(f"target/{TRIPLE}/debug/deps"))


def test_copy_that_fails_does_not_fail_the_run():
    with checkout() as made:
        compiled(made)
        made.script("stubs/cp", "#!/bin/sh\nexit 1\n")
        status, output = made.run("e2e/dependencies", "save")
        assert status == 0 and "save was given up" in output and not snapshots(made), output
