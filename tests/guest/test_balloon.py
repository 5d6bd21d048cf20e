# SPDX-License-Identifier: MIT
"""Memory that guests give back: its user, QMP, and what the host sees of it."""

import contextlib
import fcntl
import pathlib
import re

from lib import Skipped, check, equal, test, wait_until
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
    check("has 36M of it" in said and "asked" not in said, said)
    equal(a.command("set", "bird", "memory").out,
          "bird: memory 64M, of which the guest has 36M\n", "what it has")
    # More than it wants to give, which is known to be asked for.
    said = a.command("set", "bird", "memory", "16M")
    check(said.out.endswith("and it is asked to have 16M\n"), said.out)
    equal(said.err, "", "warnings")
    wait_until(lambda: a.status()["actual-memory"] == 32 * MIB,
               "all of the pool is in the balloon")
    said = a.command("status", "bird").out
    check("has 32M of it, and is asked to have 16M\n" in said, said)
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
    a.wait_running()
    said = a.command("set", "bird", "memory", "16M", status=1).err
    check("--balloon off; run it again without that" in said, said)
    check("--balloon off" in a.command("show", "bird").out, "show")
    equal(a.command("set", "bird").out,
          "bird: max-downtime 10ms, bandwidth not limited\n"
          "bird: memory 32M, all of which it keeps: --balloon off\n",
          "all that can be set")
    equal(a.qmp().error("query-balloon"),
          "No balloon device has been activated", "the error")
    vm.kill()


@test
def what_no_guest_can_have_is_refused(world):
    a = world.host("a")
    vm = a.run("heartbeat")
    a.wait_running()
    said = a.command("set", "bird", "memory", "33M", status=1).err
    check("memory 33M: the guest was made with 32M; give 16M to 32M" in said,
          said)
    said = a.qmp().error("balloon", value=MIB)
    check("memory 1M: no guest is made with less than 16M" in said, said)
    said = a.command("set", "bird", "memory", "16M")
    equal(said.out, "bird: memory 32M, and it is asked to have 16M\n", "said")
    check("no virtio-balloon driver that answers" in said.err, said.err)
    said = a.command("status", "bird").out
    check("asked to have 16M; no driver of its answers" in said, said)
    status = a.status()
    equal((status["actual-memory"], status["wanted-memory"]),
          (32 * MIB, 16 * MIB), "without a driver a wish is a wish")
    check(not re.search("balloon", a.command("show", "bird").out), "show")
    vm.kill()


# ---- huge pages ----

HUGE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
POOL_FILE = HUGE / "nr_hugepages"


def huge_pages_for_all():
    """How many nobody has, nor has been promised."""
    free, promised = (int((HUGE / f"{word}_hugepages").read_text())
                      for word in ("free", "resv"))
    return free - promised


@contextlib.contextmanager
def huge_pages(count):
    """The host has so many meanwhile that are free, and no others are."""
    if not HUGE.exists():
        raise Skipped("this host has no huge pages of 2 MiB")
    with POOL_FILE.open() as pool:
        # Other runs of this test change the same pool.
        fcntl.flock(pool, fcntl.LOCK_EX)
        before = int(pool.read())
        if huge_pages_for_all():
            raise Skipped("this host's huge pages are for somebody else")
        try:
            POOL_FILE.write_text(str(before + count))
        except OSError as error:
            raise Skipped(f"no huge pages can be reserved here: {error}")
        try:
            if huge_pages_for_all() != count:
                raise Skipped("this host has no memory for huge pages")
            yield
        finally:
            POOL_FILE.write_text(str(before))


@test
def each_host_chooses_what_memory_is_made_of(world):
    a, b = world.hosts()
    with huge_pages(32):
        vm = a.run("dirty", "pages=400", "progress=0", memory="64M,hugepages")
        vm.out.wait("ready")
        check("--memory 64M,hugepages" in a.command("show", "bird").out,
              "show")
        # All of the pool is promised to it.
        full = b.listen("--once", "--hugepages")
        said = a.migrate(full.address, status=1).err
        check("take 32 huge pages of 2 MiB, and the host has" in said, said)
        full.expect_exit(1)
        plain = b.listen()
        report = a.migrate(plain.address, "--json").json()
        sent = [entry["pages"] for entry in report["rounds"]]
        # Then what it wrote to, and not all that is in the same huge pages.
        for again in sent[1:] + [report["pages"] - sum(sent)]:
            check(again < 512, f"sent again: {again} pages of 4 KiB")
        moved_by(vm)
        check("hugepages" not in b.command("show", "bird").out, "show")
        # And back into huge ones.
        huge = a.listen("--hugepages")
        b.migrate(huge.address)
        moved_by(plain)
        huge.send(b"q")
        huge.expect_exit(0)
