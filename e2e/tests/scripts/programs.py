"""Times that e2e/test-programs derives, and what it finds wrong with a program."""

import json

from tiers import checkout


def run(made, tests, *options, status=None):
    made.program("e2e", "mesh", tests, status)
    built, output = made.run("e2e/test-programs", "build", "target/r", "--test=mesh")
    assert built == 0, output
    ended, output = made.run("e2e/test-programs", "run", "target/r", "mesh", *options)
    times = {one["test"]: one["seconds"] for one in json.loads(made.read("target/r/mesh.json"))}
    counts = made.read("target/r/mesh.counts").split()
    return ended, output, times, [int(count) for count in counts]


def near(times, expected):
    assert set(times) == set(expected), times
    for name, seconds in expected.items():
        assert abs(times[name] - seconds) < 0.25, (name, times)


def test_times_of_tests_that_run_at_once_are_their_own():
    with checkout() as made:
        tests = [("a", 1.0, "ok"), ("b", 0.5, "ok"), ("c", 1.5, "ok"), ("d", 0.5, "ok")]
        status, output, times, counts = run(made, tests, "--threads", "2", "e2e/mesh")
        assert status == 0 and counts == [4, 0], output
        near(times, {"a": 1.0, "b": 0.5, "c": 1.5, "d": 0.5})


def test_times_of_tests_one_after_another_are_their_own():
    with checkout() as made:
        tests = [("a", 0.6, "ok"), ("b", 0.0, "ok"), ("c", 1.0, "FAILED")]
        status, output, times, counts = run(made, tests, "--threads", "1", "e2e/mesh")
        assert status != 0 and counts == [2, 1], output
        near(times, {"a": 0.6, "b": 0.0, "c": 1.0})


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
        status, output, _, counts = run(made, tests, "--threads", "1", "--limit", "2", "e2e/mesh")
        assert status != 0 and counts == [0, 1], counts
        assert "not ended within 2 s: e2e/mesh" in output and "test b ... " in output, output
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
