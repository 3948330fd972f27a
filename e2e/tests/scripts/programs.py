"""Times that e2e/test-programs derives, and what it finds wrong with a program."""

import importlib.machinery
import importlib.util
import json
import os

from checkout import ROOT
from tiers import checkout


def run(made, tests, *options, status=None):
    made.program("e2e", "mesh", tests, status)
    built, output = made.run("e2e/test-programs", "build", "target/r", "--test=mesh")
    assert built == 0, output
    ended, output = made.run("e2e/test-programs", "run", "target/r", "mesh", *options)
    times = {one["test"]: one["seconds"] for one in json.loads(made.read("target/r/mesh.json"))}
    counts = made.read("target/r/mesh.counts").split()
    return ended, output, times, [int(count) for count in counts]


def derived(threads, tests, printed):
    """Seconds of tests by what a program printed, as pairs of a time and a text."""
    loader = importlib.machinery.SourceFileLoader("test_programs", os.path.join(ROOT, "e2e/test-programs"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("test_programs", loader))
    loader.exec_module(module)
    program = module.Program({"command": ["mesh-0"], "folder": "", "environment": {"CARGO_PKG_NAME": "e2e"}})
    program.threads, program.tests, program.started, program.ended = threads, tests, 0.0, printed[-1][0]
    program.output, program.arrived = bytearray(), []
    for at, text in printed:
        program.output += text.encode()
        program.arrived.append((len(program.output), at))
    return dict(program.results())


def test_times_of_tests_that_run_at_once_are_their_own():
    printed = [
        (0.5, "\nrunning 5 tests\n"),
        (1.5, "test m::b ... ok\n"),
        (2.5, "noise of a child, test m::a - should panic ... "),
        (2.5, "ok\n"),
        (3.0, "test m::d ... ignored, for a reason\n"),
        (3.5, "test m::c ... FAILED\n"),
        (9.0, "test m::e ... ok\n\nfailures:\n\n---- m::c stdout ----\ntest m::a ... ok\n"),
        (9.0, "test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n"),
    ]
    times = derived(2, ["m::a", "m::b", "m::c", "m::d", "m::e"], printed)
    assert times == {"m::b": 1.0, "m::a": 2.0, "m::d": 0.5, "m::c": 2.0, "m::e": 6.0}, times


def test_times_of_tests_one_after_another_are_their_own():
    printed = [
        (0.5, "\nrunning 2 tests\ntest m::a ... "),
        (1.0, "log of a child\n1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"),
        (2.5, "ok\ntest m::b ... "),
        (6.0, "ok\n"),
        (6.5, "\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"),
    ]
    times = derived(1, ["m::a", "m::b"], printed)
    assert times == {"m::a": 2.0, "m::b": 4.0}, times


def test_program_that_crashes_fails_its_tier():
    with checkout() as made:
        tests = [("a", 0, "ok"), ("b", 0, "crash"), ("c", 0, "ok")]
        status, output, _, counts = run(made, tests, "--threads", "1", "e2e/mesh")
        assert status != 0 and counts == [0, 1] and "e2e/mesh ended with signal 6" in output, (counts, output)


def test_program_that_ends_well_before_its_last_test_fails_its_tier():
    with checkout() as made:
        status, output, _, counts = run(made, [("a", 0, "ok")], "e2e/mesh", status=0)
        assert status != 0 and counts == [0, 1] and "ran 0 tests, and lists 1" in output, (counts, output)


def test_program_that_hangs_is_ended_and_known_by_its_output():
    with checkout() as made:
        tests = [("a", 0, "ok"), ("b", 600, "ok")]
        status, output, _, counts = run(made, tests, "--threads", "1", "--limit", "5", "e2e/mesh")
        assert status != 0 and counts == [0, 1], counts
        assert "not ended within 5 s: e2e/mesh" in output and "test b ... " in output, output
        assert not made.processes(), made.processes()


def test_slices_have_every_test_once_and_split_no_module():
    with checkout() as made:
        tests = [(f"{module}::{number}", 0, "ok") for module in "abcdefg" for number in range(ord(module) % 5 + 1)]
        seen = []
        for part in ("1/3", "2/3", "3/3"):
            _, output, times, _ = run(made, tests, "--slice", part, "e2e/mesh")
            modules = {name.split("::")[0] for name in times}
            assert not modules & {name.split("::")[0] for name in seen}, (modules, seen)
            assert 3 <= len(times) <= 10, (part, output)
            seen += times
        assert sorted(seen) == sorted(name for name, _, _ in tests), seen


def test_programs_get_the_environment_of_their_tier():
    with checkout() as made:
        made.program("e2e", "mesh", [("a", 0, "ok")])
        path = made.tests["e2e/mesh"]["path"]
        script = made.read(path)
        made.script(path, script.replace("exec", 'echo "with $KUBECONFIG and $CARGO_PKG_NAME"; exec'))
        made.run("e2e/test-programs", "build", "target/r", "--test=mesh", KUBECONFIG="of the build")
        _, output = made.run("e2e/test-programs", "run", "target/r", "mesh", "e2e/mesh", KUBECONFIG="of the tier")
        assert "with of the tier and e2e" in output, output
