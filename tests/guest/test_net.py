# SPDX-License-Identifier: MIT
"""Network cards between processes: what a listener must be told, and what the
network hears of a guest that has moved. Sockets stand for taps: they need no
rights.
"""

import ctypes
import os
import re
import shutil
import socket
import struct
import subprocess

from lib import BUILD, DEADLINE, ROOT, Skipped, check, equal, test
from test_moves import moved_by

MAC = "52:54:00:12:34:56"
HEADER = 12
ROUNDS = 5  # that a guest is announced


def wire():
    """A socket for godwit, and the network's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(DEADLINE)
    return ours, theirs


def run_bird(host, end, words=f",mac={MAC}"):
    """A guest with a network card on the socket `end`."""
    number = end.fileno()
    vm = host.run("heartbeat", options=("--net", f"fd={number}{words}"),
                  pass_fds=(number,))
    vm.out.wait("kvmclock=")
    end.close()
    return vm


def listen(host, end, name="net0", **options):
    """What takes it, with a socket for the card of this name."""
    number = end.fileno()
    listener = host.listen("--net", f"{name}=fd={number}", **options,
                           pass_fds=(number,))
    end.close()
    return listener


def rarp(mac):
    """What is said of an adapter whose addresses nobody knows."""
    adapter = bytes.fromhex(mac.replace(":", ""))
    frame = b"\xff" * 6 + adapter + struct.pack(
        ">HHHBBH", 0x8035, 1, 0x0800, 6, 4, 3) + (adapter + bytes(4)) * 2
    return bytes(HEADER) + frame.ljust(60, b"\0")


@test
def a_network_card_moves_and_the_network_is_told_where_it_is(world):
    a, b = world.hosts()
    before, net_before = wire()
    after, net_after = wire()
    vm = run_bird(a, before)
    listener = listen(b, after)
    a.migrate(listener.address)
    moved_by(vm)
    for _ in range(ROUNDS):
        equal(net_after.recv(2048), rarp(MAC), "what the network heard")
    # And the source said nothing.
    equal(net_before.recv(2048), b"", "the end of the source's wire")
    b.wait_running()
    line = b.command("show", "bird").out
    check(re.search(rf"--net fd=\d+,id=net0,mac={MAC},queues=1,vectors=4",
                    line), line)
    b.command("kill", "bird")
    listener.wait()


@test
def a_network_card_without_an_address_gets_one_that_moves_with_it(world):
    a, b = world.hosts()
    before, _net_before = wire()
    after, net_after = wire()
    vm = run_bird(a, before, "")
    line = a.command("show", "bird").out
    mac = re.search(r"--net fd=\d+,id=net0,mac=([0-9a-f:]{17}),", line)[1]
    equal(int(mac[:2], 16) & 3, 2, f"the kind of {mac}")
    listener = listen(b, after)
    a.migrate(listener.address)
    moved_by(vm)
    equal(net_after.recv(2048), rarp(mac), "what the network heard")
    b.command("kill", "bird")
    listener.wait()


@test
def a_listener_without_the_tap_refuses_and_says_what_to_give(world):
    a, b = world.hosts()
    end, net = wire()
    other, _ = wire()
    vm = run_bird(a, end)
    for listener in (b.listen(), listen(b, other, "lan")):
        said = a.migrate(listener.address, status=1).err
        check("net0" in said and "--net net0=tap=NAME" in said, said)
        check(vm.running(), "the guest is gone")
        listener.kill()
    # The card is as it was: a move that can be, is.
    after, net_after = wire()
    listener = listen(b, after)
    a.migrate(listener.address)
    moved_by(vm)
    equal(net_after.recv(2048), rarp(MAC), "what the network heard")
    equal(net.recv(2048), b"", "the end of the source's wire")
    b.command("kill", "bird")
    listener.wait()


@test
def a_guest_that_came_paused_is_announced_when_it_is_resumed(world):
    a, b = world.hosts()
    before, _net_before = wire()
    after, net_after = wire()
    vm = run_bird(a, before)
    number = after.fileno()
    listener = b.listen("--paused", "--net", f"net0=fd={number}",
                        pass_fds=(number,))
    after.close()
    a.migrate(listener.address)
    moved_by(vm)
    net_after.setblocking(False)
    try:
        raise AssertionError(f"it said {net_after.recv(2048)!r}")
    except BlockingIOError:
        pass
    net_after.settimeout(DEADLINE)
    b.command("resume", "bird")
    equal(net_after.recv(2048), rarp(MAC), "what the network heard")
    b.command("kill", "bird")
    listener.wait()


# ---- taps ----

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
BRIDGE = ROOT / "tools" / "godwit-bridge"


def bridge(*words, status=0):
    """The tool that makes bridges and taps."""
    done = subprocess.run([BRIDGE, *words], stderr=subprocess.PIPE, text=True,
                          check=False)
    equal(done.returncode, status, f"{words}: {done.stderr}")
    return done.stderr


def enter_namespace():
    """This test's process, and so all that it starts, has a network of its
    own."""
    if LIBC.unshare(CLONE_NEWNET):
        raise Skipped("no network namespace to be had: "
                      f"{os.strerror(ctypes.get_errno())}")
    if not shutil.which("ip") or not os.access("/dev/net/tun", os.W_OK):
        raise Skipped("no taps without `ip` and /dev/net/tun")


def is_there(name):
    """Whether there is a network interface of this name."""
    return name in (known for _, known in socket.if_nameindex())


@test
def a_bridge_and_its_taps_are_made_and_removed_by_one_command_each(_):
    enter_namespace()
    bridge("up", "br0", "tap0", "tap1", "--address", "10.7.0.1/24", "--queues")
    bridge("up", "br0", "tap1")
    check(is_there("br0") and is_there("tap0"), "not made")
    check("no tap" in bridge("up", "br0", "lo", status=1), "lo is no tap")
    check("no bridge" in bridge("up", "tap0", "x", status=1), "nor tap0 a bridge")
    bridge("down", "br0", "tap0")
    check(is_there("br0") and not is_there("tap0"), "one is left")
    bridge("down", "br0", "tap0", "tap1")
    check(not is_there("br0") and not is_there("tap1"), "none is left")
    bridge("sideways", "br0", "tap0", status=2)


@test
def a_guest_moves_from_tap_to_tap_of_a_bridge(world):
    enter_namespace()
    a, b = world.hosts()
    bridge("up", "br0", "tap0", "tap1", "--queues")
    vm = a.run("heartbeat", options=("--net", f"tap=tap0,queues=3,mac={MAC}"))
    vm.out.wait("kvmclock=")
    said = b.command("run", "--kernel", BUILD / "guests" / "hello.elf", "--net",
                     "tap=tap0,queues=2", status=1).err
    check("tap tap0: in use by another process" in said, said)
    # By unix sockets: the loopback device is down here.
    listener = b.listen("--net", "net0=tap=tap1",
                        address=f"unix:{world.dir}/nest")
    said = a.migrate(listener.address, status=1).err
    check("net0=tap=tap1,queues=3" in said, said)
    listener.kill()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                       socket.htons(0x8035)) as network:
        network.bind(("br0", 0x8035))
        network.settimeout(DEADLINE)
        listener = b.listen("--net", "net0=tap=tap1,queues=3",
                            address=f"unix:{world.dir}/other")
        a.migrate(listener.address)
        moved_by(vm)
        for _ in range(ROUNDS):
            equal(network.recv(2048), rarp(MAC)[HEADER:], "what was heard")
    check("--net tap=tap1,id=net0" in b.command("show", "bird").out, "show")
    b.command("kill", "bird")
    listener.wait()
    bridge("down", "br0", "tap0", "tap1")


@test
def a_tap_that_carries_less_than_the_guest_sends_is_refused(world):
    enter_namespace()
    a, b = world.hosts()
    bridge("up", "br0", "tap0", "--mtu", "9000")
    bridge("up", "br1", "tap1")
    vm = a.run("heartbeat", options=("--net", "tap=tap0"))
    vm.out.wait("kvmclock=")
    listener = b.listen("--net", "net0=tap=tap1",
                        address=f"unix:{world.dir}/nest")
    said = a.migrate(listener.address, status=1).err
    check("tap1 carries 1500 bytes here, and the guest sends up to 9000" in
          said and "ip link set tap1 mtu 9000" in said, said)
    check(vm.running(), "the guest is gone")
    a.command("kill", "bird")
    vm.wait()
