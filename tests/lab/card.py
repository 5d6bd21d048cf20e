# SPDX-License-Identifier: MIT
"""A guest with a network card, and a client that it answers while it moves.

    guest ── tap ── bridge ── card of a host ──┐
                                               ├── switch ── client
             tap ── bridge ── card of another ─┘

Bridges and taps are what tools/godwit-bridge makes. The client, the third of a
site's hosts (place.py), pings the guest, sends it a stream and gets one, and
holds a session, as of ssh: one line, one answer. What comes to a guest that is
paused is lost, so some pings are; a connection sends again what is lost.

Where the guest is now, switch and bridges only know of what comes from it. So
once it moves while its card is down and it can't say anything: then what the
switch learns it has learnt from godwit.
"""

import re

from client import SESSION_PORT, STREAM_PORT, Pings, Session, Stream
from guest import ANSWER_S, CountingGuest
from host import LabError
from place import KEEPER, NETWORK
from vmm import CARD_MAC

GUEST_ADDRESS = f"{NETWORK}.9"
BRIDGE = "br0"
TAPS = ("card0", "card1")
# As the hosts' cards have it.
MTU = 9000
ARP_S = 60
HEARD = re.compile(r"heard (\d+)")


class CardGuest(CountingGuest):
    """A counting guest that a client reaches; site: where all of them are."""

    def __init__(self, vmms, spec, name, site):
        super().__init__(vmms, spec, name)
        self._network = site.network
        self._client = site.keeper
        self._clients = []

    def boot(self):
        """Makes bridges and taps, then boots, and waits for an answer."""
        for vmm in self.vmms:
            status, said, errors = vmm.host.run(
                ["/tools/godwit-bridge", "up", BRIDGE, *TAPS, "--mtu", MTU,
                 "--join", "eth0"], ANSWER_S)
            if status:
                raise LabError(f"bridge and taps: {said}{errors}".strip())
        super().boot()
        self._reached("after it has booted")

    def _reached(self, when):
        """Large frames too, and all of them."""
        status, said, errors = self._client.run(
            ["ping", "-c", "5", "-s", "1400", "-W", ARP_S, GUEST_ADDRESS],
            2 * ARP_S)
        if status or " 0% packet loss" not in said:
            raise LabError(f"it can't be reached {when}: {said}{errors}")

    def _place(self):
        return self._network.place_of(bytes.fromhex(CARD_MAC.replace(":", "")))

    def move_silent(self, progress):
        """Moves it while it can't speak; the network learns all the same."""
        self._ask("silence", "silent")
        before = self._place()
        if before in (None, KEEPER):
            raise LabError(f"the guest is on a host, but the switch has "
                           f"learnt {before}")
        self._say("count")
        self._prove_alive()
        self._move(1, progress)
        self._wait(lambda: self._place() == 1 - before, ANSWER_S,
                   "the switch to learn where the guest is")
        self._ask("enough", "counted")
        self._ask("speak", "speaking")
        self._reached("after it was moved in silence")

    def answer_and_move(self, times, progress, tell):
        """Moves it while it is pinged, and has a session and a stream."""
        self._ask(f"serve {SESSION_PORT} {STREAM_PORT}", "serving")
        connections = [kind(self._client, GUEST_ADDRESS)
                       for kind in (Session, Stream)]
        self._clients += connections
        self._say("count")
        for number in range(times):
            for connection in connections:
                connection.prove_alive()
            pings = Pings(self._client, GUEST_ADDRESS)
            self._clients.append(pings)
            self._move(1, lambda _: progress(number + 1))
            pings.prove_alive()
            loss = pings.judge(self.moves[-1].downtime_ms)
            tell(f"{loss.lost} pings lost, {loss.explained} explained")
        for connection in connections:
            connection.prove_alive()
        self._end_session(*connections)
        self._ask("enough", "counted")
        self._ask("check", "checked")
        self._reached("after it was moved")

    def save(self, directory):
        """Writes what the clients said, too."""
        super().save(directory)
        for number, client in enumerate(self._clients):
            client.save(directory / self.name / f"client-{number}")

    def _end_session(self, session, stream):
        """The guest has heard all lines that were answered, and one at most
        whose answer was on its way."""
        answers = len(self.transcript.answers)
        stream.end()
        session.end()

        def heard():
            found = map(HEARD.fullmatch, self.transcript.answers[answers:])
            return [int(match[1]) for match in found if match]

        self._wait(heard, ANSWER_S, "the end of the session")
        if heard()[0] - session.lines not in (0, 1):
            raise LabError(f"the guest heard {heard()[0]} lines, and "
                           f"{session.lines} were answered")
