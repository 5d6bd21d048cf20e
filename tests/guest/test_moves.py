# SPDX-License-Identifier: MIT
"""Moves between processes: every kind of address, every way to ask for one."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios

from lib import GODWIT, PATIENT, Output, check, equal, test, wait_until

PHASES = ("hello", "config", "rehearsal", "rounds", "stop", "save", "sync",
          "final", "verify", "loaded", "commit")


def moved_by(vm, status=124):
    """The source ends, with the status of a guest that moved."""
    return vm.expect_exit(status)


def beats_in(console):
    """Beats of heartbeat that are in the text, and what it says of them."""
    text = console.decode()
    _, _, rest = text.partition("kvmclock=")
    rest = rest.partition("\n")[2]
    body, _, report = rest.rpartition("gap tsc_ns=")
    said = int(re.search(r"beats=(\d+)", report)[1])
    full = body.rstrip("\n").count("\n")
    dots = body.count(".")
    return dots + full + (said % 64 == 0), said


# ---- addresses ----

def move_once(world, listener, **options):
    """One move of heartbeat to a listener, and its end there."""
    a = world.host("a")
    vm = a.run("heartbeat", **options)
    vm.out.wait(r"\.")
    a.migrate(listener.address)
    moved_by(vm)
    return finish(listener, vm)


def finish(listener, *before):
    """The guest ends well; its consoles, one after the other, lost nothing."""
    listener.out.wait_more(100)
    listener.send(b"q")
    listener.expect_exit(0)
    console = b"".join(vm.out.data for vm in before) + listener.console()
    check(console.endswith(b"verdict 0\n"), repr(console[-80:]))
    counted, said = beats_in(console)
    equal(counted, said, "beats on the consoles, against the guest's count")
    return console


@test
def a_guest_moves_over_tcp_and_no_beat_is_lost(world):
    move_once(world, world.host("b").listen())


@test
def a_guest_moves_over_ipv6(world):
    if not socket.has_ipv6:
        return
    move_once(world, world.host("b").listen(address="tcp:[::1]:0"))


@test
def a_guest_moves_over_a_unix_socket(world):
    path = world.dir / "nest"
    listener = world.host("b").listen(address=f"unix:{path}")
    move_once(world, listener)
    check(not path.exists(), "the listening socket is left over")


@test
def a_guest_does_not_wait_for_who_reads_what_a_listener_says(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    listener.err.sleep(f"/proc/{listener.pid}/fd/2")
    a.migrate(listener.address)
    moved_by(vm)
    listener.out.wait_more(100)
    listener.err.wake()
    finish(listener, vm)
    # What was to be said then was said late, or it is said that it wasn't.
    listener.err.wait(r"(runs here from now on|lines lost here)")


@test
def a_guest_moves_to_a_host_that_is_given_by_name(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    port = listener.address.rpartition(":")[2]
    a.migrate(f"tcp:localhost:{port}")
    moved_by(vm)
    finish(listener, vm)


@test
def a_guest_moves_over_descriptors_that_were_passed(world):
    a, b = world.hosts()
    ours, theirs = world.relayed_pair()
    number = theirs.fileno()
    listener = b.listen(address=f"fd:{number}", pass_fds=[number])
    theirs.close()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    command = a.start("migrate", "bird", "--to", f"fd:{ours.fileno()}",
                      *PATIENT, pass_fds=[ours.fileno()])
    ours.close()
    command.expect_exit(0)
    moved_by(vm)
    finish(listener, vm)


@test
def what_goes_over_the_wire_is_what_the_format_says(world):
    relay = world.relay(world.host("b").listen().address)
    a = world.host("a")
    vm = a.run("dirty", "mib=4", "rate=20", memory="64M")
    vm.out.wait("ready")
    a.migrate(relay.address)
    moved_by(vm)
    world.verify_streams()
    sent = relay.connections[0].names["source"]
    for name in ("HELLO", "CONFIG", "IMAGE", "REHEARSE", "ROUND", "PAUSED",
                 "COMMIT", "DONE"):
        check(name in sent, f"no {name} was sent: {sent}")
    equal(sent.count("COMMIT"), 1, "COMMITs")


def flip_the_last_bit(payload):
    """Of PAGES: one of the last page's."""
    return payload[:-1] + bytes([payload[-1] ^ 1])


