# SPDX-License-Identifier: MIT
"""Emulated hosts on one network, with their disks on another of them.

    one of two hosts ──┐
                       ├── network (a hub in the keeper's emulator) ── keeper
    the other ─────────┘

The keeper serves the store by NFS, and the image in it by NBD when asked to.
The hosts mount it at the same place. Each host can be cut off, killed, and
started again; the keeper lives on.
"""

import json
import socket
import threading

from host import Host, LabError, store_drive

NETWORK = "10.77.0"
KEEPER_ADDRESS = f"{NETWORK}.3"
NBD_PORT = 10809
NBD_DEVICE = "/dev/nbd0"
COMMAND_S = 60


class Emulator:
    """The QMP monitor of an emulator, spoken to and waited for in turn."""

    def __init__(self):
        self._socket, self.theirs = socket.socketpair()
        self._lines = self._socket.makefile("r")

    def options(self):
        """QEMU's options that connect it to this."""
        return ["-chardev", f"socket,id=qmp,fd={self.theirs.fileno()}",
                "-mon", "chardev=qmp,mode=control"]

    def started(self):
        """The emulator has its end; it is ours no longer."""
        self.theirs.close()
        self.command("qmp_capabilities")

    def command(self, execute, **arguments):
        """Executes one command."""
        request = {"execute": execute, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "return" in answer:
                return
            if "error" in answer:
                raise LabError(f"{execute}: {answer['error']['desc']}")
        raise LabError(f"the emulator is gone, at {execute}")

    def close(self):
        """Lets go of the emulator."""
        self._lines.close()
        self._socket.close()


class Site:
    """A keeper and two hosts; all share one condition."""

    def __init__(self, boot, store, directory, logs, boot_s):
        self.changed = threading.Condition()
        self.hosts = [None, None]
        self._boot = boot
        self._directory = directory
        self._logs = logs
        self._boot_s = boot_s
        self._starts = 0
        self._serves_block = False
        self._emulator = Emulator()
        hub = ["-netdev", "hubport,id=keeper,hubid=0", *self._card("keeper", 3)]
        for number in range(len(self.hosts)):
            hub += ["-netdev", f"stream,id=link{number},server=on,"
                    f"addr.type=unix,addr.path={self._link(number)}",
                    "-netdev", f"hubport,id=port{number},hubid=0,"
                    f"netdev=link{number}"]
        self.keeper = Host(
            boot, logs / "keeper",
            [*store_drive(store), *hub, *self._emulator.options()],
            f"lab.store lab.serve lab.address={KEEPER_ADDRESS}", self.changed,
            [self._emulator.theirs.fileno()])
        self.keeper.address = KEEPER_ADDRESS

    def wait_ready(self):
        """Waits for the keeper, then starts the hosts and waits for them."""
        self._emulator.started()
        self.keeper.wait_ready(self._boot_s)
        for number in range(len(self.hosts)):
            self.start(number)
        for host in self.hosts:
            host.wait_ready(self._boot_s)

    def _link(self, number):
        return self._directory / f"link{number}"

    @staticmethod
    def _card(netdev, number):
        return ["-device", f"virtio-net-pci,netdev={netdev},romfile=,"
                f"mac=52:54:00:77:00:{number:02x}"]

    def start(self, number):
        """Starts a host; its disks are where they were. It is not ready yet."""
        self._starts += 1
        address = f"{NETWORK}.{number + 1}"
        host = Host(
            self._boot, self._logs / f"site-{number}-{self._starts}",
            ["-netdev", "stream,id=net,server=off,addr.type=unix,"
             f"addr.path={self._link(number)}", *self._card("net", number + 1)],
            f"lab.address={address} lab.mount={KEEPER_ADDRESS}", self.changed)
        host.address = address
        self.hosts[number] = host

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

    def plug(self, number, plugged):
        """Pulls a host's network cable, or puts it back."""
        self._emulator.command("set_link", name=f"link{number}", up=plugged)

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
        self._emulator.close()
