# SPDX-License-Identifier: MIT
"""Refusals: each names the thing, the value and what to do, with the right
exit status, and leaves everything as it was.
"""

import os
import re

import stream
from lib import BUILD, check, equal, test
from test_moves import finish

# ---- what a target can't give ----


def too_many_cpus(config):
    config.cpus = 255


def too_much_memory(config):
    config.give_memory(1 << 40)


def odd_memory(config):
    config.give_memory((32 << 20) + 4096)


def feature_of_no_host(config):
    config.leaf(7)[4] |= 1 << 26  # avx512pf, which no processor with PVH has


def unknown_feature(config):
    config.leaf(1)[5] |= 1 << 16


def other_vendor(config):
    config.leaf(0)[4:] = [0x756E6547, 0x6C65746E, 0x49656E69]
    if config.leaf(0x80000000)[4] == 0x756E6547:
        config.leaf(0)[4:] = [0x68747541, 0x444D4163, 0x69746E65]


def unknown_device(config):
    config.devices.append(["floppy", "floppy0", 0, ""])


def too_many_vectors(config):
    config.devices[0][2] = 33


def same_id_twice(config):
    config.devices.append(list(config.devices[0]))


def other_page_size(config):
    config.page_size = 65536


def other_layout(config):
    config.ranges = [(1 << 20, config.memory)]


def name_with_a_slash(config):
    config.name = "../evil"


def huge_kernel(config):
    config.kernel_size = 2 << 30


REFUSED = (
    (too_many_cpus, "255 vCPUs; 1 to 254 are possible"),
    (too_much_memory, "1048576 MiB"),
    (odd_memory, "memory: 33558528 bytes"),
    (feature_of_no_host, r"CPU feature avx512pf \(CPUID 7.0:EBX bit 26\) is "
     "not offered by this host; move the guest to a host"),
    (unknown_feature, "CPUID 1.0:ECX bit 16.*update it"),
    (other_vendor, "can't move between vendors"),
    (unknown_device, "device floppy0: this godwit has no 'floppy' device"),
    (too_many_vectors, "33 vectors; at most 32 a device"),
    (same_id_twice, "device id serial0: used twice"),
    (other_page_size, "page size 65536; this host has 4096"),
    (other_layout, "update it"),
    (name_with_a_slash, r"name '\.\./evil'"),
    (huge_kernel, r"2147483648"),
)


class Source:
    """A host with a guest that nobody wants to have."""

    def __init__(self, world):
        self.world = world
        self.host = world.host("a")
        self.vm = self.host.run("heartbeat")
        self.vm.out.wait(r"\.")

    def expect_refusal(self, listener, record, change, text):
        """Both sides give the same reason; the guest runs on."""
        relay = self.world.relay(listener.address, faults=True)
        relay.change(record, change)
        start = len(self.vm.err.data)
        command = self.host.start_migrate(relay.address)
        command.expect_exit(1)
        said = command.err.text()
        check(re.search("the target refuses: .*" + text, said), said)
        check("the guest runs on here" in said, said)
        self.vm.err.wait("the target refuses: .*" + text, start)
        listener.err.wait("no guest came: .*" + text)
        self.vm.out.wait_more(100)

    def expect_accepted(self, listener):
        """A refusal did the listener no harm."""
        self.host.migrate(listener.address)
        finish(listener, self.vm)


def changed(function):
    """A change of CONFIG, for the relay."""
    def change(payload):
        config = stream.Config(payload)
        function(config)
        return config.pack()
    return change


@test
def a_machine_that_a_target_can_not_build_is_refused_by_name(world):
    source = Source(world)
    listener = world.host("b").listen()
    for function, text in REFUSED:
        source.expect_refusal(listener, "CONFIG", changed(function), text)
    source.expect_accepted(listener)


@test
def a_config_that_is_unchanged_is_taken_from_a_relay(world):
    # Or the test above would prove nothing.
    source = Source(world)
    listener = world.host("b").listen()
    relay = world.relay(listener.address)
    relay.change("CONFIG", changed(lambda config: None))
    source.host.migrate(relay.address)
    finish(listener, source.vm)


