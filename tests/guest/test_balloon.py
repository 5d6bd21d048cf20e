# SPDX-License-Identifier: MIT
"""Memory that guests give back: its user, QMP, and what the host sees of it."""

import re

from lib import check, equal, test, wait_until
from test_moves import finish, moved_by

MIB = 1 << 20
SIZE = "64M"
POOL = 8192  # pages


def run_balloon(host, *cmdline):
    """A guest whose pool is half of its memory, all of it in use once."""
    vm = host.run("balloon", f"pages={POOL}", "free=100", *cmdline,
                  memory=SIZE)
    vm.out.wait("ready")
    return vm


@test
def a_guest_gives_back_what_its_user_wants(world):
    a = world.host("a")
    vm = run_balloon(a, "busy=no", "reports=no")
    qmp = a.qmp()
    equal(qmp.execute("query-balloon"), {"actual": 64 * MIB}, "the balloon")
    full = vm.resident()
    a.command("set", "bird", "memory", "36M")
    vm.out.wait("has 7168")
    qmp.event("BALLOON_CHANGE", actual=36 * MIB)
    equal(qmp.execute("query-balloon"), {"actual": 36 * MIB}, "the balloon")
    # Half of it would do: the host may back memory in huge pages.
    wait_until(lambda: vm.resident() < full - 14 * MIB,
               f"{vm.resident()} bytes of {full} are in use")
    said = a.command("status", "bird").out
    check("has 36 MiB of it" in said and "asked" not in said, said)
    # More than it wants to give, which is known to be asked for.
    a.command("set", "bird", "memory", "8M")
    wait_until(lambda: a.status()["actual-memory"] == 32 * MIB,
               "all of the pool is in the balloon")
    said = a.command("status", "bird").out
    check("has 32 MiB of it, and is asked to have 8 MiB" in said, said)
    a.command("set", "bird", "memory", "64M")
    vm.out.wait("has 0")
    wait_until(lambda: "of it" not in a.command("status", "bird").out,
               "nothing is said of memory when nothing is missing")
    vm.send(b"q")
    vm.expect_exit(0)


@test
def what_is_reported_free_is_no_longer_the_guests(world):
    vm = run_balloon(world.host("a"), "busy=no")
    wait_until(lambda: vm.resident() < POOL * 4096,
               f"{vm.resident()} bytes are in use")
    vm.send(b"q")
    vm.expect_exit(0)


@test
def a_balloon_moves_as_it_is(world):
    a, b = world.hosts()
    vm = run_balloon(a, "reports=no")
    a.command("set", "bird", "memory", "48M")
    vm.out.wait("has 4096")
    listener = b.listen()
    report = a.migrate(listener.address, "--json").json()
    check("hinted_pages" in report, "the report counts hints")
    moved_by(vm)
    b.wait_running()
    status = b.status()
    equal((status["actual-memory"], status["wanted-memory"]),
          (48 * MIB, 48 * MIB), "what the guest has, and is to have")
    check(listener.resident() < 48 * MIB, "the target holds what was sent")
    b.command("set", "bird", "memory", "64M")
    listener.out.wait("has 0")
    listener.send(b"q")
    listener.expect_exit(0)


@test
def a_guest_without_a_balloon_keeps_what_it_has(world):
    a = world.host("a")
    vm = a.run("heartbeat", options=("--balloon", "off"))
    said = a.command("set", "bird", "memory", "16M", status=1).err
    check("--balloon off" in said, said)
    check("--balloon off" in a.command("show", "bird").out, "show")
    equal(a.qmp().error("query-balloon"),
          "No balloon device has been activated", "the error")
    vm.kill()


@test
def what_no_guest_can_have_is_refused(world):
    a = world.host("a")
    vm = a.run("heartbeat")
    said = a.command("set", "bird", "memory", "33M", status=1).err
    check("made with 32 MiB" in said, said)
    a.command("set", "bird", "memory", "16M")
    status = a.status()
    equal((status["actual-memory"], status["wanted-memory"]),
          (32 * MIB, 16 * MIB), "without a driver a wish is a wish")
    check(not re.search("balloon", a.command("show", "bird").out), "show")
    vm.kill()
