"""Which profile the proxy is built by."""

from checkout import TRIPLE
from tiers import checkout

FILES = ("weft-proxy.profdata", "weft-proxy.order")
BUILT = f"target/profiled/{TRIPLE}/release/weft-proxy"


def built(made, **variables):
    """Status, output, and what cargo was called with."""
    made.write(BUILT, "program")
    status, output = made.run("proxy/profile/build", **variables)
    calls = made.read("calls").splitlines()
    return status, output, calls[-1]


def fitting(made):
    folder = made.run("bash", "-c", ". proxy/profile/cache; profile_folder")[1].strip()
    for name in FILES:
        made.write(f"{folder}/{name}", name)
    made.write(f"{folder}/commit", "v0.1.0")
    return folder


def test_proxy_without_a_profile_is_built_and_reported():
    with checkout() as made:
        status, output, call = built(made)
        assert status == 0 and "without a profile" in output, output
        assert "profile-use" not in call, call


def test_proxy_is_built_by_the_toolchains_profile():
    with checkout() as made:
        fitting(made)
        status, output, call = built(made)
        assert status == 0 and "made at commit v0.1.0" in output, output
        assert "profile-use=" in call and "--symbol-ordering-file=" in call, call
        made.script("stubs/rustc", "#!/bin/sh\necho rustc 2\n")
        assert "profile-use" not in built(made)[2]


def test_named_profile_wins_and_must_be_whole():
    with checkout() as made:
        fitting(made)
        assert "profile-use" not in built(made, WEFT_PROXY_PROFILE="none")[2]
        for name in FILES:
            status, output, _ = built(made, WEFT_PROXY_PROFILE=made.path("published"))
            assert status != 0 and f"published/{name} is missing" in output, output
            made.write(f"published/{name}", name)
        assert "profile-use=" in built(made, WEFT_PROXY_PROFILE=made.path("published"))[2]
