# SPDX-License-Identifier: MIT
"""Dry runs between processes: what a move would cost, and nothing moved."""

import re

from lib import check, equal, test
from test_disks import image, run_blk, verify_and_end
from test_moves import PHASES, check_ms, check_report, finish, moved_by


def check_forecast(report, converges):
    """All of what --dry-run --json adds."""
    forecast = report["forecast"]
    if not converges:
        equal(forecast.pop("forced"), False, "forced")
        check_ms(forecast.pop("enough_max_downtime_ms"), "what would do")
        forecast.pop("enough_throttle_percent")
    equal(sorted(forecast), [
        "bandwidth_bytes_per_s", "converges", "dirty_pages_per_s",
        "downtime_ms", "max_downtime_ms", "phases", "reason", "rounds",
        "throttle_percent", "total_ms"], "fields of a forecast")
    equal(forecast["converges"], converges, f"converges: {forecast}")
    equal(list(forecast["phases"]), list(PHASES), "phases")
    for name in ("total_ms", "downtime_ms", "max_downtime_ms"):
        check_ms(forecast[name], name)
    check(forecast["rounds"] >= 2, "rounds")
    check(forecast["bandwidth_bytes_per_s"] > 0, "bandwidth")
    pause = sum(forecast["phases"][name] for name in PHASES[4:])
    check(abs(pause - forecast["downtime_ms"]) < 0.01, "phases don't add up")
    equal(report["downtime_ms"], 0.0, "the guest's pause")


@test
def a_dry_run_leaves_the_guest_and_a_once_listener_that_takes_it_then(world):
    a, b = world.hosts()
    listener = b.listen("--once")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    client = a.qmp()
    result = a.migrate(listener.address, "--dry-run", "--json")
    check_forecast(check_report(result.out, "rehearsed"), True)
    said = a.migrate(listener.address, "--dry-run").out
    check(said.startswith("bird was not moved, and runs on here. A move would "
                          "take about "), said)
    check("\n  phases, ms: hello " in said, said)
    vm.out.wait_more(20)
    now = client.execute("query-migrate")
    equal(now["status"], "rehearsed", "query-migrate")
    check("forecast" in now, "query-migrate has no forecast")
    check("dry run: rehearsed" in a.command("status", "bird").out, "status")
    check(listener.running(), "the listener has ended")
    listener.err.wait("the source called it off: it was no more than a dry run")
    # Nobody ever stopped it.
    check("STOP" not in [event["event"] for event in client.events],
          "the guest was stopped")
    a.migrate(listener.address)
    moved_by(vm)
    finish(listener, vm)


@test
def a_move_may_follow_on_the_heels_of_a_dry_run_that_had_the_disk(world):
    a, b = world.hosts()
    path = image(world)
    listener = b.listen("--disk", f"disk0={path}")
    vm = run_blk(a, path)
    # What the listener still unmakes of one has the disk that the next wants.
    for _ in range(3):
        a.migrate(listener.address, "--dry-run")
    a.migrate(listener.address)
    moved_by(vm)
    verify_and_end(listener)


@test
def a_move_may_follow_on_the_heels_of_one_that_was_lost(world):
    a, b = world.hosts()
    path = image(world)
    listener = b.listen("--disk", f"disk0={path}")
    vm = run_blk(a, path)
    for _ in range(3):
        relay = world.relay(listener.address, faults=True)
        gate = relay.hold("ROUND")
        lost = a.start_migrate(relay.address)
        gate.wait()
        gate.close()
        lost.expect_exit(1)
        lost.err.wait(f"{relay.address} closed the connection in phase rounds "
                      "and said not why; see the log of the `godwit listen`")
    listener.err.wait("the source closed the connection and said not why; see "
                      f"its log, unless it has ended; listens on at "
                      f"{listener.address}")
    a.migrate(listener.address)
    moved_by(vm)
    verify_and_end(listener)


@test
def a_dry_run_with_a_threshold_that_can_not_be_kept_ends_with_5(world):
    a, b = world.hosts()
    listener = b.listen()
    vm = a.run("dirty", "mib=8")
    vm.out.wait("ready")
    limits = ["--dry-run", "--max-downtime", "100us"]
    said = a.migrate(listener.address, *limits, status=5).out
    check(re.search(r"bird was not moved, and runs on here\. A move would be "
                    r"called off after about \d+\.\d ms: it would pause the "
                    r"guest for \d+\.\d{3} ms, more than the 0\.100 ms "
                    r"allowed.*\.\n  --max-downtime \d+[mu]?s would do(, with "
                    r"the vCPUs that dirty slowed by \d+ %)?, if link and "
                    r"guest stay as they are\.\n", said), said)
    result = a.migrate(listener.address, *limits, "--json", status=5)
    check_forecast(check_report(result.out, "rehearsed"), False)
    a.wait_running()


@test
def however_a_dry_run_ends_a_once_listener_listens_on(world):
    a, b = world.hosts()
    listener = b.listen("--once")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    relay = world.relay(listener.address, faults=True)

    def held(record, *options):
        gate = relay.hold(record)
        return gate, a.start_migrate(relay.address, "--dry-run", *options)

    gate, move = held("ROUND_ACK")
    gate.wait()
    said = a.command("status", "bird").out
    check(f"dry run: active to {relay.address}, for " in said, said)
    said = a.command("list").out
    check(f"  dry run to {relay.address}\n" in said, said)
    said = a.migrate(listener.address, status=1).err
    check("a dry run is under way already" in said, said)
    a.command("cancel", "bird")
    move.expect_exit(1)
    gate.release()
    listener.err.wait("called it off: cancelled")
    gate, move = held("ACCEPT", "--timeout", "1s")
    move.expect_exit(1)
    gate.release()
    listener.err.wait("called it off: timeout")
    gate, move = held("REHEARSED")
    gate.wait().close()
    move.expect_exit(1)
    listener.err.wait("(?s)(no guest came.*){3}")
    vm.out.wait_more(20)
    a.migrate(listener.address)
    moved_by(vm)
    finish(listener, vm)


@test
def a_dry_run_that_is_refused_leaves_a_once_listener_and_says_why(world):
    a, b = world.hosts()
    image = world.dir / "image"
    image.write_bytes(bytes(65536))
    listener = b.listen("--once")
    vm = a.run("heartbeat", options=("--disk", image))
    vm.out.wait(r"\.")
    result = a.migrate(listener.address, "--dry-run", status=1)
    check("bird: dry run given up: the target refuses: " in result.err,
          result.err)
    listener.err.wait("no guest came: ")
    check("disk0" in a.migrate(listener.address, status=1).err, "no disk")
    # That one was to move.
    listener.expect_exit(1)
    result = a.migrate("tcp:127.0.0.1:1", "--dry-run", status=1)
    check("dry run given up: " in result.err, result.err)
    vm.out.wait_more(20)


@test
def a_listener_tells_its_clients_of_a_dry_run(world):
    a, b = world.hosts()
    listener = b.listen("--name", "nest")
    vm = a.run("heartbeat")
    vm.out.wait(r"\.")
    client = b.qmp("nest")
    a.migrate(listener.address, "--dry-run")
    client.event("MIGRATION", status="active")
    client.event("MIGRATION", status="rehearsed")
