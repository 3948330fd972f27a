"""What e2e/run makes of its tiers, and what it fails for."""

import contextlib
import os
import shutil
import subprocess

from checkout import Checkout


@contextlib.contextmanager
def checkout():
    made = Checkout()
    try:
        yield made
    finally:
        made.remove()


def last_line(output):
    """The last one, but for what make says of its status."""
    return [line for line in output.splitlines() if not line.startswith("make: ")][-1]


def test_make_test_runs_every_tier_and_ends_with_table_and_count():
    with checkout() as made:
        status, output = made.run("make", "test")
        assert status == 0, output
        # scripts, two programs of in-process, netns, interop, dashboard, prometheus, mesh, alone
        assert last_line(output) == "9 passed, 0 failed", output
        assert "the slowest tests:" in output and "compiling: tests" in output, output
        calls = made.read("calls").splitlines()
        assert all("--exclude bench" in call for call in calls if call.startswith("cargo test")), calls
        assert calls.count("up") == 1, calls


def test_listed_tests_alone_run_in_the_cluster():
    with checkout() as made:
        made.program("e2e", "mesh", [("a::passes", 0, "ok"), ("b::fails", 0, "FAILED")])
        status, output = made.run("make", "test")
        assert status == 0, output
        status, output = made.run("e2e/run", "mesh")
        assert status != 0 and last_line(output) == "1 passed, 1 failed", output


def test_listed_test_that_does_not_exist_fails():
    with checkout() as made:
        made.write("e2e/landing-tests", made.read("e2e/landing-tests") + "mesh a::was_renamed\n")
        status, output = made.run("make", "test")
        assert status != 0 and last_line(output) == "9 passed, 1 failed", output
        assert "lists `a::was_renamed`, and e2e/mesh has no such test" in output, output


def test_claim_without_a_test_that_ran_fails():
    with checkout() as made:
        made.run("git", "init", "-q")
        made.write("proxy/tests/path/calls.rs", "// Claims: calls-1\nfn passes() {}\n// Claims: calls-2\nfn gone() {}\n")
        # The tier mesh runs in part, and claims of its tests are passed over.
        made.write("e2e/tests/mesh/calls.rs", "// Claims: calls-3\nfn elsewhere() {}\n")
        made.run("git", "add", "proxy/tests", "e2e/tests")
        status, output = made.run("make", "test")
        assert status != 0 and last_line(output) == "9 passed, 1 failed", output
        assert "calls-2: none of its tests ran: proxy/tests/path/calls.rs: gone" in output, output
        assert "calls-1" not in output and "calls-3" not in output, output


def test_ignored_test_fails():
    with checkout() as made:
        made.program("e2e", "prometheus", [("a::passes", 0, "ok"), ("b::left", 0, "ignored")])
        status, output = made.run("e2e/run", "prometheus")
        assert status != 0 and "e2e/prometheus ignored 1 tests" in output, output


def test_tier_without_a_test_fails():
    with checkout() as made:
        made.program("e2e", "prometheus", [])
        status, output = made.run("e2e/run", "prometheus")
        assert status != 0 and "there is no test to run" in output, output


def test_failed_test_is_named_before_the_last_line():
    with checkout() as made:
        made.program("proxy", "path", [("a::passes", 0, "ok"), ("b::fails", 0, "FAILED")])
        status, output = made.run("make", "test", SUMMARY_FILE=made.path("summary"))
        assert status != 0, output
        summary = made.read("summary").splitlines()
        assert summary[-1] == "9 passed, 1 failed", summary
        assert any("test b::fails ... FAILED" in line for line in summary), summary


def test_tests_that_do_not_compile_fail_the_run():
    with checkout() as made:
        status, output = made.run("make", "test", FAKE_COMPILE="error[E0432]: unresolved import")
        assert status != 0 and last_line(output) == "0 passed, 1 failed", output
        assert "error[E0432]" in output, output


def test_dependency_that_compiles_twice_fails_the_run():
    with checkout() as made:
        status, output = made.run("make", "test", FAKE_BUILD="   Compiling tokio v1.53.0\n   Compiling e2e v0.1.0 (/x)")
        assert status != 0 and "with other features: tokio v1.53.0." in output, output
        # The tests of one tier do not need all dependencies of the programs.
        status, output = made.run("e2e/run", "mesh", FAKE_BUILD="   Compiling tokio v1.53.0")
        assert status == 0, output


def test_cluster_that_does_not_start_fails_its_tiers():
    with checkout() as made:
        status, output = made.run("make", "test", FAKE_UP="1")
        assert status != 0 and last_line(output) == "7 passed, 2 failed", output


def test_all_goes_on_after_the_parts_that_passed():
    if not shutil.which("git"):
        return
    with checkout() as made:
        bench = [("a::passes", 0, "ok")]
        made.program("bench", "weft_bench", bench)
        two = [("a::passes", 0, "ok"), ("b::passes", 0, "ok")]
        made.program("e2e", "mesh", two)
        made.program("e2e", "alone", [("a::passes", 0, "ok"), ("b::fails", 0, "FAILED")])
        made.run("git", "init", "-q")
        status, output = made.run("make", "test-all")
        assert status != 0 and last_line(output) == "13 passed, 1 failed", output
        assert "tier mesh-1/2: 1 passed" in output and "tier bench: 1 passed" in output, output

        # It failed for what is no file of the checkout.
        made.program("e2e", "alone", two)
        status, output = made.run("make", "test-all")
        assert status == 0 and last_line(output) == "14 passed, 0 failed", output
        assert "part mesh-1/2: 1 passed" in output and "tier alone-2/2: 1 passed" in output, output
        assert "tier mesh" not in output and "tier alone-1" not in output, output

        status, output = made.run("make", "test-all", "PARTS=mesh alone-1")
        assert status == 0 and last_line(output) == "3 passed, 0 failed", output

        made.write("new", "file")
        status, output = made.run("make", "test-all")
        assert status == 0 and "skipped" not in output, output


def test_image_build_fails_when_it_has_to_compile():
    with checkout() as made:
        build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../images/build")
        with open(build, encoding="utf-8") as file:
            made.script("e2e/images/build", file.read())
        status, output = made.run("e2e/images/build", WEFT_ALL_COMPILED="1")
        assert status != 0 and "had not compiled: injector v0.1.0." in output, output
        # Without it, it goes on to pack the programs, which this checkout has none of.
        status, output = made.run("e2e/images/build")
        assert status != 0 and "cargo made no" in output, output


def test_ci_run_ends_with_the_table_and_the_count():
    with checkout() as made:
        status, output = made.run(".ci/run")
        assert status == 0 and output.splitlines()[-1] == "9 passed, 0 failed", output
        assert "\nthe slowest tests:\n" in output, output
        # Its cluster is gone afterwards.
        assert made.read("calls").splitlines()[-1] == "down", made.read("calls")


def test_every_claim_has_a_test():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
    checked = subprocess.run([os.path.join(root, "e2e/claims"), "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_breaks_find_their_text_and_their_tests():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
    checked = subprocess.run(
        [os.path.join(root, "e2e/breaks/run"), "check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