@test
def a_version_that_nobody_speaks_is_refused_with_both(world):
    def newer(payload):
        return payload[:8] + b"\x07\0\x09\0" + payload[12:]
    source = Source(world)
    listener = world.host("b").listen()
    source.expect_refusal(listener, "HELLO", newer, "versions 7 to 9 of the "
                          "migration format, this godwit 1 to 1; update")
    source.expect_accepted(listener)


# ---- words ----

HELLO = str(BUILD / "guests/hello.elf")
RUN = ("run", "--kernel", HELLO)

# Words, exit status, what is said about it.
BAD = (
    (("fly",), 2, "fly: no such command"),
    (("runn",), 2, "did you mean `godwit run`"),
    (("run",), 2, "--kernel is missing"),
    (("run", "--kernel"), 2, "--kernel: needs a value"),
    (("run", "--kernel", "/nonexistent"), 1,
     "--kernel /nonexistent: No such file or directory"),
    (("run", "--kernel", "/"), 1, "--kernel /: not a regular file"),
    (("run", "--kernel", "/etc/passwd"), 1, "kernel"),
    (RUN + ("--initrd", "/nonexistent"), 1, "--initrd /nonexistent"),
    (RUN + ("--cpus", "0"), 2, "--cpus 0"),
    (RUN + ("--cpus", "255"), 2, "--cpus 255.*254"),
    (RUN + ("--cpus", "two"), 2, "--cpus two"),
    (RUN + ("--memory", "8M"), 2, "--memory 8M.*16M"),
    (RUN + ("--memory", "2T"), 2, "--memory 2T.*1024G"),
    (RUN + ("--memory", "lots"), 2, "--memory lots"),
    (RUN + ("--memory", "64M,shared"), 2, "shared"),
    (RUN + ("--name", "a/b"), 2, "name 'a/b'"),
    (RUN + ("--name", ""), 2, "--name '': .*use 1 to 63 letters"),
    (RUN + ("--disk", ""), 2, "--disk '': the path is empty"),
    (RUN + ("--cpu", "x86-64,-lm", "--debug-exit"), 2,
     "-lm: every 64-bit guest has it, and none is made without; leave it out"),
    (RUN + ("--net", "user,hostfwd=tcp:2222-192.0.2.1:22"), 2,
     "no guest has that address, but one of 10.0.2.0/24"),
    (RUN + ("--migrate-to", "unix:/etc/passwd"), 1,
     "--migrate-to: unix:/etc/passwd: what is there is no socket; give the"),
    (RUN + ("--disk", "x.img"), 1, "--disk x.img: No such file"),
    (RUN + ("--disk", "x.img,vectors=33"), 2,
     "vectors=33: give 1 to 32: .* at most 32 a device"),
    (RUN + ("--net", "tap=nosuch0"), 1,
     "--net: tap nosuch0: there is no such interface.*ip tuntap add"),
    (RUN + ("--net", "tap=lo"), 1, "--net: tap lo: .*no tap"),
    (RUN + ("--net", "tap=x,queues=16"), 2, "queues=16: at most 15"),
    (RUN + ("--net", "fd=77"), 1, "fd:77: Bad file descriptor"),
    (RUN + ("--console", "tty"), 2, "--console tty"),
    (RUN + ("--console", "unix:/nonexistent/x"), 1,
     "--console: listen on unix:/nonexistent/x: No such"),
    (RUN + ("--console", "file:/nonexistent/x"), 1,
     "--console: file:/nonexistent/x: No such"),
    (RUN + ("--console", "unix:" + "x" * 150, "--debug-exit"), 2, "107"),
    (RUN + ("--serial", "unix:/nonexistent/x"), 1,
     "--serial: listen on unix:/nonexistent/x: No such"),
    (RUN + ("--console", "stdio", "--console", "stdio"), 2, "console0's"),
    (RUN + ("--console", "stdio", "--serial", "stdio"), 2, "console0's"),
    (RUN + ("--debug-exot",), 2, "did you mean --debug-exit"),
    (RUN + ("--migrate-to", "somewhere"), 2, "--migrate-to somewhere"),
    (RUN + ("--migrate-to", "unix:x,after=soon"), 2, "soon"),
    (RUN + ("--migrate-to", "unix:/x,frob=1"), 2, "'frob=1'.*doubled"),
    (RUN + ("--cmdline", "x" * 3000), 2, "--cmdline.*2047"),
    (RUN + ("word",), 2, "word"),
    (("listen",), 2, "ADDR is missing"),
    (("listen", "tcp:127.0.0.1"), 2, "tcp:127.0.0.1.*no port"),
    (("listen", "tcp:127.0.0.1:99999"), 2, "99999.*65535"),
    (("listen", "tcp:::1:5"), 2, "brackets"),
    (("listen", "carrier-pigeon:x"), 2, "carrier-pigeon"),
    (("listen", "unix:" + "x" * 200), 2, "107"),
    (("listen", "unix:/nonexistent/x"), 1, "/nonexistent/x"),
    (("listen", "tcp:192.0.2.1:0", "--insecure"), 1, "192.0.2.1"),
    (("listen", "tcp:0.0.0.0:0"), 2, "--allow NETWORK, or --insecure"),
    (("listen", "tcp:[::]:0"), 2, "--allow NETWORK, or --insecure"),
    (("listen", "tcp:127.0.0.1:0", "--allow", "everyone"), 2, "everyone"),
    (("listen", "tcp:127.0.0.1:0", "--allow", "10.0.0.0/33"), 2, "/33"),
    (("listen", "tcp:127.0.0.1:0", "--allow", "10.1.2.3/24"), 2,
     "give 10.1.2.0/24, or 10.1.2.3 alone"),
    (("listen", "tcp:127.0.0.1:0", "--tls", "x"), 2, "--tls.*--allow"),
    (("listen", "fd:77"), 2, "77"),
    (("migrate",), 2, "NAME is missing"),
    (("migrate", "bird"), 2, "--to is missing"),
    (("migrate", "bird", "--to", "tcp:h:1", "--max-downtime", "0"), 2, "0"),
    (("migrate", "bird", "--to", "tcp:h:1", "--timeout", "1x"), 2, "1x"),
    (("migrate", "bird", "--to", "unix:x", "--on-timeout", "cry"), 2, "cry"),
    (("migrate", "bird", "--to", "tcp:h:99999"), 2,
     "the port is no number from 0 to 65535"),
    (("migrate", "", "--to", "unix:x"), 2, "name '': use 1 to 63 letters"),
    (("cpu", "--can-run", ""), 2, "--can-run '': the path is empty"),
    (("",), 2, "'': no such command"),
    (("set", "bird", "bandwidth", ""), 2, "bandwidth '': not a number"),
    (("migrate", "no.one", "--to", "unix:x"), 1, "no VM 'no.one'"),
    (("set", "bird", "volume", "11"), 2, "volume"),
    (("set", "bird", "max-downtime", "long"), 2, "long"),
    (("status", "bird"), 1, "no VM 'bird'"),
    (("kill", "bird"), 1, "no VM 'bird'"),
    (("show", "../x"), 2, r"name '\.\./x'"),
)


