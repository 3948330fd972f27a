"""Which parts e2e/drill/run runs, and what it says of those that it does not."""

from tiers import checkout, last_line

# Each drill passes, but for one whose name the file `fails` holds.
CARGO = r"""#!/bin/bash
[[ "$*" != *--no-run* ]] || exit 0
echo "${@: -1}" >> "$FAKE_ROOT/calls"
if [[ "${@: -1}" == *"$(cat "$FAKE_ROOT/cache/fails")"* ]]; then
  echo "test result: FAILED. 0 passed; 1 failed; 0 ignored"
  exit 101
fi
echo "3 of 40 requests lost"
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"""


def drill(made, *parts, fails="none"):
    made.write("cache/fails", fails)
    made.write("calls", "")
    status, output = made.run("e2e/drill/run", *parts)
    return status, output, [call for call in made.read("calls").splitlines() if "::" in call]


def prepared(made):
    made.script("stubs/cargo", CARGO)
    made.run("git", "init", "-q")


def test_drill_goes_on_at_the_part_that_failed():
    with checkout() as made:
        prepared(made)
        status, output, calls = drill(made, fails="node_lost")
        assert status != 0 and last_line(output) == "5 passed, 1 failed", output
        assert "FAILED: node: machines::node_lost" in output and "[leader] 3 of 40 requests lost" in output, output
        assert len(calls) == 6, calls
        status, output, calls = drill(made)
        assert status == 0 and last_line(output) == "6 passed, 0 failed", output
        assert calls == ["machines::node_lost_in_rotation_is_back_by_itself"], calls
        status, output, calls = drill(made, "leader", "api")
        assert status == 0 and len(calls) == 2, (output, calls)


def test_drill_without_cert_manager_says_so():
    with checkout() as made:
        prepared(made)
        status, output, calls = drill(made, "issuer")
        assert status == 0 and calls == [], (output, calls)
        assert "\nNOT TRIED: issuer: cert-manager does not build here" in output, output
        status, output, _ = drill(made, "nothing")
        assert status != 0 and "no part is called nothing" in output, output
