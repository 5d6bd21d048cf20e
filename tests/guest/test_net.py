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


# ---- a guest that answers ----

PEER = bytes.fromhex("52540000aabb")
GUEST = bytes.fromhex(MAC.replace(":", ""))
TYPE = b"\x88\xb5"
CLAIM = bytes.fromhex("0806000108000604")


def ping(net, number, size=60):
    """A frame to the guest."""
    frame = GUEST + PEER + TYPE + struct.pack("<Q", number)
    net.send(bytes(HEADER) + frame.ljust(size, b"."))


def heard(net):
    """The next frame; EOFError: nobody is there any more."""
    message = net.recv(65536)
    if not message:
        raise EOFError
    return message[HEADER:]


def pong(net):
    """The number in the next answer; what is said otherwise is passed over."""
    while True:
        frame = heard(net)
        if frame[12:14] == TYPE:
            equal(frame[:12], PEER + GUEST, "whom the answer is from and to")
            return struct.unpack_from("<Q", frame, 14)[0]


def claimed(net):
    """Whether the next that is said of an address is that 10.0.0.7 is the
    guest's."""
    while True:
        frame = heard(net)
        if frame[12:20] == CLAIM:
            return (frame[6:12] == GUEST and frame[22:28] == GUEST and
                    frame[28:32] == bytes([10, 0, 0, 7]))


def run_net(host, end, *cmdline):
    """The guest that answers, as soon as it does."""
    number = end.fileno()
    vm = host.run("net", *cmdline, options=("--net", f"fd={number},mac={MAC}"),
                  pass_fds=(number,))
    vm.out.wait("ready")
    end.close()
    return vm


@test
def a_guest_answers_frames_of_all_sizes(world):
    for merge in ("yes", "no"):
        end, net = wire()
        vm = run_net(world.host(merge), end, f"merge={merge}")
        check(claimed(net), "the guest claims its address")
        for number in range(1, 300):
            ping(net, number, 22 + number * 4)
            equal(pong(net), number, "the answer")
        # More than fit into its rings at once.
        for number in range(300, 900):
            ping(net, number)
            if number >= 400:
                equal(pong(net), number - 100, "the answer")
        for number in range(800, 900):
            equal(pong(net), number, "the answer")
        vm.send(b"q")
        vm.out.wait("net: frames=899 others=0")
        vm.expect_exit(0)


@test
def a_guest_that_answers_moves_and_hears_nothing_twice(world):
    a, b = world.hosts()
    end, net = wire()
    vm = run_net(a, end)
    check(claimed(net), "the guest claims its address")
    number = answered = 0
    for here, there in ((a, b), (b, a), (a, b)):
        after, net_after = wire()
        listener = listen(there, after)
        mover = here.start_migrate(listener.address)
        # All is answered in order, once, as far as it is.
        try:
            while mover.running():
                number += 1
                ping(net, number)
                said = pong(net)
                check(answered < said <= number, f"{said} after {answered}")
                answered = said
        except (BrokenPipeError, ConnectionResetError, EOFError):
            pass
        mover.expect_exit(0)
        moved_by(vm)
        # The claim is known, so that it is repeated for the guest; and the
        # guest is asked to repeat it.
        check(claimed(net_after), "what the network heard")
        vm, net = listener, net_after
        vm.out.wait("announced")
        number += 1
        ping(net, number)
        # What it heard over there it may answer from here.
        while answered != number:
            said = pong(net)
            check(answered < said <= number, f"{said} after {answered}")
            answered = said
    vm.send(b"q")
    vm.out.wait(r"net: frames=\d+")
    vm.expect_exit(0)


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


def told(*words):
    """What `ip` prints."""
    return subprocess.run(["ip", *words], stdout=subprocess.PIPE, text=True,
                          check=True).stdout


@test
def a_host_is_reached_by_the_bridge_as_it_was_by_the_card_that_joins_it(_):
    enter_namespace()
    for words in ("link add eth0 type veth peer name wire", "link set wire up",
                  "link set eth0 up", "addr add 192.0.2.1/24 dev eth0",
                  "addr add 2001:db8::1/64 dev eth0",
                  "route add default via 192.0.2.254",
                  "-6 route add default via 2001:db8::fe"):
        told(*words.split())
    ethernet = re.compile("link/ether ([^ ]+)")
    before = ethernet.search(told("link", "show", "eth0"))[1]
    for _ in range(2):
        bridge("up", "br0", "tap0", "--join", "eth0")
        equal(told("addr", "show", "eth0", "scope", "global"), "", "eth0")
        addresses = told("addr", "show", "br0")
        equal(ethernet.search(addresses)[1], before, "its Ethernet address")
        check("inet 192.0.2.1/24 " in addresses, addresses)
        check("inet6 2001:db8::1/64 " in addresses, addresses)
        for words in (("-4", "192.0.2.254"), ("-6", "2001:db8::fe")):
            routes = told(words[0], "route")
            check(f"default via {words[1]} dev br0 " in routes, routes)
    bridge("down", "br0", "tap0")
    check(is_there("br0"), "eth0 is still joined to it")
    check("ip link" in bridge("up", "br0", "tap0", "--join", "x", status=1),
          "there is no x")


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
