"""Which addresses Services of type LoadBalancer get in the local cluster."""

import os
import shutil
import signal
import subprocess
import time

from checkout import ROOT
from tiers import checkout

SCRIPT = "e2e/cluster/load-balancers"
# In seconds. The script never ends by itself.
SOON = 20
# uid, namespace, name, type, address. `shop/a` changes before its address is seen, and is then
# deleted and made again; `shop/gone` was deleted meanwhile.
CHANGES = """\
1 default kubernetes ClusterIP
2 shop a LoadBalancer
2 shop a LoadBalancer
3 shop old LoadBalancer 192.0.2.7
4 shop gone LoadBalancer
2 shop a LoadBalancer 198.18.0.2
5 shop a LoadBalancer
6 shop last LoadBalancer
"""
KUBECTL = """\
#!/bin/bash
case " $* " in
  *" --watch "*) [ ! -e {watched} ] || exec sleep 60; touch {watched}; cat {changes} ;;
  *" patch service gone "* | *" get service gone "*) exit 1 ;;
  *" patch "*) echo "$*" >> {patched} ;;
esac
"""


def test_each_service_gets_one_address_of_its_own():
    with checkout() as made:
        shutil.copy2(os.path.join(ROOT, SCRIPT), made.path(SCRIPT))
        made.write("changes", CHANGES)
        places = {name: made.path(name) for name in ("changes", "watched", "patched")}
        made.script("target/tools/bin/kubectl", KUBECTL.format(**places))
        running = subprocess.Popen(
            [made.path(SCRIPT)], env=made.environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            ended = time.monotonic() + SOON
            while " last " not in (made.read("patched") if os.path.exists(places["patched"]) else ""):
                assert running.poll() is None and time.monotonic() < ended, "an address is missing"
                time.sleep(0.1)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        given = []
        for line in made.read("patched").splitlines():
            words = line.split()
            name, address = words[words.index("service") + 1], line.split('"ip": "')[1].split('"')[0]
            given.append((name, address))
        assert [name for name, _ in given] == ["a", "a", "last"], given
        addresses = {address for _, address in given}
        assert len(addresses) == 3 and all(one.startswith("198.18.0.") for one in addresses), given
