# SPDX-License-Identifier: MIT
"""Emulated hosts on one network, with their disks on another of them.

    one of two hosts ──┐
                       ├── switch (network.py) ── keeper
    the other ─────────┘

The keeper serves the store by NFS, and the image in it by NBD when asked to.
The hosts mount it at the same place. Each host can be cut off, killed, and
started again; the keeper lives on.
"""

import threading

from host import Host, LabError, store_drive
from network import Switch

# README's, which is kept for documentation (RFC 5737).
NETWORK = "192.0.2"
NBD_PORT = 10809
NBD_DEVICE = "/dev/nbd0"
COMMAND_S = 60
# The third host, after the two that guests are on.
KEEPER = 2
KEEPER_ADDRESS = f"{NETWORK}.{KEEPER + 1}"


class Site:
    """A keeper and two hosts; all share one condition."""

    def __init__(self, boots, store, logs, boot_s):
        """boots: of the two hosts, which may differ; the keeper is as the first.
        """
        self.changed = threading.Condition()
        self.network = Switch(self.changed)
        self.hosts = [None, None]
        self._boots = boots
        self._logs = logs
        self._boot_s = boot_s
        self._starts = 0
        self._serves_block = False
        self.keeper = self._host(
            KEEPER, "keeper", "lab.store lab.serve", store_drive(store))

    def _host(self, number, log, words, devices=()):
        """An emulated host with a card in the network."""
        boot = self._boots[number if number < len(self._boots) else 0]
        address = f"{NETWORK}.{number + 1}"
        with self.network.connect(number) as link:
            host = Host(
                boot, self._logs / log,
                [*devices, "-netdev", "stream,id=net,server=off,addr.type=fd,"
                 f"addr.str={link.fileno()}", "-device",
                 "virtio-net-pci,netdev=net,romfile=,"
                 f"mac=52:54:00:77:00:{number + 1:02x}"],
                f"{words} lab.address={address}", self.changed,
                [link.fileno()])
        host.address = address
        return host

    def wait_ready(self):
        """Waits for the keeper, then starts the hosts and waits for them."""
        self.keeper.wait_ready(self._boot_s)
        for number in range(len(self.hosts)):
            self.start(number)
        for host in self.hosts:
            host.wait_ready(self._boot_s)

    def start(self, number):
        """Starts a host; its disks are where they were. It is not ready yet."""
        self._starts += 1
        self.hosts[number] = self._host(
            number, f"site-{number}-{self._starts}",
            f"lab.mount={KEEPER_ADDRESS}")

    def kill(self, number):
        """Cuts a host's power; start() gives it back."""
        self.hosts[number].close()

    def back(self, number):
        """Waits for a host that was started again, with all its disks."""
        host = self.hosts[number]
        host.wait_ready(self._boot_s)
        if self._serves_block:
            self.attach_block(number)
        return host

    def serve_block(self, path):
        """Exports an image of the keeper's as a block device."""
        # It forks once it listens, and lives as long as the keeper.
        self._must(self.keeper, [
            "qemu-nbd", "--fork", "--persistent", "--shared=0", "--format=raw",
            "--cache=writeback", "--discard=unmap", "--export-name=disk",
            f"--bind={KEEPER_ADDRESS}", f"--port={NBD_PORT}",
            "--pid-file=/run/nbd.pid", path])
        self._serves_block = True

    def attach_block(self, number):
        """Gives a host the block device that is served; its path there."""
        self._must(self.hosts[number], [
            "nbd-client", KEEPER_ADDRESS, str(NBD_PORT), NBD_DEVICE,
            "-name", "disk", "-persist"])
        return NBD_DEVICE

    @staticmethod
    def _must(host, command):
        status, said, errors = host.run(command, COMMAND_S)
        if status:
            raise LabError(f"{command[0]} exited with {status}: "
                           f"{(errors + said).strip()}")

    def close(self):
        """Ends all of it."""
        for host in [*self.hosts, self.keeper]:
            if host and not host.gone:
                host.close()
        self.network.close()
