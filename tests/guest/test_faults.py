# SPDX-License-Identifier: MIT
"""Faults: either process killed or stopped at every phase, lines cut, peers
that say nothing, nonsense, or come twice.

Each time what the handoff rule (migration/FORMAT.md, section 3) says: at most
one side runs the guest, and it is lost only with the process that held it. The
relay tells the phase: it holds the record that begins it, so that what happens
next happens there and nowhere else.
"""

import json
import os
import signal

import stream
from lib import check, equal, test, wait_until
from test_moves import finish

IN_THE_PAUSE = ("PAUSED", "LOADED")
BEFORE_COMMIT = ("HELLO", "CONFIG", "REHEARSE", "ROUND", *IN_THE_PAUSE)


class Move:
    """A move of heartbeat that stands still at a record."""

    def __init__(self, world, record, *options, name="bird"):
        self.world = world
        self.name = name
        self.a, self.b = world.hosts()
        self.listener = self.b.listen()
        self.relay = world.relay(self.listener.address, faults=True)
        self.gate = self.relay.hold(record)
        self.vm = self.a.run("heartbeat", name=name)
        self.vm.out.wait(r"\.")
        # Who was there before `migrate` hears of things after it.
        self.client = self.a.qmp(name)
        self.command = self.a.start_migrate(self.relay.address, *options,
                                           name=name)
        self.gate.wait()

    def expect_kept(self):
        """The source has the guest, it runs, and all is well in it."""
        self.command.expect_exit(1)
        self.vm.out.wait_more(100)
        check(self.a.status(self.name)["running"],
              "it does not run at the source")
        wait_until(lambda: not self.b.list(), "nothing is left at the target")
        equal(self.listener.console(), b"", "the console at the target")
        self.vm.send(b"q")
        self.vm.expect_exit(0)

    def expect_moved(self):
        """The target has it, and nobody else."""
        self.b.wait_running()
        check(not self.vm.running(), "the source is still there")
        finish(self.listener, self.vm)

    def expect_uncertain(self):
        """Nobody answers: the guest is kept, paused, and not to be touched."""
        wait_until(lambda: self.a.status()["migration"].get("status") ==
                   "uncertain", "the status is uncertain")
        check(not self.a.status()["running"], "it runs, uncertain as it is")
        said = self.a.command("status", "bird").out
        there = f"handed over to {self.relay.address}, which do"
        check(said.startswith("bird: uncertain\n") and there in said and
              "type `godwit resolve bird`" in said, said)
        equal(self.a.qmp().execute("query-status")["status"],
              "finish-migrate", "status in QEMU's words")
        for command in ("resume", "cancel", "reset", "pause"):
            result = self.a.command(command, "bird", status=1)
            check(there in result.err and "`godwit resolve`" in result.err,
                  f"{command}: {result.err}")

    def expect_orphaned(self, uncertain):
        """What is said of a guest whose process was killed, and only once."""
        process = f"its process, {self.vm.pid}, has ended"
        said = (f"godwit: bird: not moved: {process}, and the guest with it; "
                "it had not begun to hand it over\n")
        if uncertain:
            said = (f"godwit: bird: uncertain: {process} in the pause: the "
                    f"guest either runs at {self.relay.address} or has ended "
                    "with it; type `godwit list` there\n")
        self.command.expect_exit(4 if uncertain else 3)
        equal(self.command.err.text(), said, "what is said")

    def expect_listening(self):
        """The listener is as good as new."""
        self.listener.err.wait("no guest came: ")
        host = self.world.host("c")
        vm = host.run("heartbeat")
        vm.out.wait(r"\.")
        host.migrate(self.listener.address)
        finish(self.listener, vm)

    def close(self):
        """Make room for the next one on these hosts."""
        for process in (self.vm, self.listener, self.command):
            process.close()


# ---- killed ----

@test
def the_guest_runs_on_when_the_target_is_killed_before_commit(world):
    for record in BEFORE_COMMIT:
        move = Move(world, record)
        move.listener.kill()
        # A LOADED that arrived would be answered by COMMIT.
        move.gate.close() if record == "LOADED" else move.gate.release()
        move.expect_kept()
        move.close()