@test
def a_page_that_is_damaged_on_its_way_is_found_and_the_guest_stays(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    relay.change("PAGES", flip_the_last_bit)
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    failed = a.migrate(relay.address, "--offline", status=1)
    check(re.search(r"not moved: the target refuses: --verify: memory 0x\w+ to "
                    r"0x\w+ is not what the source has .*; the guest runs on "
                    r"here", failed.err), failed.err)
    vm.out.wait_more(20)
    out = a.migrate(relay.address, "--offline").out
    check(re.search(r"\(predicted [\d.]+, and [\d.]+ to verify\)", out), out)
    moved_by(vm)
    finish(listener, vm)


# ---- by itself ----

def move_by_itself(world, listener, *guest, after="0", **options):
    """`run --migrate-to`, with a longer pause allowed before it comes."""
    host = world.host("a")
    relay = world.relay(listener.address)
    gate = relay.hold("HELLO")
    vm = host.run(*guest, options=[
        "--migrate-to", f"{relay.address},after={after}"], **options)
    gate.wait()
    host.command("set", "bird", "max-downtime", "1s")
    gate.release()
    return vm


@test
def migrate_to_moves_by_itself_and_the_status_says_so(world):
    a, b = world.hosts()
    for debug_exit, status in ((True, 124), (False, 0)):
        listener = b.listen()
        vm = move_by_itself(world, listener, "heartbeat",
                            debug_exit=debug_exit)
        vm.expect_exit(status)
        listener.out.wait_more(100)
        listener.signal(signal.SIGTERM)
        listener.expect_exit(125 if debug_exit else 0)


@test
def migrate_to_waits_as_long_as_after_says(world):
    listener = world.host("b").listen()
    vm = move_by_itself(world, listener, "heartbeat", "interval_us=10000",
                        after="0.5")
    vm.expect_exit(124)
    check(vm.out.data.count(b".") > 10, "it moved before it had run")
    finish(listener, vm)


@test
def migrate_to_nobody_leaves_the_guest_running(world):
    a = world.host("a")
    vm = a.run("heartbeat",
               options=["--migrate-to", f"unix:{world.dir}/nobody,after=0"])
    vm.err.wait("is `godwit listen` running there")
    vm.out.wait_more(100)
    vm.send(b"q")
    vm.expect_exit(0)


@test
def the_status_of_the_target_is_the_guests_verdict(world):
    a, b = world.hosts()
    listener = b.listen()
    move_by_itself(world, listener, "heartbeat")
    listener.out.wait_more(100)
    listener.send(b"q")
    listener.expect_exit(0)
    listener = b.listen()
    a.run("sync", "point=1").out.wait("@1 ")
    a.migrate(listener.address)
    listener.send(b".")
    listener.expect_exit(0)


# ---- back and forth ----

@test
def a_guest_moves_back_and_forth_ten_times(world):
    a, b = world.hosts()
    there = [a.run("dirty", "mib=4", "rate=50", memory="48M", cpus=2)]
    there[0].out.wait("ready")
    for turn in range(10):
        here, other = (a, b) if turn % 2 == 0 else (b, a)
        listener = other.listen()
        here.migrate(listener.address)
        moved_by(there[-1])
        there.append(listener)
        other.wait_running()
    there[-1].send(b"q")
    there[-1].expect_exit(0)
    check("errors=0" in there[-1].out.text(), there[-1].out.text())


@test
def two_guests_move_at_once(world):
    a, b = world.hosts()
    names = ("one", "two")
    listeners = [b.listen() for _ in names]
    vms = [a.run("heartbeat", name=name) for name in names]
    for vm in vms:
        vm.out.wait(r"\.")
    moves = [a.start_migrate(listener.address, name=name)
             for listener, name in zip(listeners, names)]
    for move, vm, listener in zip(moves, vms, listeners):
        move.expect_exit(0)
        moved_by(vm)
        finish(listener, vm)


# ---- what is in the guest ----

def moves_while_busy(world, guest, *cmdline, **options):
    """Move twice while it works; the last console."""
    a, b = world.hosts()
    vm = a.run(guest, *cmdline, **options)
    vm.out.wait("ready")
    for here, there in ((a, b), (b, a)):
        listener = there.listen()
        here.migrate(listener.address)
        moved_by(vm)
        vm = listener
        there.wait_running()
    vm.send(b"s")
    vm.out.wait("^stats ")
    vm.send(b"q")
    vm.expect_exit(0)
    return vm.out.text()


@test
def dirty_finds_every_byte_where_it_was(world):
    text = moves_while_busy(world, "dirty", "mib=16", "rate=50", "fill=yes",
                            "zero=50", memory="64M")
    check("errors=0" in text, text)


@test
def dirty_finds_memory_above_4_gib_where_it_was(world):
    moves_while_busy(world, "dirty", "mib=8", "rate=20", "where=high",
                     memory="5G")


@test
def four_cpus_count_on_without_an_error(world):
    moves_while_busy(world, "smp", "cpus=4", cpus=4)


@test
def ticks_of_the_timer_are_neither_lost_nor_doubled(world):
    for mode in ("periodic", "deadline"):
        text = moves_while_busy(world, "timer", f"mode={mode}")
        check(" lost=0 doubled=0 " in text.rpartition("end ")[2], text)


class Sync:
    """The sync guest, which waits at each point for a byte."""

    def __init__(self, world):
        self.hosts = list(world.hosts())
        self.vm = self.hosts[0].run("sync", "hold_ms=1", cpus=2, memory="64M")
        self.at = 0
        self.wait()

    def wait(self):
        """Until it stands at a point, or has passed the last."""
        match = self.vm.out.wait(r"^@\d+ (\S+)\n|^done", start=self.at)
        self.at = match.end()
        self.name = (match[1] or b"done").decode()

    def go_on(self):
        """To the next point."""
        self.vm.send(b".")
        self.wait()

    def move(self):
        """To the other host."""
        here, there = self.hosts
        listener = there.listen()
        here.migrate(listener.address)
        moved_by(self.vm)
        self.vm, self.at = listener, 0
        self.hosts.reverse()


# KVM fires a one-shot timer that had fired before its state was saved once
# more when that is loaded: rather one tick too many than one too few.
FIRES_AGAIN = "timer-near"


@test
def sync_points_survive_a_move_at_every_fourth(world):
    sync = Sync(world)
    number = 1
    while sync.name != "done":
        if number % 4 == 0 and sync.name != FIRES_AGAIN:
            sync.move()
        sync.go_on()
        number += 1
    sync.vm.expect_exit(0)


@test
def input_on_its_way_to_the_guest_is_not_lost(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("echo")
    vm.out.wait("ready\n")
    a.command("pause", "bird")
    # In the port's FIFO at least: it takes what it has room for.
    vm.send(b"0123456789")
    a.migrate(listener.address)
    moved_by(vm)
    b.command("resume", "bird")
    got = vm.out.data.partition(b"ready\n")[2]
    left = b"0123456789"[len(got):]
    # What the port had not read is still in the first process's pipe.
    wait_until(lambda: left.startswith(listener.console()),
               "what came is what was sent")


# ---- options ----

@test
def a_target_that_listens_paused_waits_for_resume(world):
    a, b = world.hosts()
    listener = b.listen("--paused")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    a.migrate(listener.address)
    moved_by(vm)
    equal(b.status()["status"], "paused", "status")
    equal(listener.console(), b"", "what a paused guest has sent")
    b.command("resume", "bird")
    finish(listener, vm)


@test
def a_guest_that_its_user_paused_stays_paused_on_the_other_side(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    a.command("pause", "bird")
    a.migrate(listener.address)
    moved_by(vm)
    equal(b.status()["status"], "paused", "status")
    equal(listener.console(), b"", "what a paused guest has sent")
    b.command("resume", "bird")
    finish(listener, vm)


@test
def offline_moves_without_rounds(world):
    a, b = world.hosts()
    relay = world.relay(b.listen().address)
    vm = a.run("dirty", "mib=16")
    vm.out.wait("ready")
    report = a.migrate(relay.address, "--offline", "--json").json()
    equal(report["rounds"], [], "rounds")
    moved_by(vm)
    check("ROUND" not in relay.connections[0].names["source"], "a ROUND")
    b.wait_running()


@test
def once_ends_with_1_after_an_attempt_that_failed(world):
    b = world.host("b")
    listener = b.listen("--once")
    peer = world.connect(listener.address)
    peer.send("HELLO", b"no greeting")
    peer.expect_end()
    # Noise was no attempt: this is one.
    source = world.host("a")
    source.run("heartbeat").out.wait(r"\.")
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold("CONFIG")
    move = source.start_migrate(relay.address)
    gate.wait().close()
    move.expect_exit(1)
    listener.expect_exit(1)
    check(source.status()["running"], "the guest does not run")


@test
def once_takes_a_guest_as_any_listener(world):
    move_once(world, world.host("b").listen("--once"))


def moved_to_a_namesake(world):
    """A guest that has moved from the first host to one with its name taken."""
    a, b = world.hosts()
    b.run("heartbeat").out.wait(r"\.")
    listener = b.listen()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    a.migrate(listener.address)
    moved_by(vm)
    return a, b, listener, vm


@test
def a_name_that_is_taken_over_there_gets_a_number(world):
    a, b, listener, vm = moved_to_a_namesake(world)
    listener.err.wait("the guest 'bird' is called 'bird-2' here: name 'bird'")
    equal(sorted(b.list()), ["bird", "bird-2"], "names")
    finish(listener, vm)


@test
def a_guest_that_does_not_come_is_called_nothing(world):
    a = world.host("a")
    listener = a.listen()
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold("ROUND")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    command = a.start_migrate(relay.address)
    gate.wait().close()
    command.expect_exit(1)
    listener.err.wait("no guest came")
    check("called" not in listener.err.text(), listener.err.text())


@test
def a_listener_with_a_name_gives_it_to_the_guest(world):
    a, b = world.hosts()
    listener = b.listen("--name", "swift")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    equal(b.status("swift")["status"], "inmigrate", "status before")
    a.migrate(listener.address)
    moved_by(vm)
    listener.err.wait("the guest 'bird' is called 'swift' here")
    check(b.wait_running("swift"), "it does not run")
    finish(listener, vm)


@test
def a_move_on_one_host_keeps_both_apart(world):
    a = world.host("a")
    listener = a.listen()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    a.migrate(listener.address)
    moved_by(vm)
    # It has its own name as soon as the first knows that it has arrived.
    equal(a.wait_running()["pid"], listener.pid, "whose it is")
    equal(list(a.list()), ["bird"], "names")
    check("is called" not in listener.err.text(), listener.err.text())
    finish(listener, vm)


def fill(client):
    """It asks much, and never listens."""
    client.sock.setblocking(False)
    try:
        while True:
            client.send(b'{"execute": "query-commands"}\n')
    except BlockingIOError:
        pass


@test
def a_guest_is_found_by_its_name_wherever_on_a_host_it_went(world):
    a = world.host("a")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    for _ in range(3):
        listener = a.listen()
        # For whom the source still waits at its end, if not for long.
        fill(a.qmp())
        a.migrate(listener.address)
        equal(a.status()["pid"], listener.pid, "whose it is")
        moved_by(vm)
        vm = listener
    check("--name bird" in a.command("show", "bird").out, "show")
    vm.send(b"q")
    vm.expect_exit(0)


@test
def a_guest_has_its_own_name_again_where_nobody_else_has_it(world):
    a, b, listener, vm = moved_to_a_namesake(world)
    listener.err.wait("is called 'bird-2' here")
    back = a.listen()
    b.migrate(back.address, name="bird-2")
    moved_by(listener)
    a.wait_running()
    equal(list(a.list()), ["bird"], "names")
    back.send(b"q")
    back.expect_exit(0)


@test
def show_knows_a_guest_that_came_from_elsewhere(world):
    a, b = world.hosts()
    listener = b.listen()
    a.run("hello", "spin=yes", memory="48M").out.wait("hello")
    a.migrate(listener.address)
    b.wait_running()
    result = b.command("show", "bird")
    check(f"/proc/{listener.pid}/fd/" in result.out, result.out)
    check("--memory 48M" in result.out, result.out)
    check("copy the files" in result.err, result.err)


@test
def a_guest_keeps_its_named_processor_and_show_has_it(world):
    a, b = world.hosts()
    listener = b.listen()
    model = "x86-64,-kvm_steal_time,phys-bits=39"
    vm = a.run("hello", "spin=yes", options=["--cpu", model])
    vm.out.wait("hello")
    check(f" --cpu {model} " in a.command("show", "bird").out,
          "the model that was asked for")
    facts = a.command("cpu", "--guest", "bird").out
    check("phys-bits: 39\n" in facts and "kvmclock " in facts, facts)
    check("kvm_steal_time" not in facts, facts)
    a.migrate(listener.address)
    moved_by(vm)
    b.wait_running()
    equal(b.command("cpu", "--guest", "bird").out, facts, "facts")
    line = b.command("show", "bird").out
    again = re.search(r" --cpu (\S+) ", line)[1]
    equal(again, "x86-64,phys-bits=39,-kvm_steal_time", "in few words")
    other = a.run("hello", "spin=yes", options=["--cpu", again])
    other.out.wait("hello")
    equal(a.command("cpu", "--guest", "bird").out, facts, "facts")


@test
def cpu_says_what_hosts_have_in_common_and_what_one_lacks(world):
    host = world.host()
    here = host.command("cpu").out
    # A host with less: it is what both have.
    less = re.sub(r" pse36\b", "", here)
    less = re.sub(r"phys-bits: \d+", "phys-bits: 39", less)
    path = host.dir / "less.cpu"
    path.write_text(less)
    common = host.command("cpu", str(path))
    check("phys-bits=39" in common.out and "+pse36" not in common.out,
          common.out)
    check("this host has more than all have: pse36" in common.err, common.err)
    vm = host.run("hello", "spin=yes", options=["--cpu", common.out.strip()])
    vm.out.wait("hello")
    path.write_text(host.command("cpu", "--guest", "bird").out)
    equal(host.command("cpu", "--can-run", str(path)).out, "", "missing")
    path.write_text(here.replace("features: ", "features: vmx nosuch "))
    lacking = host.command("cpu", "--can-run", str(path), status=1)
    equal(lacking.out, "features that this godwit does not know: "
          "vmx nosuch\n", "missing")
    path.write_text("features: fpu\n")
    check("a line is missing" in
          host.command("cpu", str(path), status=1).err, "no facts")


@test
def a_guest_that_resets_after_a_move_boots_its_kernel_again(world):
    a, b = world.hosts()
    listener = b.listen()
    a.run("hello", "spin=yes", "marker").out.wait("hello")
    a.migrate(listener.address)
    b.wait_running()
    b.command("reset", "bird")
    listener.out.wait('hello: cmdline="spin=yes marker"')


# ---- the report ----

def check_ms(value, what):
    """Milliseconds: a number with at most three decimals, not negative."""
    check(isinstance(value, (int, float)) and value >= 0, f"{what}: {value!r}")
    decimals = repr(value).partition(".")[2]
    check(len(decimals) <= 3 and "e" not in decimals, f"{what}: {value!r}")


def check_round(entry):
    """One of the report's rounds."""
    equal(sorted(entry), ["bytes", "dirty_pages_per_s", "ms", "pages",
                          "zero_pages"], "fields of a round")
    check_ms(entry["ms"], "ms of a round")
    check(entry["pages"] >= 0 and entry["zero_pages"] >= 0, f"{entry}")


def check_report(text, status):
    """All of what --json promises."""
    report = json.loads(text)
    equal(report["status"], status, "status")
    fields = {"status", "total_ms", "downtime_ms", "predicted_downtime_ms",
              "max_downtime_ms", "over_ms", "phases", "rounds", "pages", "zero_pages", "hinted_pages",
              "bytes", "bandwidth_bytes_per_s", "throttled_vcpus",
              "closed_connections", "session"}
    missing = fields - set(report)
    check(not missing, f"missing: {missing}")
    more = {"completed": set(), "rehearsed": {"forecast"}}
    equal(set(report) - fields, more.get(status, {"error"}), "further fields")
    for name in ("total_ms", "downtime_ms", "predicted_downtime_ms",
                 "max_downtime_ms", "over_ms"):
        check_ms(report[name], name)
    equal(list(report["phases"]), list(PHASES), "phases")
    for name, value in report["phases"].items():
        check_ms(value, name)
    for entry in report["rounds"]:
        check_round(entry)
    return report


@test
def the_report_has_every_field_and_adds_up(world):
    a, b = world.hosts()
    listener = b.listen()
    a.run("dirty", "mib=8", "rate=20").out.wait("ready")
    result = a.migrate(listener.address, "--json")
    report = check_report(result.out, "completed")
    check(0 < report["downtime_ms"] <= report["total_ms"], "downtime")
    check(report["predicted_downtime_ms"] > 0, "nothing was predicted")
    check(report["pages"] >= 8 * 256, "fewer pages than the guest wrote")
    for kind in "pages", "zero_pages":
        rounds = sum(entry[kind] for entry in report["rounds"])
        check(report[kind] >= rounds, f"{kind} of the rounds don't add up")
    check(report["bytes"] > 8 << 20, "bytes")
    check(report["bandwidth_bytes_per_s"] > 0, "bandwidth")
    equal(report["throttled_vcpus"], [], "vCPUs that were slowed down")
    in_pause = sum(report["phases"][name] for name in PHASES[4:])
    check(abs(in_pause - report["downtime_ms"]) <=
          0.1 * report["downtime_ms"] + 1, f"phases of the pause: {report}")
    sent = sum(entry["pages"] for entry in report["rounds"])
    check(sent <= report["pages"], "the rounds have more pages than all")


@test
def the_report_of_a_failure_says_why(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    address = f"unix:{world.dir}/nobody"
    result = a.migrate(address, "--json", status=1)
    report = check_report(result.out, "failed")
    check(address in report["error"], report["error"])
    check(a.status()["running"], "the guest does not run")


@test
def migrate_says_in_words_how_it_went(world):
    a, b = world.hosts()
    a.run("heartbeat").out.wait(r"\.")
    out = a.migrate(b.listen().address, *PATIENT).out
    check(re.search(r"bird moved in [\d.]+ ms; paused for [\d.]+ ms "
                    r"\(predicted [\d.]+\)\n", out), out)
    check("phases, ms: hello " in out, out)


@test
def a_pause_longer_than_allowed_is_said_to_be(world):
    a, b = world.hosts()
    relay = world.relay(b.listen().address)
    gate = relay.hold("PAUSED")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    client = a.qmp()
    move = a.start_migrate(relay.address, "--max-downtime", "300ms",
                           "--abort-after", "1min")
    gate.wait()

    def paused_ms():
        phases = client.execute("query-migrate")["phases"]
        return sum(phases[name] for name in PHASES[4:])
    wait_until(lambda: paused_ms() > 300, "it is paused for too long")
    gate.release()
    move.expect_exit(0)
    over = r"[\d.]+ ms longer than the 300\.000 ms allowed"
    move.out.wait(rf"; paused for [\d.]+ ms \(predicted [\d.]+\), {over}$")
    vm.err.wait(f": paused for [\\d.]+ ms, {over}, ")


def on_terminal(world, columns, *words):
    """`godwit` with a terminal for its standard error; what it showed."""
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", 24, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    env = dict(world.host("a").env, TERM="vt100")
    process = subprocess.Popen([GODWIT, *words], env=env, stderr=theirs,
                               stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    os.close(theirs)
    return process, Output(ours)


@test
def migrate_shows_how_it_goes_on_a_terminal_in_the_room_that_there_is(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("dirty", "mib=8", "rate=20")
    vm.out.wait("ready")
    for columns in (100, 30):
        relay = world.relay(listener.address, faults=True)
        gate = relay.hold("ROUND_ACK")
        process, shown = on_terminal(world, columns, "migrate", "bird",
                                     "--to", relay.address)
        gate.wait()
        shown.wait(r"\rround 1[^\r]*\x1b\[K")
        check("for " in a.command("status", "bird").out and "round 1, " in
              a.command("status", "bird").out, "status")
        a.command("cancel", "bird")
        shown.wait("not moved: cancelled")
        equal(process.wait(), 1, "its status")
        gate.close()
        lines = shown.text().partition("godwit:")[0].split("\r")
        longest = max(len(line.replace("\x1b[K", "")) for line in lines)
        check(longest < columns, f"{longest} of {columns} columns: {lines}")
    # Elsewhere nothing is in the way of those who read.
    equal(a.migrate(listener.address).err, "", "words without a terminal")


@test
def migrating_what_is_not_there_is_refused(world):
    a = world.host("a")
    result = a.migrate("tcp:127.0.0.1:1", status=1)
    check("no VM 'bird' here; " in result.err, result.err)


@test
def a_second_migration_meanwhile_is_refused(world):
    a, b = world.hosts()
    relay = world.relay(b.listen().address)
    gate = relay.hold("ROUND")
    a.run("heartbeat").out.wait(r"\.")
    move = a.start_migrate(relay.address)
    gate.wait()
    result = a.migrate(relay.address, status=1)
    check("a move is under way already" in result.err, result.err)
    gate.release()
    move.expect_exit(0)


@test
def a_move_that_is_cancelled_leaves_the_guest_where_it_was(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address, faults=True)
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    gate = relay.hold("ROUND_ACK")
    move = a.start_migrate(relay.address)
    gate.wait()
    a.command("cancel", "bird")
    # The very next may begin: that one is over, if not yet at the target.
    result = a.migrate("tcp:127.0.0.1:1", status=1)
    check("127.0.0.1:1" in result.err, result.err)
    move.expect_exit(1)
    gate.release()
    vm.out.wait_more(100)
    listener.err.wait("the source called it off: cancelled")
    out = a.command("status", "bird").out
    check("migration: failed: " in out, out)
    result = a.command("cancel", "bird", status=1)
    check("no migration is under way" in result.err, result.err)
    a.migrate(listener.address)
    moved_by(vm)
    finish(listener, vm)


@test
def bandwidth_and_downtime_can_be_set_while_it_moves(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("dirty", "mib=16", "rate=200")
    vm.out.wait("ready")
    move = a.start_migrate(listener.address, "--bandwidth", "1M")
    client = a.qmp()
    wait_until(lambda: client.execute("query-migrate").get("ram", {})
               .get("transferred", 0) > 1 << 19, "pages are on their way")
    ram = client.execute("query-migrate")["ram"]
    check(ram["duplicate"] + ram["normal"], ram)
    equal(ram["dirty-sync-count"], 0, "rounds that have ended")
    equal(a.command("set", "bird", "max-downtime", "500ms").out,
          "bird: max-downtime 500ms, bandwidth 1M a second\n", "in force")
    equal(a.command("set", "bird", "bandwidth", "10G").out,
          "bird: max-downtime 500ms, bandwidth 10G a second\n",
          "in force")
    move.expect_exit(0)
    moved_by(vm)
    b.wait_running()
    equal(b.command("set", "bird", "max-downtime").out,
          "bird: max-downtime 10ms, bandwidth not limited\n",
          "in force where it is now")


@test
def a_limit_that_is_set_while_it_moves_leaves_the_others(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    gate = relay.hold("REHEARSE")
    vm = a.run("dirty", "mib=16")
    vm.out.wait("ready")
    move = a.start_migrate(relay.address, "--bandwidth", "1M")
    gate.wait()
    client = a.qmp()

    def limits():
        got = client.execute("query-migrate-parameters")
        return got["x-godwit-downtime-limit-us"], got["max-bandwidth"]
    equal(limits(), (1000000, 1 << 20), "of the migration's own")
    a.command("set", "bird", "max-downtime", "2s")
    equal(limits(), (2000000, 1 << 20), "after max-downtime was set")
    client.execute("migrate-set-parameters", max_bandwidth=10 << 30)
    equal(limits(), (2000000, 10 << 30), "after max-bandwidth was set")
    gate.release()
    move.expect_exit(0)
    moved_by(vm)


@test
def a_cap_that_comes_in_the_middle_of_a_round_is_kept_at_once(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    gate = relay.hold("PAGES")
    # More than the sockets on the way have room for.
    vm = a.run("dirty", "mib=24", "rate=1", "fill=yes", memory="48M")
    vm.out.wait("ready")
    move = a.start_migrate(relay.address)
    gate.wait()
    a.command("set", "bird", "bandwidth", "64K")
    gate.release()
    client = a.qmp()
    # Long enough for another guest to move.
    a.run("dirty", "mib=8", "fill=yes", "rate=1",
          name="other").out.wait("ready")
    a.migrate(b.listen().address, name="other")
    equal(client.migration("active")["ram"]["dirty-sync-count"], 0, "rounds")
    a.command("set", "bird", "bandwidth", "10G")
    move.expect_exit(0)
    moved_by(vm)


@test
def a_guest_too_busy_for_its_link_stays_when_time_is_over(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("dirty", "mib=16")
    vm.out.wait("ready")
    busy = ["--bandwidth", "20M", "--timeout", "2s", "--max-downtime", "10ms"]
    result = a.migrate(listener.address, *busy, status=1)
    check(re.search(r"ms allowed; --max-downtime [\d.]+ms would do.*; the "
                    "guest runs on here", result.err), result.err)
    a.wait_running()
    a.migrate(listener.address, *busy, "--on-timeout", "pause")
    moved_by(vm)
    b.wait_running()
    listener.send(b"q")
    listener.expect_exit(0)
