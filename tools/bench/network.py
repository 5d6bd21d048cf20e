# SPDX-License-Identifier: MIT
"""A network of the bench's own, for guests with a card: taps in a namespace."""

import os
import subprocess

from vmm import Failed, Place, in_child

# The bridge sends what comes from its tap back to it, without any program that
# would take time of its own. IPv6 would have the kernel say things by itself.
SCRIPT = """
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
ip link add bridge0 type bridge
for tap in tap0 tap1 mirror0; do
        ip tuntap add $tap mode tap vnet_hdr
done
ip link set mirror0 master bridge0
ip link set mirror0 type bridge_slave hairpin on
ip link set tap0 up
ip link set tap1 up
ip link set mirror0 up
ip link set bridge0 up
for filter in /proc/sys/net/bridge/bridge-nf-call-*; do
        [ ! -e "$filter" ] || echo 0 >"$filter"
done
echo ready
exec cat
"""


def missing():
    """Returns what is in the way of making one, or None."""
    if os.geteuid():
        return "taps are root's to make: run this as root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun: load the module (modprobe tun)"
    return None


class Network:
    """Gone with its process, which ends when we do, however that is.

    taps: two places to be, each with a tap to nowhere; mirror: one where all
    comes back.
    """

    def __init__(self):
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-euc", SCRIPT], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=in_child)
        if self.process.stdout.readline() != "ready\n":
            why = self.process.stderr.read().strip()
            self.close()
            raise Failed(f"a network namespace with taps: {why}; "
                         "'tools/setup bench' installs what it needs")
        self.namespace = f"/proc/{self.process.pid}/ns/net"
        self.taps = (self._place("tap0"), self._place("tap1"))
        self.mirror = self._place("mirror0")

    def _place(self, tap):
        return Place("127.0.0.1", self.namespace, tap)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