@test
def the_target_lets_go_when_the_source_is_killed_before_commit(world):
    for record in BEFORE_COMMIT:
        move = Move(world, record)
        if record in IN_THE_PAUSE:
            move.client.event("MIGRATION", status="device")
        move.vm.kill()
        move.gate.close()
        move.expect_orphaned(record in IN_THE_PAUSE)
        equal(move.listener.console(), b"", "the console at the target")
        if record != "HELLO":
            move.expect_listening()
        move.close()


@test
def a_target_that_dies_with_commit_leaves_it_to_the_operator(world):
    move = Move(world, "COMMIT")
    move.listener.kill()
    move.gate.close()
    move.expect_uncertain()
    result = move.a.command("resolve", "bird", status=2)
    check(f"bird was handed over to {move.relay.address}, which did not say"
          in result.err, result.err)
    check("--resume or --discard" in result.err, result.err)
    # Its log does not say that it took the guest.
    equal(move.listener.err.text(), "", "the target's log")
    said = move.a.command("resolve", "bird", "--resume").err
    check("bird will run here again. That is right only" in said, said)
    check("1. Can the target" not in said, said)
    move.expect_kept()


@test
def a_target_that_dies_while_it_runs_the_guest_takes_it_along(world):
    move = Move(world, "RUNNING")
    move.b.wait_running()
    took = "the guest of session ([0-9a-f]{32}) runs here from now on"
    session = move.listener.err.wait(took)[1].decode()
    move.listener.kill()
    move.gate.close()
    move.expect_uncertain()
    # So an operator finds the line that is about this move.
    move.vm.err.wait(f"the guest of session {session} stays paused here")
    size = len(move.vm.out.data)
    move.a.command("resolve", "bird", "--discard")
    move.vm.expect_exit(124)
    move.command.wait()
    equal(len(move.vm.out.data), size, "bytes of a guest that was given up")


def uncertain_on_one_host(world, record):
    """A move from a host to itself, cut for good at a record."""
    a = world.host("a")
    listener = a.listen("--name", "nest")
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold(record)
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    move = a.start_migrate(relay.address)
    gate.wait()
    # First the address, or the source would ask again through it.
    relay.close()
    gate.close()
    wait_until(lambda: a.status()["status"] == "uncertain", "uncertain")
    return a, listener, vm, move


@test
def resolve_sees_the_guest_where_it_runs_on_this_host(world):
    a, listener, vm, move = uncertain_on_one_host(world, "RUNNING")
    said = a.command("resolve", "bird", "--resume", status=1).err
    check("bird: nest on this host has it; --discard is what is right"
          in said, said)
    check(not a.status()["running"], "it runs twice")
    a.command("resolve", "bird", "--discard")
    vm.expect_exit(124)
    move.wait()
    listener.send(b"q")
    listener.expect_exit(0)


@test
def resolve_resumes_what_a_listener_on_this_host_has_let_go(world):
    a, listener, vm, move = uncertain_on_one_host(world, "COMMIT")
    listener.err.wait("no guest came: ")
    # It has nothing of that move any more, and is no obstacle.
    a.command("resolve", "bird", "--resume")
    move.wait()
    vm.out.wait_more(100)
    equal(listener.console(), b"", "the console at the target")
    vm.send(b"q")
    vm.expect_exit(0)


@test
def resolve_names_who_does_not_answer(world):
    a, listener, vm, move = uncertain_on_one_host(world, "COMMIT")
    listener.err.wait("no guest came: ")
    sleeper = a.run("heartbeat", name="sleeper")
    sleeper.out.wait(r"\.")
    sleeper.stop()
    said = a.command("resolve", "bird", "--resume").err
    check("bird: whether sleeper has it is not known: " in said, said)
    move.wait()
    vm.out.wait_more(100)


@test
def a_migrate_that_is_told_to_end_leaves_the_move_going(world):
    move = Move(world, "ROUND")
    move.command.signal(signal.SIGTERM)
    move.command.expect_exit(4)
    equal(move.command.err.text(),
          "godwit: bird: not followed to its end; type `godwit status bird` "
          "to see how it goes: ended by SIGTERM\n", "what is said")
    move.gate.release()
    move.vm.expect_exit(124)
    move.expect_moved()


