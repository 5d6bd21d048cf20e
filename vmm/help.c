// SPDX-License-Identifier: MIT
/*
 * Help texts; see help.h.
 */
#include <jansson.h>
#include <seccomp.h>
#include <string.h>

#include "devices/backend/user.h"
#include "migration/wire.h"
#include "vmm/help.h"

#define ADDRESSES \
	"ADDR is tcp:HOST:PORT ([v6] in brackets), unix:PATH or fd:N.\n"

static const struct help helps[] = {
	{ "run", "make a VM and boot it", "--kernel FILE [OPTION]...",
	  "  --kernel FILE        Linux (bzImage, vmlinux) or an ELF with a "
	  "PVH "
	  "note\n"
	  "  --initrd FILE        initial RAM disk\n"
	  "  --cmdline TEXT       the kernel's command line\n"
	  "  --cpus N             virtual CPUs (1)\n"
	  "  --cpu MODEL          host, or x86-64, x86-64-v2, x86-64-v3 or "
	  "x86-64-v4, for\n"
	  "                       guests that move between unlike hosts; see "
	  "`godwit help\n"
	  "                       cpu` (host)\n"
	  "  --memory SIZE[,hugepages]\n"
	  "                       like 512M or 4G (256M); of huge pages that "
	  "the host\n"
	  "                       has reserved\n"
	  "  --rng on|off         the guest gets random bytes from the host "
	  "(on)\n"
	  "  --balloon on|off     the host gets memory back that the guest "
	  "does not need\n"
	  "                       (on)\n"
	  "  --serial WHERE       the serial port: stdio, unix:PATH (one "
	  "client at "
	  "a time),\n"
	  "                       file:PATH (appended to) or null (stdio)\n"
	  "  --console WHERE      a virtio console more, hvc0, hvc1, …; "
	  "likewise. "
	  "One that\n"
	  "                       has stdio takes it from the serial port\n"
	  "  --disk PATH[,WORD]...\n"
	  "                       a raw image or block device; a comma in PATH "
	  "is doubled.\n"
	  "                       WORDs: id=ID (disk0, disk1, …), readonly, "
	  "direct (past\n"
	  "                       the host's cache), serial=S, queues=N (1), "
	  "vectors=N\n"
	  "                       (queues + 1, at most 32), werror=report|stop "
	  "(report)\n"
	  "  --lock-dir DIR       lock disks by files there, not themselves; "
	  "they are\n"
	  "                       named by serial=, else by what the host "
	  "knows "
	  "of the\n"
	  "                       device, or by the image's path\n"
	  "  --net tap=NAME[,WORD]...\n"
	  "                       a network card on a tap that is there; "
	  "fd=N for one\n"
	  "                       that is open already. WORDs: id=ID (net0, "
	  "net1, …),\n"
	  "                       mac=ADDRESS (random), queues=N (1, at most "
	  "15),\n"
	  "                       vectors=N (two a queue and two more)\n"
	  "  --net user[,WORD]... a network card without any set-up: the guest "
	  "reaches what\n"
	  "                       you reach, and gets its address by DHCP. "
	  "WORDs: id=,\n"
	  "                       mac=, vectors=, and, as often as you like,\n"
	  "                       "
	  "hostfwd=tcp|udp:[ADDRESS:]PORT-[ADDRESS:]PORT, "
	  "a port of\n"
	  "                       this host (127.0.0.1) that leads to one of "
	  "the "
	  "guest's\n"
	  "  --name NAME          what other commands call it (vm-PID)\n"
	  "  --debug-exit         a byte written to port 0xf4 ends the VM with "
	  "that\n"
	  "                       exit status\n"
	  "  --on-panic exit|pause\n"
	  "                       what becomes of a guest that crashes (exit)\n"
	  "  --migrate-to ADDR[,after=SECONDS][,max-downtime=TIME]\n"
	  "                       boot, then move there by itself; a comma "
	  "in a path is\n"
	  "                       doubled\n"
	  "  --no-sandbox         no seccomp filters and no dropped "
	  "capabilities;\n"
	  "                       for debugging godwit itself\n"
	  "  -v, --verbose        say more on stderr; twice for details\n"
	  "\n"
	  "The guest's serial console is standard input and output, unless a "
	  "--console\n"
	  "is. On a terminal, Ctrl-A x leaves and Ctrl-A h helps; `godwit "
	  "console`\n"
	  "shows it on others too. SIGTERM, SIGINT and SIGHUP end "
	  "the VM\n"
	  "at once; `godwit poweroff` asks the guest. The last line on stderr "
	  "says who ended it.\n"
	  "\n"
	  "Exit status: 0 the guest powered off, moved away or was ended by "
	  "its user;\n"
	  "1 a failure; 2 usage; 3 the guest crashed. With --debug-exit it is "
	  "the\n"
	  "guest's byte; 124 it moved away; 125 a failure, or ended without a "
	  "byte.\n" },
	{ "listen", "take a guest from another godwit", "ADDR [OPTION]...",
	  ADDRESSES
	  "tcp:127.0.0.1:0 takes a free port. A TCP port is printed, alone on "
	  "a line of\n"
	  "standard output, before the guest's console begins.\n"
	  "\n"
	  "  --name NAME          call the guest this; else it keeps its name\n"
	  "  --serial WHERE       where the guest's serial port goes here: "
	  "stdio, "
	  "unix:PATH,\n"
	  "                       file:PATH or null (stdio)\n"
	  "  --console WHERE      likewise its virtio consoles, in order "
	  "(null)\n"
	  "  --disk ID=PATH[,direct][,serial=S]\n"
	  "                       where the guest's disk ID is on this host; S "
	  "names it\n"
	  "                       in --lock-dir, as at the source\n"
	  "  --disk-root DIR      look here for disks that no --disk names, by "
	  "file name\n"
	  "  --lock-dir DIR       lock disks by files there, as the source "
	  "does\n"
	  "  --net ID=tap=NAME[,queues=N]\n"
	  "                       the tap that the guest's network card ID "
	  "gets here;\n"
	  "                       or ID=fd=N\n"
	  "  --net ID=user[,hostfwd=FORWARD]...\n"
	  "                       the network of a card that was run with "
	  "user, "
	  "and the\n"
	  "                       ports of this host that lead there, bound "
	  "when "
	  "it comes\n"
	  "  --unsafe             take block devices without direct from other "
	  "hosts\n"
	  "  --hugepages          have the guest's memory of huge pages that "
	  "this host has\n"
	  "                       reserved, whatever it was at the source\n"
	  "  --paused             leave it paused when it has come; see "
	  "`resume`\n"
	  "  --once               end after the first attempt that fails\n"
	  "  --allow NETWORK      who may connect, like 192.0.2.0/24; repeat "
	  "for more\n"
	  "  --insecure           let anyone connect, on any network\n"
	  "  --on-panic exit|pause\n"
	  "                       what becomes of a guest that crashes (exit)\n"
	  "  --no-sandbox         for debugging godwit itself\n"
	  "  -v, --verbose        say more on stderr; twice for details\n"
	  "\n"
	  "Exit status: as `godwit run`.\n" },
	{ "migrate", "move a VM to where `godwit listen` waits",
	  "NAME --to ADDR [OPTION]...",
	  ADDRESSES
	  "\n"
	  "  --to ADDR            where to\n"
	  "  --max-downtime TIME  how long the guest may be paused (10ms, or "
	  "what `godwit\n"
	  "                       set` has made it)\n"
	  "  --abort-after TIME   resume here when the pause gets longer than "
	  "this\n"
	  "                       (30 times --max-downtime)\n"
	  "  --bandwidth RATE     bytes a second, like 500M (no limit, or as "
	  "set)\n"
	  "  --timeout TIME       how long to try (no limit)\n"
	  "  --on-timeout WHAT    then cancel, or pause the guest to finish "
	  "(cancel)\n"
	  "  --offline            pause first, then copy\n"
	  "  --verify             compare all memory at both ends in the "
	  "pause, "
	  "which takes\n"
	  "                       longer; a difference leaves the guest here\n"
	  "  --dry-run            only say what it would cost; the guest stays "
	  "here, the\n"
	  "                       listener goes on listening\n"
	  "  --json               print one JSON object with the result\n"
	  "\n"
	  "Ctrl-C cancels. A command that ends in any other way leaves the "
	  "move going; see\n"
	  "`godwit status` and `godwit cancel`.\n"
	  "\n"
	  "Exit status: 0 moved, also where the pause was longer than "
	  "--max-downtime, which\n"
	  "is said then, or would keep within it; 1 failed, and the guest is "
	  "here as before;\n"
	  "2 usage; 3 failed, and the guest has ended here; 4 uncertain, or "
	  "not followed to\n"
	  "its end: what is said names what to type next; 5 --dry-run: would "
	  "not keep within\n"
	  "--max-downtime.\n" },
	{ "set", "change a limit of migrations, or a guest's memory",
	  "NAME [max-downtime|bandwidth|memory [VALUE]]",
	  "  max-downtime TIME    like 10ms\n"
	  "  bandwidth RATE       bytes a second, like 500M; 0 for no "
	  "limit\n"
	  "  memory SIZE          what the guest keeps of its memory, like "
	  "512M; it gives\n"
	  "                       the rest back when it can\n"
	  "\n"
	  "Without VALUE it shows what is in force, and without more all of "
	  "that. Limits hold\n"
	  "for a migration that is under way, too. They are this host's, and "
	  "stay behind when\n"
	  "the guest moves: set them anew where it is then. What it keeps of "
	  "its memory goes\n"
	  "along.\n"
	  "\n"
	  "Exit status: 0 done; of memory, that the guest has been asked, "
	  "which "
	  "takes its time\n"
	  "and a driver in it (what is missing is said); 1 refused, as with "
	  "--balloon off;\n"
	  "2 usage.\n" },
	{ "console", "show a console of a VM here, too", "NAME [DEVICE]",
	  "DEVICE is serial0, console0, …: the first virtio console when none "
	  "is named, or\n"
	  "the serial port when there is none. What was said last, up to 64 "
	  "KiB, comes\n"
	  "first. On a terminal, Ctrl-A x leaves; otherwise standard input and "
	  "output are\n"
	  "the console's, byte for byte. It goes along when the guest moves to "
	  "another\n"
	  "process on this host. Who reads too slowly is told how much was "
	  "skipped; the\n"
	  "guest doesn't wait. Up to sixteen can show a console at once.\n" },

	{ "cancel", "call a migration off", "NAME", "" },
	{ "status", "what a VM and its migration are doing", "NAME [--json]",
	  "  --json               print one JSON object\n" },
	{ "show", "print the `run` line that would make a VM again", "NAME",
	  "" },
	{ "pause", "stop a guest's clock", "NAME", "" },
	{ "resume", "let a paused guest run on", "NAME", "" },
	{ "reset", "reset, as the button does", "NAME", "" },
	{ "poweroff", "press the power button: the guest may switch off",
	  "NAME", "" },
	{ "kill", "end a VM at once", "NAME", "" },
	{ "resolve", "say who has a guest when its move is uncertain",
	  "NAME --resume|--discard",
	  "The connection broke after the guest was handed over, and the "
	  "target does not\n"
	  "answer. The guest is kept paused here, and is never run by itself: "
	  "it may run\n"
	  "there. As soon as the target answers, this is settled without "
	  "you.\n"
	  "\n"
	  "  --resume             it does NOT run at the target, and never "
	  "will: run it\n"
	  "                       here. When this is wrong it runs twice.\n"
	  "  --discard            it does run at the target: end it here. "
	  "When this is\n"
	  "                       wrong it is lost.\n"
	  "\n"
	  "Without one of them it prints what to check and changes "
	  "nothing.\n" },
	{ "cpu", "what this host's processor offers, or has in common",
	  "[FILE... | --guest NAME | --can-run FILE]",
	  "Without more: facts about the processor that guests get here. Keep "
	  "them in a\n"
	  "file for use on another host.\n"
	  "\n"
	  "  FILE...              facts of other hosts: print the best --cpu "
	  "that those and\n"
	  "                       this one have in common, and say on stderr "
	  "what is lost\n"
	  "  --guest NAME         facts of a guest's processor\n"
	  "  --can-run FILE       facts of a guest elsewhere: print all that "
	  "this host lacks\n"
	  "                       to run it; exit status 0 when that is "
	  "nothing, else 1\n"
	  "\n"
	  "FILE may be -, standard input. A --cpu MODEL is host or a level "
	  "(x86-64,\n"
	  "x86-64-v2, x86-64-v3, x86-64-v4), and then, behind commas:\n"
	  "\n"
	  "  +FEATURE  -FEATURE   as in /proc/cpuinfo\n"
	  "  phys-bits=N          width of physical addresses, at most "
	  "(40; host: all)\n"
	  "  exact                the level and what is added, and nothing "
	  "else: without it\n"
	  "                       a level also has what KVM provides and what "
	  "defends\n"
	  "                       against the processor's faults, where the "
	  "host can\n" },
	{ "list", "show all VMs of this user", "[--json]",
	  "  --json               print one JSON object\n" },
};

