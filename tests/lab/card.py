# SPDX-License-Identifier: MIT
"""A guest with a network card, which its host reaches over a bridge.

On one host, source and target have a tap each, both on one bridge, and the host
is on it too. So after each move the bridge has to learn that the guest is behind
another port.
"""

import re

from guest import ANSWER_S, CountingGuest
from host import LabError

# A network for documentation (RFC 5737) of its own: place.py has another.
HOST_ADDRESS = "198.51.100.1"
GUEST_ADDRESS = "198.51.100.2"
INTERVAL_S = 0.2
# What a move may lose: what came in the pause, and on either side of it.
LOST = 3
ARP_S = 60

COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
SETUP = f"""set -e
brctl addbr lab0
echo 0 >/sys/class/net/lab0/bridge/forward_delay
for tap in card0 card1; do
	tunctl -t $tap
	brctl addif lab0 $tap
	ip link set $tap up
done
ip addr add {HOST_ADDRESS}/24 dev lab0
ip link set lab0 up"""


class CardGuest(CountingGuest):
    """A counting guest that answers pings meanwhile."""

    def boot(self):
        """Makes bridge and taps, then boots, and waits for an answer."""
        status, said, errors = self.host.run(["sh", "-c", SETUP], ANSWER_S)
        if status:
            raise LabError(f"bridge and taps: {said}{errors}".strip())
        super().boot()
        self._reached("after it has booted")

    def _reached(self, when):
        """Large frames too, and all of them."""
        status, said, errors = self.host.run(
            ["ping", "-c", "5", "-s", "1400", "-W", ARP_S, GUEST_ADDRESS],
            2 * ARP_S)
        if status or " 0% packet loss" not in said:
            raise LabError(f"it can't be reached {when}: {said}{errors}")

    def answer_and_move(self, times, progress):
        """Moves the guest while it is pinged; few pings may stay unanswered."""
        ping = self.host.spawn(["ping", "-i", INTERVAL_S, GUEST_ADDRESS])
        self.count_and_move(times, progress)
        ping.signal(2)
        ping.wait(ANSWER_S)
        said = (ping.output() + ping.errors).decode(errors="replace")
        counts = COUNTS.search(said)
        if not counts:
            raise LabError(f"ping said no sums: {said[-200:]!r}")
        sent, came = map(int, counts.groups())
        if sent - came > times * LOST:
            raise LabError(f"{sent - came} of {sent} pings were lost in "
                           f"{times} moves")
        self._reached("after it was moved")
