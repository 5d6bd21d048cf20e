# SPDX-License-Identifier: MIT
"""A guest with a user-mode network, that panics in the end.

It gets its address by DHCP, calls a server on its host, and is called through a
port of its host. In both connections it sends back what it hears. They are the
host's and end with a move; new ones work where the guest is then.

Where it panics its listener has it paused, and it is moved so. Let go on, it
does what its kernel was told to do after a panic: it boots again. The next one
is its end.
"""

import time

from guest import ANSWER_S, CountingGuest
from host import LabError
from vmm import CRASHED, END_S, FORWARDED_PORT, START_S

# What libslirp gives the first that asks, and has itself.
ADDRESS = "10.0.2.15"
SERVER_PORT = 7000
# In /proc/net/tcp and tcp6, where 0A is TCP_LISTEN.
LISTENS = f":{SERVER_PORT:04X} [0:]* 0A "


class RootlessGuest(CountingGuest):
    """A counting guest that has connections to and from its host."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._words = 0

    def boot(self):
        """Boots, gets an address, and is called."""
        super().boot()
        self._ask("lease", f"leased {ADDRESS}")
        self._say(f"mirror {FORWARDED_PORT}")

    def _returns(self, connection):
        """Whether the guest sends a line back; else there is no guest there."""
        self._words += 1
        line = f"line {self._words}\n".encode()
        connection.write(line)
        self.host.wait(lambda: line in connection.output() or connection.over,
                       ANSWER_S, f"a line to come back of {connection.what}")
        return line in connection.output()

    def _soon(self, attempt, what):
        """What an attempt returns, as soon as that is something."""
        end = time.monotonic() + ANSWER_S
        while not (result := attempt()):
            if time.monotonic() > end:
                raise LabError(f"waited {ANSWER_S} s for {what}")
        return result

    def _called(self):
        """A connection to the guest, as soon as there is one."""
        def call():
            channel = self.host.spawn(["nc", "127.0.0.1", FORWARDED_PORT],
                                      "a call to the guest")
            return self._returns(channel) and channel

        return self._soon(call, "the guest to answer a call")

    def _calls(self):
        """A connection that the guest makes."""
        def listens():
            return not self.host.run(["grep", "-sq", LISTENS, "/proc/net/tcp",
                                      "/proc/net/tcp6"], ANSWER_S)[0]

        server = self.host.spawn(["nc", "-l", "-p", SERVER_PORT],
                                 "a call from the guest")
        self._soon(listens, "the guest's server to listen")
        self._say(f"reach {SERVER_PORT}")
        if not self._returns(server):
            raise LabError(f"the guest hangs up: {server.errors.decode()}")
        return server

    def connect_and_move(self, progress):
        """Moves it while it counts, with a connection each way."""
        self._say("count")
        connections = [self._called(), self._calls()]
        self.spec = self.spec._replace(on_panic="pause")
        report = self._move(1, progress)
        if report.closed != len(connections):
            raise LabError(f"{report.closed} connections ended, not "
                           f"{len(connections)}")
        for connection in connections:
            connection.wait(END_S)
        self._ask("lease", f"leased {ADDRESS}")
        for connection in (self._called(), self._calls()):
            connection.signal(9)
        self._ask("enough", "counted")
        self._ask("check", "checked")

    def _panic(self, action):
        """Has it panic; what its monitor says then, which is left to ask."""
        qmp = self.machine.vmm.monitor(self.machine)
        with self.host.changed:
            self.transcript.panicking()
        self._say("panic")
        qmp.event("GUEST_PANICKED", START_S,
                  lambda data: data["action"] == action)
        return qmp

    def _is_panicked(self):
        machine = self.machine
        status = machine.vmm.status(machine.name)["status"]
        if status != "guest-panicked":
            raise LabError(f"a guest that panicked is {status}")

    def panic_and_move(self, progress):
        """Panics, is paused, and moves as it is; then it boots again."""
        status = self._panic("pause").command("query-status")
        if status["running"]:
            raise LabError(f"a guest that panicked: {status}")
        self._is_panicked()
        boots = len(self.transcript.boots)
        self.spec = self.spec._replace(on_panic=None)
        self._move(1, progress)
        self._booted(boots + 1)
        self._ask("check", "checked")

    def _prove_alive(self):
        """It counts; or it has panicked, and stays so until it is let go on."""
        if not self.transcript.panics:
            super()._prove_alive()
            return
        self._is_panicked()
        self.machine.vmm.resume(self.machine)

    def panic_for_good(self):
        """Panics, and its VMM ends and says so."""
        self._panic("poweroff")
        machine = self.machine
        status = machine.console.wait(END_S)
        if status != CRASHED or "panicked" not in machine.complaint():
            raise LabError(f"{machine.name} exited with {status}: "
                           f"{machine.complaint()}")