const struct help *help_find(const char *command)
{
	for (size_t i = 0; i < ARRAY_SIZE(helps); i++) {
		if (!strcmp(helps[i].command, command))
			return &helps[i];
	}
	return NULL;
}

const char *const *help_commands(void)
{
	static const char *const names[] = {
		"run",	  "listen",  "migrate", "set",	  "console", "cancel",
		"status", "show",    "pause",	"resume", "reset",   "poweroff",
		"kill",	  "resolve", "cpu",	"list",	  "help",    NULL,
	};

	_Static_assert(ARRAY_SIZE(names) == ARRAY_SIZE(helps) + 2,
		       "every command has help");
	return names;
}

static void print_overview(FILE *to)
{
	fputs("godwit runs a guest on KVM, and moves it, live, to another "
	      "host.\n\nusage:\n",
	      to);
	for (size_t i = 0; i < ARRAY_SIZE(helps); i++)
		fprintf(to, "  godwit %-9s %s\n", helps[i].command,
			helps[i].summary);
	fputs("\n`godwit help COMMAND` has the options of each; `godwit "
	      "--version` says what this is.\n",
	      to);
}

void help_print(const struct help *help, FILE *to)
{
	if (!help) {
		print_overview(to);
		return;
	}
	fprintf(to, "usage: godwit %s %s\n\ngodwit %s: %s.\n", help->command,
		help->usage, help->command, help->summary);
	if (help->text[0])
		fprintf(to, "\n%s", help->text);
}

#ifdef HAVE_LIBURING
#define LIBURING "liburing " HAVE_LIBURING
#else
#define LIBURING "no liburing (disks are slower)"
#endif

void help_version(FILE *to)
{
	const struct scmp_version *seccomp = seccomp_version();

	fprintf(to,
		"godwit " GODWIT_VERSION "\n"
		"migration format %d to %d\n"
		"jansson %s, libseccomp %u.%u.%u, " LIBURING ",\n"
		"%s\n"
		"not in this version: TLS\n",
		WIRE_VERSION_MIN, WIRE_VERSION_MAX, jansson_version_str(),
		seccomp->major, seccomp->minor, seccomp->micro, user_library());
}
