# SPDX-License-Identifier: MIT
"""The process around a guest: its sandbox, what it leaves behind, and QMP."""

import json
import os
import re
import resource
import socket
import subprocess

import stream

from lib import BUILD, GODWIT, PATIENT, check, equal, test, wait_until
from test_moves import finish, on_terminal

# ---- sandbox ----


def confinement(task):
    """Thread's name, and Seccomp, NoNewPrivs and CapEff of it."""
    text = (task / "status").read_text()
    fields = dict(re.findall(r"^(\w+):\t(.*)$", text, re.M))
    return fields["Name"], (fields["Seccomp"], fields["NoNewPrivs"],
                            int(fields["CapEff"], 16),
                            int(fields["CapPrm"], 16))


def expect_confined(process, *threads):
    """Every thread of it, and these are among them."""
    def settled():
        found = dict(confinement(task) for task in process.tasks())
        return found if set(threads) <= set(found) else None
    found = wait_until(settled, f"{process.name()} has threads {threads}")
    for name, state in found.items():
        # A worker of the kernel's own, which KVM adds to the process: it
        # never makes a system call.
        if not name.startswith("kvm-"):
            equal(state, ("2", "1", 0, 0), f"confinement of thread {name}")


@test
def every_thread_is_confined_before_while_and_after_it_moves(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    gate = relay.hold("ROUND")
    vm = a.run("smp", "cpus=2", cpus=2)
    vm.out.wait("ready")
    expect_confined(vm, "godwit", "vcpu0", "vcpu1", "migration")
    expect_confined(listener, "godwit", "door", "receive", "migration")
    command = a.start_migrate(relay.address)
    gate.wait()
    expect_confined(vm, "vcpu0", "vcpu1", "migration")
    expect_confined(listener, "vcpu0", "vcpu1", "receive")
    gate.release()
    command.expect_exit(0)
    vm.expect_exit(124)
    b.wait_running()
    expect_confined(listener, "godwit", "vcpu0", "vcpu1", "migration")


@test
def without_the_sandbox_there_is_none(world):
    # Or the test above would prove nothing.
    vm = world.host().run("heartbeat", options=["--no-sandbox"])
    vm.out.wait(r"\.")
    for task in vm.tasks():
        equal(confinement(task)[1][0], "0", "Seccomp")


# ---- hygiene ----

class Footprint:
    """What a process holds."""

    def __init__(self, process):
        self.descriptors = process.descriptors()
        self.threads = len(process.tasks())
        self.mappings = process.mappings()

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return repr(vars(self))


ATTEMPTS = ("CONFIG", "IMAGE", "REHEARSE", "ROUND", "PAUSED")
# VMs that a listener has ready; it makes them when an attempt is over.
SPARES = 2


def fail_once(world, a, listener, record):
    """An attempt that is cut there; both sides are through with it."""
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold(record)
    start = len(listener.err.data)
    command = a.start_migrate(relay.address)
    gate.wait().close()
    command.expect_exit(1)
    listener.err.wait("no guest came: ", start)
    relay.close()


def at_rest(listener):
    """It has what it has ready for the next guest, and nothing else."""
    held = listener.descriptors()
    return (held.count("anon_inode:kvm-vm") == SPARES and
            "anon_inode:kvm-vcpu:0" not in held)


@test
def failed_attempts_leave_nothing_behind_on_either_side(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("dirty", "mib=4", "rate=20", memory="64M")
    vm.out.wait("ready")
    # What is made once, the first time, is no leak.
    for record in ATTEMPTS:
        fail_once(world, a, listener, record)
    wait_until(lambda: at_rest(listener), "the listener has its spare VMs, and "
               "has unmade the last attempt")
    before = [Footprint(process) for process in (vm, listener)]
    resident = listener.resident()
    for _ in range(4):
        for record in ATTEMPTS:
            fail_once(world, a, listener, record)
    for process, old in zip((vm, listener), before):
        wait_until(lambda p=process, o=old: Footprint(p) == o,
                   f"{process.name()} holds {old}, as before", deadline=10)
    check(listener.resident() < resident + (16 << 20),
          f"resident: {listener.resident()} after {resident}")
    a.migrate(listener.address)
    b.wait_running()


# ---- standard output ----

def with_output(host, to, *words):
    """A godwit command with its standard output redirected by a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {to}', GODWIT, *words], env=host.env,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        text=True)


@test
def what_can_not_be_printed_is_a_failure(world):
    host = world.host()
    host.run("heartbeat").out.wait(r"\.")
    for words in (("list",), ("show", "bird"), ("help", "run"),
                  ("status", "bird", "--json")):
        for to, why in ((">/dev/full", "No space left"),
                        (">&-", "Bad file descriptor")):
            result = with_output(host, to, *words)
            equal(result.returncode, 1, f"{words} {to}: {result.stderr}")
            check(f"standard output: {why}" in result.stderr, result.stderr)


@test
def a_guest_has_moved_whether_that_can_be_printed_or_not(world):
    a, b = world.hosts()
    for to, options, why in ((">/dev/full", (), "No space left"),
                             (">&-", ("--json",), "Bad file descriptor")):
        vm = a.run("heartbeat")
        vm.out.wait(r"\.")
        listener = b.listen()
        result = with_output(a, to, "migrate", "bird", "--to",
                             listener.address, *PATIENT, *options)
        equal(result.returncode, 0, f"{to}: {result.stderr}")
        check(re.search(f"bird: moved all the same, .*: {why}", result.stderr),
              result.stderr)
        vm.expect_exit(124)
        listener.out.wait_more(10)
        listener.send(b"q")
        listener.expect_exit(0)


@test
def a_console_that_takes_nothing_is_told_of_once(world):
    host = world.host()
    result = with_output(host, ">/dev/full", "run", "--kernel",
                         BUILD / "guests/hello.elf", "--debug-exit")
    equal(result.returncode, 0, "the guest's verdict")
    equal(result.stderr, "godwit: console: No space left on device; what the "
          "guest says is lost\ngodwit: the guest ended itself with status "
          "0\n", "what is said")


# ---- QMP ----

def qemu_client(world):
    """A guest, its host and a client that has said qmp_capabilities."""
    host = world.host("a")
    vm = host.run("heartbeat", debug_exit=False)
    vm.out.wait(r"\.")
    return host, vm, host.qmp()


@test
def a_client_of_qemu_finds_what_it_knows(world):
    host, _, client = qemu_client(world)
    check("version" in client.greeting["QMP"], f"{client.greeting}")
    raw = host.qmp(negotiate=False)
    check("qmp_capabilities" in raw.error("query-status"), "before capabilities")
    status = client.execute("query-status")
    equal((status["status"], status["running"]), ("running", True), "status")
    for command, event in (("stop", "STOP"), ("cont", "RESUME"),
                           ("system_powerdown", "POWERDOWN")):
        client.execute(command)
        # Before the answer, as QEMU has it.
        equal([each["event"] for each in client.events], [event], command)
        client.event(event)
        equal(client.execute("query-status")["running"], command != "stop",
              f"running after {command}")
    equal(client.execute("query-name"), {"name": "bird"}, "name")
    check("has not been found" in client.error("device_add"), "device_add")
    answer = client.call("query-status")
    check("id" not in answer, "an id that nobody gave")
    client.send(b'{"execute":"query-status","id":{"n":[7]}}\n')
    equal(client.answer()["id"], {"n": [7]}, "id")


@test
def a_reset_and_a_quit_by_qmp_are_told_to_every_client(world):
    host, vm, client = qemu_client(world)
    other = host.qmp()
    client.execute("system_reset")
    for one in (client, other):
        data = one.event("RESET")["data"]
        equal(data, {"guest": False, "reason": "host-qmp-system-reset"},
              "RESET")
    client.execute("quit")
    data = other.event("SHUTDOWN")["data"]
    equal(data, {"guest": False, "reason": "host-qmp-quit",
                 "x-godwit-exit-status": 0, "x-godwit-why": "ended at the "
                 f"control socket by process {os.getpid()}, as `godwit kill` "
                 "does"}, "SHUTDOWN")
    vm.expect_exit(0)


@test
def a_client_of_qemu_moves_a_guest(world):
    b = world.host("b")
    listener = b.listen()
    _, vm, client = qemu_client(world)
    equal(client.execute("query-migrate"), {}, "before there was any")
    client.execute("migrate-set-parameters", downtime_limit=1000)
    client.execute("migrate", uri=world.tapped(listener.address))
    client.event("MIGRATION", status="setup")
    client.event("MIGRATION", status="active")
    for number in (1, 2):
        client.event("MIGRATION_PASS", **{"pass": number})
    client.event("MIGRATION", status="device")
    client.event("MIGRATION", status="completed")
    equal(client.execute("query-status")["status"], "postmigrate", "status")
    info = client.execute("query-migrate")
    equal(info["status"], "completed", "query-migrate")
    for field in ("total-time", "downtime", "setup-time", "downtime-us"):
        check(info[field] >= 0, f"{field}: {info}")
    ram = info["ram"]
    for field in ("transferred", "remaining", "total", "duplicate", "normal",
                  "normal-bytes", "dirty-pages-rate", "mbps", "page-size",
                  "dirty-sync-count", "pages-per-second", "precopy-bytes",
                  "downtime-bytes", "skipped", "postcopy-requests"):
        check(ram[field] >= 0, f"{field}: {ram}")
    equal(ram["total"], 32 << 20, "total")
    vm.expect_exit(0)
    b.wait_running()


@test
def clients_of_a_listener_are_told_what_becomes_of_a_guest(world):
    a, b = world.hosts()
    listener = b.listen("--name", "nest")
    client = b.qmp("nest")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold("ROUND")
    command = a.start_migrate(relay.address)
    gate.wait()
    client.event("MIGRATION", status="active")
    gate.close()
    client.event("MIGRATION", status="failed")
    command.expect_exit(1)
    a.migrate(listener.address)
    client.event("MIGRATION", status="active")
    client.event("MIGRATION", status="completed")
    finish(listener, vm)


@test
def a_guest_that_crashes_is_told_of_before_the_end(world):
    host = world.host()
    # It waits until its last words are out: a pipe that is full keeps it.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while os.write(writer, bytes(4096)):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)
    vm = host.run("crash", debug_exit=False, stdout=writer)
    os.close(writer)
    client = host.qmp()
    said = b""
    while b"fault" not in said:
        said += os.read(reader, 65536)
    os.close(reader)
    client.event("GUEST_PANICKED", action="poweroff")
    client.event("SHUTDOWN", guest=True, reason="guest-panic")
    vm.expect_exit(3)


@test
def a_guest_that_says_that_it_panicked_has_ended(world):
    vm = world.host().run("crash", "panic=yes", debug_exit=False)
    vm.err.wait("the guest crashed: its kernel panicked")
    vm.expect_exit(3)


@test
def a_guest_that_panicked_can_be_kept_and_looked_at(world):
    a, b = world.host(), world.host("b")
    vm = a.run("crash", "panic=yes", options=("--on-panic", "pause"),
               debug_exit=False)
    vm.err.wait("the guest crashed: its kernel panicked; it is paused")
    client = a.qmp()
    equal(client.execute("query-status")["status"], "guest-panicked", "status")
    client.execute("system_reset")
    client.execute("cont")
    client.event("GUEST_PANICKED", action="pause")
    # It stays what it is in a move, whatever is said there of those to come.
    listener = b.listen()
    a.migrate(listener.address)
    vm.expect_exit(0)
    listener.err.wait("the guest crashed: its kernel panicked; it is paused")
    wait_until(lambda: b.status()["status"] == "guest-panicked", "its status")
    equal(b.status()["reason"], "its kernel panicked", "its reason")
    back = a.listen("--on-panic", "pause")
    b.migrate(back.address)
    listener.expect_exit(0)
    wait_until(lambda: a.status()["status"] == "guest-panicked", "and back")
    a.command("reset", "bird")
    a.command("resume", "bird")
    back.err.wait("(?s)it is paused.*the guest crashed: its kernel panicked; "
                  "it is paused")
    a.command("kill", "bird")


@test
def a_migration_that_is_cancelled_by_qmp_says_so(world):
    b = world.host("b")
    listener = b.listen()
    _, vm, client = qemu_client(world)
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold("ROUND")
    client.execute("migrate", uri=relay.address)
    gate.wait()
    check("under way already" in client.error("migrate", uri=relay.address),
          "a second one")
    equal(client.execute("query-migrate")["status"], "active", "status")
    client.execute("migrate_cancel")
    client.event("MIGRATION", status="cancelled")
    gate.release()
    vm.out.wait_more(100)
    equal(client.execute("query-migrate")["status"], "cancelled", "status")
    listener.err.wait("no guest came: ")


@test
def a_migration_to_nobody_fails_with_a_reason(world):
    _, vm, client = qemu_client(world)
    client.execute("migrate", uri=f"unix:{world.dir}/nobody")
    client.event("MIGRATION", status="failed")
    info = client.execute("query-migrate")
    check("nobody" in info["error-desc"], f"{info}")
    vm.out.wait_more(100)
    check("error" in client.call("migrate", uri="exec:cat"), "exec:")
    check("error" in client.call("migrate"), "no uri")


@test
def clients_that_misbehave_hurt_nobody(world):
    host, vm, client = qemu_client(world)
    deaf = host.qmp()
    for line in (b"garbage\n", b"[" * 5000 + b"\n", b"{" * 5000 + b"\n",
                 b"\0\xff\xfe\n", b"x" * 70000 + b"\n", b"{}\n", b"7\n",
                 b'{"execute":7}\n', b'{"execute":"stop","arguments":[]}\n'):
        client.send(line)
        check("error" in client.answer(), f"{line[:40]} was taken")
    half = host.qmp(negotiate=False)
    half.send(b'{"execute":')
    never_read(deaf)
    equal(client.execute("query-status")["status"], "running", "status")
    vm.out.wait_more(100)
    check(vm.resident() < 256 << 20, f"resident: {vm.resident()}")


def never_read(client):
    """Ask and ask, and never look at an answer."""
    client.sock.setblocking(False)
    request = json.dumps({"execute": "query-commands"}).encode() + b"\n"
    for _ in range(2000):
        try:
            client.sock.send(request)
        except BlockingIOError:
            return
        except OSError:
            return  # it was thrown out


@test
def more_clients_than_there_are_places_are_turned_away(world):
    host, vm, client = qemu_client(world)
    for _ in range(100):
        peer = world.connect(f"unix:{host.socket_path()}")
        peer.sock.setblocking(False)
    equal(client.execute("query-status")["status"], "running", "status")
    vm.out.wait_more(100)
    check(len(os.listdir(f"/proc/{vm.pid}/fd")) < 80, "all were let in")
    result = host.command("status", "bird", status=1)
    check("clients are connected already" in result.err, result.err)
    equal(vm.err.text().count("turned away"), 1, "warnings")


@test
def a_vm_that_does_not_answer_is_marked_in_the_list_and_hides_no_other(world):
    host = world.host("a")
    hung = host.run("heartbeat", name="a-hung")
    host.run("heartbeat", name="b-well").out.wait(r"\.")
    hung.out.wait(r"\.")
    hung.stop()
    # More than wait in the queue of a socket.
    for _ in range(40):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        world.peers.append(sock)
        sock.connect_ex(str(host.socket_path("a-hung")))
    out = host.command("list").out
    check(re.search("^a-hung +no answer ", out, re.M), out)
    check(re.search("^b-well +running ", out, re.M), out)
    result = host.command("status", "a-hung", status=1)
    check("does not answer" in result.err, result.err)


@test
def who_waits_for_a_vm_on_a_terminal_is_told_for_whom(world):
    host = world.host("a")
    vm = host.run("heartbeat")
    vm.out.wait(r"\.")
    vm.stop()
    waiting = [on_terminal(world, 80, command, *name)
               for command, *name in (("status", "bird"), ("list",))]
    for _, shown in waiting:
        shown.wait(f"bird: waiting for its process, {vm.pid}, to answer")
    vm.cont()
    for process, _ in waiting:
        equal(process.wait(), 0, "its status")


@test
def a_listener_without_a_guest_has_no_vcpus(world):
    world.host("b").listen("--name", "nest")
    out = world.hosts()[1].command("status", "nest").out
    check(re.search(r"^nest: inmigrate\n  process \d+, no guest has come yet$",
                    out, re.M), out)


@test
def who_knocks_when_descriptors_are_short_is_let_in_later(world):
    vm = world.host("a").run("heartbeat")
    vm.out.wait(r"\.")
    b = world.host("b")
    listener = b.listen("--name", "nest")
    # Who answers there has begun its work, and is confined for it.
    b.command("status", "nest")
    expect_confined(listener, "door", "receive")
    for process, address in (
            (listener, listener.address),
            (vm, f"unix:{world.host('a').socket_path()}")):
        used = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
        free = next(n for n in range(1000) if n not in used)
        old = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free, old[1]))
        peer = world.connect(address)
        if process is listener:
            peer.send("QUERY", stream.greeting(bytes(16)))
            process.err.wait("nobody can be let in: Too many open files")
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, old)
        check(peer.sock.recv(1), "nobody is let in any more")


@test
def events_and_answers_come_while_it_moves(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    gate = relay.hold("ROUND")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    command = a.start_migrate(relay.address)
    gate.wait()
    client = a.qmp()
    client.execute("stop")
    client.event("STOP")
    client.execute("cont")
    client.event("RESUME")
    gate.release()
    command.expect_exit(0)
    vm.expect_exit(124)
    finish(listener, vm)
