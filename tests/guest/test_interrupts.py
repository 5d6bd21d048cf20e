# SPDX-License-Identifier: MIT
"""Interrupts of devices, counted by the guest while it moves."""

from lib import check, test

MOVES = 6


def interrupts_move(world, cpus):
    """msix, to and fro."""
    hosts = world.hosts()
    vm = hosts[0].run("msix", cpus=cpus)
    vm.out.wait("^ready$")
    for i in range(MOVES):
        there = hosts[(i + 1) % 2].listen()
        hosts[i % 2].migrate(there.address)
        vm.expect_exit(124)
        there.send(b"s")
        there.out.wait(r"^stats .* lost=0 doubled=0$")
        vm = there
    vm.send(b"q")
    vm.expect_exit(0)
    check(b"end rounds=" in vm.out.data, "it does not say how it ended")


@test
def no_interrupt_is_lost_or_doubled_over_moves(world):
    interrupts_move(world, 1)


@test
def nor_any_that_changes_its_cpu_on_the_way(world):
    interrupts_move(world, 2)
