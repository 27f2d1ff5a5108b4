"""What a job asks of the network where there is none: nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# A namespace whose only way out is a cable to nowhere: whatever is sent to another machine, or asked of a name server,
# is counted on it.
NOWHERE = """\
set -eu
for scope in all default; do echo 1 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6; done 2> /dev/null || true
mount --bind resolv.conf /etc/resolv.conf
ip link set lo up
ip link add out type veth peer name nowhere
ip link set nowhere up; ip link set out up
ip addr add 192.0.2.1/24 dev out
ip route add default via 192.0.2.2
sent() { awk '/^ *out:/ {sub(/.*:/, ""); print $10}' /proc/net/dev; }
before=$(sent)
hpcft submit --preset quickstart --variant lora --max-steps 2 --eval-samples 2 --name first --wait
hpcft evaluate first --name scores --wait
hpcft bench scores --queries 2 --name bench --wait
echo "packets: $(($(sent) - before))"
python -c 'import urllib.request; urllib.request.urlopen("http://hub.example", timeout=3)' 2> /dev/null || true
echo "packets of one question: $(($(sent) - before))"
"""


def can_cut_off() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-rnm", "ip", "link", "add", "out", "type", "veth", "peer", "name", "nowhere"], capture_output=True
    )
    return tried.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_cut_off(), reason="this needs a network namespace of its own")
def test_r11_train_evaluate_and_bench_send_nothing_where_there_is_no_network(
    project: Path, small_quickstart: Path
) -> None:
    (project / "offline.yaml").write_text("scheduler: local\ninternet: false\n")
    (project / "resolv.conf").write_text("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "WANDB_"))}
    own = {"HPCFT_CLUSTER": "offline.yaml", "HPCFT_CACHE": str(small_quickstart), "OMP_NUM_THREADS": "1"}
    # A key, so that wandb would have something to send.
    own |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "WANDB_API_KEY": "k" * 40}
    done = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", NOWHERE], cwd=project, env=kept | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith("packets"))
    assert int(told["packets of one question"]) > 0, "the counter counts"
    assert int(told["packets"]) == 0