@test
def every_bad_word_has_its_own_error_and_status(world):
    a = world.host("a")
    for words, status, text in BAD:
        result = a.command(*words, status=None)
        what = f"`godwit {' '.join(words)[:80]}`"
        equal(result.status, status, f"{what}: status ({result.err})")
        check(re.search(text, result.err), f"{what} said: {result.err}")
        equal(result.out, "", f"{what}: standard output")
        check(result.err.startswith("godwit: "), f"{what} said: {result.err}")
        equal(result.err.count("\n"), 1, f"{what}: lines of {result.err!r}")


@test
def a_pipe_is_no_kernel_and_is_not_waited_for(world):
    pipe = world.dir / "pipe"
    os.mkfifo(pipe)
    result = world.host("a").command("run", "--kernel", pipe, status=1)
    check(f"{pipe}: not a regular file" in result.err, result.err)


@test
def an_empty_file_is_no_initrd(world):
    empty = world.dir / "empty"
    empty.touch()
    result = world.host("a").command(*RUN, "--initrd", empty, status=1)
    check(f"--initrd {empty}: the file is empty" in result.err, result.err)


@test
def a_runtime_directory_that_is_not_there_is_named_with_the_remedy(world):
    a = world.host("a")
    a.env["XDG_RUNTIME_DIR"] = f"{world.dir}/nowhere"
    vm = a.run("hello", debug_exit=False).expect_exit(1)
    check(re.search("nowhere.*set XDG_RUNTIME_DIR", vm.err.text()),
          vm.err.text())