@test
def migrate_says_4_when_it_stays_uncertain(world):
    move = Move(world, "COMMIT")
    move.listener.kill()
    move.gate.close()
    move.command.expect_exit(4)
    move.command.err.wait(f"was handed over to {move.relay.address}, which "
                          "does not say whether it runs there; type `godwit "
                          "resolve bird` to see what to check")
    move.expect_uncertain()
    again = ("migrate", "bird", "--to", "unix:elsewhere")
    equal(move.a.command(*again, status=4).err,
          "godwit: bird: not moved: whether the guest is here is uncertain: "
          "type `godwit resolve bird` to see what to check\n", "what is said")
    said = json.loads(move.a.command(*again, "--json", status=4).out)["error"]
    check(f"was handed over to {move.relay.address}" in said, said)


@test
def the_guest_runs_at_the_target_when_the_source_dies_after_commit(world):
    for record in ("COMMIT", "RUNNING"):
        move = Move(world, record)
        move.vm.kill()
        move.gate.release()
        move.expect_moved()
        move.expect_orphaned(True)
        move.close()


@test
def resolve_wants_something_uncertain(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    for word in ("--resume", "--discard"):
        result = a.command("resolve", "bird", word, status=1)
        check("nothing is uncertain" in result.err, result.err)
    check(a.status()["running"], "it does not run")


# ---- cut ----

@test
def the_guest_runs_on_when_the_line_is_cut_before_commit(world):
    for record in BEFORE_COMMIT + ("REHEARSED", "ROUND_ACK", "ROUND_END"):
        move = Move(world, record)
        move.gate.close()
        move.expect_kept()
        move.close()


@test
def a_listener_listens_on_after_an_attempt_that_was_cut(world):
    move = Move(world, "PAUSED")
    move.gate.close()
    move.expect_listening()


@test
def a_lost_commit_is_asked_for_and_the_guest_runs_on(world):
    move = Move(world, "COMMIT")
    move.gate.close()
    move.expect_kept()
    check("QUERY" in move.relay.connections[-1].names["source"], "no QUERY")


@test
def a_lost_running_is_asked_for_and_the_guest_stays_over_there(world):
    move = Move(world, "RUNNING")
    move.gate.close()
    move.command.expect_exit(0)
    move.vm.expect_exit(124)
    check("QUERY" in move.relay.connections[-1].names["source"], "no QUERY")
    move.expect_moved()


# ---- stopped ----

@test
def a_target_that_was_stopped_for_a_while_goes_on(world):
    for record in ("HELLO", "CONFIG", "REHEARSE", "ROUND", "PAUSED"):
        move = Move(world, record)
        move.listener.stop()
        move.gate.release()
        move.listener.cont()
        move.command.expect_exit(0)
        move.vm.expect_exit(124)
        move.expect_moved()
        move.close()


@test
def a_source_that_was_stopped_for_a_while_goes_on(world):
    for record in ("WELCOME", "ACCEPT", "REHEARSED", "ROUND_ACK"):
        move = Move(world, record)
        move.vm.stop()
        move.gate.release()
        move.vm.cont()
        move.command.expect_exit(0)
        move.vm.expect_exit(124)
        move.expect_moved()
        move.close()


@test
def a_target_that_is_stopped_in_the_pause_costs_the_attempt_only(world):
    move = Move(world, "PAUSED", "--abort-after", "500ms")
    move.listener.stop()
    move.gate.release()
    move.command.expect_exit(1)
    check("within 500.000 ms of pause, which is --abort-after;" in
          move.command.err.text(), move.command.err.text())
    move.vm.out.wait_more(100)
    move.listener.cont()
    move.listener.err.wait("no guest came: ")
    move.expect_kept()


@test
def a_target_that_is_stopped_and_killed_costs_the_attempt_only(world):
    for record in ("CONFIG", "ROUND", "PAUSED"):
        move = Move(world, record)
        move.listener.stop()
        move.gate.release()
        move.listener.kill()
        move.expect_kept()
        move.close()


@test
def a_target_that_finds_commit_too_late_destroys_the_guest(world):
    move = Move(world, "COMMIT")
    move.listener.stop()
    move.gate.release()
    # RUNNING is overdue at the source later than COMMIT at the target.
    move.expect_uncertain()
    move.listener.cont()
    move.expect_kept()
    move.listener.err.wait("COMMIT did not come in time")


@test
def a_source_that_finds_loaded_too_late_keeps_the_guest(world):
    move = Move(world, "LOADED")
    move.vm.stop()
    move.gate.release()
    move.listener.err.wait("COMMIT did not come in time")
    move.vm.cont()
    move.expect_kept()


@test
def a_stopped_source_that_is_killed_does_not_hold_the_target(world):
    move = Move(world, "ROUND_ACK")
    move.vm.stop()
    move.gate.release()
    move.vm.kill()
    move.expect_listening()


# ---- the guest, meanwhile ----

@test
def a_guest_that_ends_while_it_moves_ends_the_move(world):
    for record in ("CONFIG", "ROUND"):
        move = Move(world, record)
        move.vm.send(b"q")
        move.vm.expect_exit(0)
        move.gate.release()
        move.command.expect_exit(3)
        move.command.err.wait("bird: not moved; its VM is gone: the guest ended "
                              "itself with status 0")
        wait_until(lambda: not move.b.list(), "nothing is left over there")
        move.close()


@test
def a_guest_that_resets_while_it_moves_boots_once(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    gate = relay.hold("ROUND")
    vm = a.run("hello", "spin=yes")
    first = vm.out.wait("hello: .*\n").end()
    command = a.start_migrate(relay.address)
    gate.wait()
    a.command("reset", "bird")
    vm.out.wait("hello: .*\n", start=first)
    gate.release()
    command.expect_exit(0)
    b.wait_running()
    equal(listener.console(), b"", "greetings at the target")


@test
def sigterm_at_the_source_calls_the_move_off(world):
    move = Move(world, "ROUND")
    move.vm.popen.terminate()
    move.vm.expect_exit(125)
    by = f"ended by SIGTERM from process {os.getpid()}"
    move.vm.err.wait(by)
    move.command.expect_exit(3)
    move.command.err.wait(by)
    move.gate.close()
    move.expect_listening()


@test
def a_guest_that_is_killed_while_it_moves_is_not_said_to_run_on(world):
    move = Move(world, "ROUND")
    move.a.command("kill", "bird")
    move.command.expect_exit(3)
    by = r"ended at the control socket by process \d+, as `godwit kill` does"
    move.command.err.wait(f"bird: not moved; its VM is gone: {by}$")
    move.vm.err.wait(by)
    move.gate.close()
    move.expect_listening()


@test
def a_guest_that_was_paused_and_did_not_move_is_said_to_be_paused(world):
    move = Move(world, "ROUND")
    move.a.command("pause", "bird")
    move.a.command("cancel", "bird")
    move.command.expect_exit(1)
    check("the guest is here, paused" in move.command.err.text(),
          move.command.err.text())
    move.gate.close()


@test
def sigterm_at_the_target_calls_the_move_off(world):
    move = Move(world, "ROUND")
    move.listener.popen.terminate()
    move.gate.release()
    check(move.listener.wait() in (0, 1), "the listener's status")
    move.expect_kept()


# ---- strange peers ----

@test
def a_target_that_says_nothing_can_be_cancelled(world):
    a = world.host("a")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    address, accept = world.accept_one()
    command = a.start_migrate(address)
    peer = accept()
    peer.expect("HELLO")
    a.command("cancel", "bird")
    command.expect_exit(1)
    vm.out.wait_more(100)


@test
def a_target_that_says_nothing_is_given_up_at_the_timeout(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    address, accept = world.accept_one()
    command = a.start_migrate(address, "--timeout", "200ms")
    accept().expect("HELLO")
    command.expect_exit(1)
    check("timeout: 200.000 ms are over, and the target has not answered in "
          "phase hello" in command.err.text(), command.err.text())
    move = Move(world, "ROUND_ACK", "--timeout", "5s", name="other")
    move.command.expect_exit(1)
    check("has not answered in phase rounds" in move.command.err.text(),
          move.command.err.text())
    move.gate.close()
    move.expect_kept()


@test
def how_long_a_pause_would_be_is_not_made_up(world):
    a, b = world.hosts()
    vm = a.run("dirty", "mib=16", "rate=20", "fill=yes", memory="64M")
    vm.out.wait("ready")
    listener = b.listen()
    text = a.migrate(listener.address, "--bandwidth", "64K", "--timeout",
                     "500ms", "--max-downtime", "10ms", status=1).err
    check("timeout: too little could be sent to tell how long the pause would "
          "be; " in text, text)
    check("the guest runs on here" in text, text)


@test
def a_pause_at_the_timeout_is_none_where_nothing_was_sent(world):
    a = world.host("a")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    address, accept = world.accept_one()
    command = a.start_migrate(address, "--timeout", "200ms", "--on-timeout",
                              "pause")
    accept().expect("HELLO")
    command.expect_exit(1)
    check("; nothing has been sent that a pause could finish" in
          command.err.text(), command.err.text())
    vm.out.wait_more(20)


def answered_with(world, a, answer, said):
    """A target of our own answers HELLO; the source says what it thinks."""
    address, accept = world.accept_one()
    command = a.start_migrate(address)
    peer = accept()
    answer(peer, peer.expect("HELLO"))
    command.expect_exit(1)
    command.err.wait(said)
    check(a.status()["running"], "it does not run")


@test
def a_target_that_speaks_nonsense_is_left_alone(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    noise = os.urandom(4096)
    early = stream.record("LOADED", bytes(24))
    running = stream.record("RUNNING", bytes(8))
    reason = stream.record("REFUSE", bytes(4) + stream.string("\x1b[2Jboo"))
    huge = b"\x41\0\0\0\xff\xff\xff\x7f\0\0\0\0\0\0\0\0"
    answered_with(world, a, lambda peer, _: peer.sock.sendall(noise), "bird")
    answered_with(world, a, lambda peer, _: peer.sock.sendall(early),
                  "LOADED")
    answered_with(world, a, lambda peer, _: peer.sock.sendall(running),
                  "RUNNING")
    answered_with(world, a, lambda peer, _: peer.sock.sendall(huge),
                  "0x7fffffff")
    answered_with(world, a, lambda peer, _: peer.close(), "closed")
    # And no control characters on the user's terminal.
    answered_with(world, a, lambda peer, _: peer.sock.sendall(reason),
                  r"the target refuses: [^\x1b]*boo")


@test
def a_listener_drops_noise_and_listens_on(world):
    b = world.host("b")
    listener = b.listen()
    for noise in (b"GET / HTTP/1.1\r\n\r\n" * 10, os.urandom(4096),
                  bytes(4096), stream.record("COMMIT"),
                  stream.record("HELLO", b"short"), b"\xff" * 16):
        peer = world.connect(listener.address)
        peer.sock.sendall(noise)
        peer.expect_end()
    a = world.host("a")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    a.migrate(listener.address)
    finish(listener, vm)


@test
def a_second_hello_is_told_that_it_is_busy_and_the_first_goes_on(world):
    move = Move(world, "ROUND")
    peer = world.connect(move.listener.address)
    peer.send("HELLO", stream.greeting(os.urandom(16)))
    reason = stream.reason_of(peer.expect("REFUSE"))
    check("busy with another migration" in reason, reason)
    move.gate.release()
    move.command.expect_exit(0)
    move.vm.expect_exit(124)
    move.expect_moved()


@test
def who_asks_for_a_session_that_nobody_knows_is_told_so(world):
    listener = world.host("b").listen()
    session = os.urandom(16)
    peer = world.connect(listener.address)
    peer.send("QUERY", stream.greeting(session))
    verdict = peer.expect("VERDICT")
    equal((verdict[:16], stream.VERDICTS[verdict[16]]), (session, "unknown"),
          "VERDICT")


@test
def a_listener_that_has_its_guest_takes_no_other(world):
    a, b = world.hosts()
    listener = b.listen()
    relay = world.relay(listener.address)
    gate = relay.hold("DONE")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    command = a.start_migrate(relay.address)
    gate.wait()
    b.wait_running()
    peer = world.connect(listener.address)
    peer.send("HELLO", stream.greeting(os.urandom(16)))
    peer.expect("REFUSE")
    gate.release()
    command.expect_exit(0)
    vm.expect_exit(124)
    finish(listener, vm)


@test
def two_hundred_silent_connections_do_not_keep_a_guest_out(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    for _ in range(200):
        world.connect(listener.address)
    a.migrate(listener.address)
    finish(listener, vm)
