"""A run that is interrupted ends every process that it began, within ten seconds.

Each test starts a run whose stubs hang at one moment, with processes that left their
process group or ignore SIGTERM, and ends it as a person, a shell or CI would.
"""

import os
import re
import signal
import subprocess
import time

from checkout import Checkout

SECONDS_TO_END = 10
SECONDS_TO_HANG = 60


def ended(command, moment, number, to_group=False, **more):
    """Returns status and output of the run, when nothing of it is left."""
    checkout = Checkout()
    output = open(checkout.path("output"), "w+b")
    try:
        process = subprocess.Popen(
            command,
            cwd=checkout.root,
            env=checkout.environment(FAKE_HANG=moment, **more),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        limit = time.monotonic() + SECONDS_TO_HANG
        while not os.path.exists(checkout.path("hanging")):
            assert process.poll() is None and time.monotonic() < limit, f"never came to {moment}: {text(output)}"
            time.sleep(0.05)
        # The processes of the stub are there now; so are at least these five and the run.
        assert len(checkout.processes()) >= 6, checkout.processes()
        if to_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        limit = time.monotonic() + SECONDS_TO_END
        while process.poll() is None or checkout.processes():
            assert time.monotonic() < limit, f"left after {SECONDS_TO_END} s: {checkout.processes()}; {text(output)}"
            time.sleep(0.2)
        return process.returncode, text(output)
    finally:
        for pid in checkout.processes():
            os.kill(pid, signal.SIGKILL)
        output.close()
        checkout.remove()


def text(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def test_make_test_ends_while_it_compiles():
    _, output = ended(["make", "test"], "compile", signal.SIGTERM)
    assert "ended by SIGTERM" in output, output
    assert "FAILED: the run was ended by a signal" in output, output


def test_make_test_ends_while_programs_run():
    ended(["make", "test"], "program", signal.SIGTERM)


def test_make_test_ends_while_the_cluster_starts():
    ended(["make", "test"], "up", signal.SIGTERM)


def test_ctrl_c_ends_make_test_while_it_compiles():
    ended(["make", "test"], "compile", signal.SIGINT, to_group=True)


def test_ctrl_c_ends_make_test_while_programs_run():
    ended(["make", "test"], "program", signal.SIGINT, to_group=True)


def test_ctrl_c_ends_make_test_while_the_cluster_starts():
    ended(["make", "test"], "up", signal.SIGINT, to_group=True)


def test_run_ends_when_its_make_is_killed_outright():
    ended(["make", "test"], "program", signal.SIGKILL)


def test_timeout_ends_make_test():
    status, _ = ended(["timeout", "600", "make", "test"], "program", signal.SIGTERM)
    assert status in (124, -signal.SIGTERM), status


def test_make_test_all_ends_while_programs_run():
    ended(["make", "test-all"], "program", signal.SIGTERM)


def test_make_demo_ends_while_the_cluster_starts():
    ended(["make", "demo"], "up", signal.SIGTERM)


def test_ctrl_c_ends_make_demo():
    ended(["make", "demo"], "up", signal.SIGINT, to_group=True)


def test_benchmark_ends_while_it_compiles():
    ended(["make", "bench-quick"], "compile", signal.SIGTERM)


def test_ctrl_c_ends_a_benchmark():
    ended(["make", "bench-quick"], "compile", signal.SIGINT, to_group=True)


def test_ci_run_reports_and_ends_when_it_is_ended():
    status, output = ended([".ci/run"], "program", signal.SIGTERM)
    assert status == 143, status
    assert re.fullmatch(r"\d+ passed, 1 failed", output.splitlines()[-1]), output
    assert "the slowest tests:" in output or "compiling" in output, output


def test_supervisor_spares_the_cluster():
    """Its daemons are in a control group, which only root can make."""
    group = f"weft-test-{os.getpid()}"
    parent = "/sys/fs/cgroup/pids" if os.path.isdir("/sys/fs/cgroup/pids") else "/sys/fs/cgroup"
    folder = os.path.join(parent, group)
    try:
        os.mkdir(folder)
    except OSError:
        return
    checkout = Checkout()
    try:
        script = f'sleep 600 & (echo $BASHPID > {folder}/cgroup.procs; exec setsid sleep 601 >/dev/null 2>&1) & sleep 0.5'
        status, output = checkout.run("e2e/supervise", "bash", "-c", script, WEFT_CGROUP=group)
        assert status == 0 and "ending what was left running: sleep" in output, (status, output)
        assert [line.split() for line in checkout.processes().values()] == [["sleep", "601"]], checkout.processes()
    finally:
        for pid in checkout.processes():
            os.kill(pid, signal.SIGKILL)
        while checkout.processes():
            time.sleep(0.02)
        checkout.remove()
        for _ in range(50):
            try:
                os.rmdir(folder)
                break
            except OSError:
                time.sleep(0.1)


def test_supervisor_has_the_status_of_its_command():
    checkout = Checkout()
    try:
        for script, expected in (("exit 3", 3), ("kill -KILL $$", 137), ("true", 0)):
            status, output = checkout.run("e2e/supervise", "bash", "-c", script)
            assert (status, output) == (expected, ""), (script, status, output)
    finally:
        checkout.remove()