@test
def an_address_that_is_taken_is_refused(world):
    a = world.host("a")
    listener = a.listen()
    result = a.command("listen", listener.address, status=1)
    check("Address already in use; somebody listens there" in result.err,
          result.err)
    path = f"unix:{world.dir}/nest"
    a.listen(address=path)
    a.command("listen", path, status=1)


@test
def the_socket_of_a_listener_that_was_killed_is_no_obstacle(world):
    a = world.host("a")
    path = f"unix:{world.dir}/nest"
    a.listen(address=path).kill()
    a.listen(address=path)


@test
def nobody_listening_is_said_with_the_address(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    address = f"unix:{world.dir}/nobody"
    result = a.migrate(address, status=1)
    check(address in result.err and "is `godwit listen` running there?" in
          result.err, result.err)


@test
def a_control_socket_and_a_console_are_no_places_to_move_to(world):
    a = world.host("a")
    line = world.dir / "line"
    vm = a.run("heartbeat", options=("--serial", f"unix:{line}"))
    a.wait_running()
    for path in (a.socket_path(), line):
        result = a.migrate(f"unix:{path}", status=1)
        check(f"unix:{path} is not where a `godwit listen` waits; a control "
              "socket and a console are other places: " in result.err,
              result.err)
    check(vm.running(), "the guest is gone")


@test
def a_file_a_directory_and_a_closed_descriptor_are_no_places_to_move_to(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    for address, why in (
            ("unix:/etc/passwd", "what is there is no socket; give the path"),
            (f"unix:{world.dir}", "what is there is no socket; give the path"),
            ("fd:77", "Bad file descriptor; pass a connected stream socket"),
            ("fd:0", "Socket operation on non-socket; pass a connected")):
        result = a.migrate(address, status=1)
        check(f"bird: not moved: {address}: {why}" in result.err, result.err)
        check("; the guest runs on here" in result.err, result.err)


@test
def a_move_that_can_not_begin_leaves_the_guest_running_and_says_so(world):
    a = world.host("a")
    a.run("heartbeat").out.wait(r"\.")
    result = a.migrate("tcp:nobody.invalid:1", status=1)
    check(re.search("not moved: host 'nobody.invalid': .*runs on here",
                    result.err), result.err)
    result = a.migrate("tcp:nobody.invalid:1", "--json", status=1)
    equal(result.json()["status"], "failed", "status")


@test
def help_and_version_go_to_standard_output(world):
    a = world.host("a")
    for words in (("--help",), ("help", "run"), ("run", "--help"),
                  ("migrate", "-h"), ("--version",)):
        result = a.command(*words)
        check(result.out and not result.err, f"{words}: {result.err}")


# ---- who may come ----

def greet(world, listener, source):
    """HELLO from an address of this host."""
    peer = world.connect(listener.address, source)
    try:
        peer.send("HELLO", stream.greeting(os.urandom(16)))
    except OSError:
        pass  # turned away already
    return peer


@test
def a_listener_lets_in_whom_allow_names_and_nobody_else(world):
    listener = world.host("b").listen("--allow", "127.0.0.2/32")
    try:
        greet(world, listener, "127.0.0.1").expect_end()
    except ConnectionError:
        pass
    listener.err.wait("127.0.0.1 is not in --allow; turned away")
    greet(world, listener, "127.0.0.2").expect("WELCOME")


@test
def others_may_come_when_the_listener_says_whom_or_that_it_does_not_care(
        world):
    b = world.host("b")
    for options in (("--insecure",), ("--allow", "127.0.0.0/8")):
        listener = b.start("listen", "tcp:0.0.0.0:0", *options)
        port = listener.out.wait(r"\A(\d+)\n")[1].decode()
        peer = world.connect(f"tcp:127.0.0.1:{port}")
        peer.send("HELLO", stream.greeting(os.urandom(16)))
        peer.expect("WELCOME")
