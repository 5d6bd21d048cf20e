/* SPDX-License-Identifier: MIT */
/*
 * The in-process rig: sources and targets of migrations as threads of one test
 * process, with real VMs on /dev/kvm, so that thousands of moves and every
 * fault take seconds.
 *
 * A *host* stands for one godwit process: an event loop on its own thread, the
 * VM it holds, and the VM's console as a pair of pipes. A *wire* connects the
 * source to the target's door through a relay, which counts records, can cut
 * the connection, and captures both directions for the stream verifier.
 *
 * The rig fails the test (through check) when something takes far longer than
 * it can; it asserts no time otherwise.
 */
#ifndef GODWIT_TESTS_RIG_H
#define GODWIT_TESTS_RIG_H

#include "devices/backend/line.h"
#include "migration/door.h"
#include "migration/source.h"
#include "migration/target.h"
#include "tests/inproc/relay.h"
#include "vmm/disks.h"
#include "vmm/taps.h"
#include "vmm/vm.h"

#define RIG_CONSOLE_MAX (1 << 20)

struct rig_host {
	struct kvm kvm;
	struct loop *loop;
	pthread_t loop_thread;
	struct vm *vm; /* NULL: none here */
	/*
	 * What its command line says of disks and taps: rig_boot() opens them
	 * as `run` does, rig_move() as `listen` where the guest is to come.
	 */
	struct disks_options images;
	struct disks *disks;
	int tap_fd; /* -1: none */
	struct taps_options cards;
	struct taps *taps;
	struct device_lines lines;
	struct line *serial;
	struct line *hvc;
	int hvc_in[2];
	int hvc_out[2]; /* the virtio console; see rig_guest */
	int console_in[2];
	int console_out[2];
	char text[RIG_CONSOLE_MAX]; /* all that the guest said here */
	size_t text_len;
	size_t text_seen; /* rig_expect() has matched up to here */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int resets;	  /* that happened here */
	unsigned int resets_seen; /* rig_expect_reset() */
	bool stalled;		  /* wanted */
	bool in_stall;		  /* and so */
	bool ended;
	enum vm_event how; /* the event that ended it */
	uint8_t status;
	char why[200];
};

struct rig_guest {
	const char *elf; /* "hello": build/guests/hello.elf */
	const char *cmdline;
	uint32_t cpus;	 /* 0: 1 */
	uint64_t memory; /* bytes; 0: 16 MiB */
	bool console;	 /* a virtio one, beside the serial port */
};

/* Is there a /dev/kvm to test with? Says so when not. */
bool rig_available(void);

struct rig_host *rig_host_new(void);
void rig_host_free(struct rig_host *host);

/* Boot a guest; it runs when this returns. */
void rig_boot(struct rig_host *host, const struct rig_guest *guest);

/*
 * An empty image of @size bytes in a file of its own; @ret_path names it, until
 * rig_image_remove().
 */
#define RIG_PATH_MAX 64
void rig_image_create(char ret_path[RIG_PATH_MAX], uint64_t size);
void rig_image_remove(const char *path);

/* Where the host has the guest's disk "disk0", from the next boot or move on.
 */
void rig_give_disk(struct rig_host *host, const char *path, uint32_t queues);

/*
 * Where the host has the guest's network card "net0", likewise: a socket that
 * speaks as a tap does, and stays the caller's.
 */
#define RIG_MAC                  \
	{                        \
		2, 0, 0, 0, 0, 7 \
	}
void rig_give_card(struct rig_host *host, int fd);

/*
 * Throw the VM away and make the same machine again, not booted and held as it
 * is at birth. @machine is not the old VM's own.
 */
void rig_remake(struct rig_host *host, const struct machine *machine);

/* The machine of a guest, as rig_boot() makes it. */
void rig_machine(const struct rig_host *host, const struct rig_guest *guest,
		 struct machine *ret);

/* What a VM on the host is made of. */
struct vm_host rig_vm_host(struct rig_host *host);

/*
 * Wait until the guest has said @text since the last match. What was said
 * before a move and not looked at is found at the target.
 */
void rig_expect(struct rig_host *host, const char *text);

/* Wait for the rest of a line, and take it without its end. */
void rig_read_line(struct rig_host *host, char *line, size_t size);

/* Type to the guest. */
void rig_type(struct rig_host *host, const char *text);

/* Wait for the guest's end, which must be @how. */
void rig_expect_end(struct rig_host *host, enum vm_event how);

/* The same; it must be debug-exit with @status. */
void rig_expect_exit(struct rig_host *host, uint8_t status);

/* Has the guest ended? */
bool rig_ended(struct rig_host *host);

/* Wait until the guest was reset, once more than when this was last called. */
void rig_expect_reset(struct rig_host *host);

/*
 * Stall the host's loop: what the guest asks for is only noted. Events, the
 * console's input and timers wait until rig_unstall().
 */
void rig_stall(struct rig_host *host);
void rig_unstall(struct rig_host *host);

/* Throw the VM away. */
void rig_discard(struct rig_host *host);

/*
 * A move under way, for those who meddle with it. The two functions and
 * source_cancel(), source_resolve() may be called from any thread.
 */
struct rig_moving {
	struct rig_host *from;
	struct rig_host *to;
	struct source *source;
};

/* Wait until the source has come to @status. */
void rig_await_status(struct rig_moving *moving, enum report_status status);

/*
 * What an operator does who has to decide: look at the target once it has
 * made up its mind. True: the guest runs there.
 */
bool rig_target_has_it(struct rig_moving *moving);

/* Give up at the target. */
void rig_cancel_target(struct rig_moving *moving);

struct rig_move {
	struct source_params params; /* .to is filled in */
	struct relay_cut cut;
	struct relay_spoil spoil;
	bool paused;	    /* as listen --paused */
	const char *refuse; /* the target's answer to CONFIG; NULL: welcome */
	/*
	 * Called for each record of the first connection when it is all at the
	 * relay, before it is passed on; on the relay's thread. True: cut the
	 * connection behind it.
	 */
	bool (*on_record)(struct rig_moving *moving,
			  const struct relay_record *record, void *opaque);
	/* Called while it runs, on the test's thread. */
	void (*meanwhile)(struct rig_moving *moving, void *opaque);
	void *opaque; /* of both */
};

struct rig_result {
	int source_rc;
	int target_rc;
	struct error source_error;
	struct error target_error;
	struct report report;
	unsigned int from_source; /* records that passed the relay */
	unsigned int from_target;
};

/*
 * Patient: no test here is of how long a pause may be, and the machine may be
 * busy. At least two rounds. All that arrives is verified.
 */
extern const struct rig_move rig_move_default;

/* Whose work this thread does; NULL: the test's own. */
extern _Thread_local const struct rig_host *rig_thread_host;

/*
 * Move the guest from one host to another, or try to. Afterwards exactly one
 * of the two has the VM, and it runs (unless @move says paused); anything else
 * fails the test.
 */
void rig_move(struct rig_host *from, struct rig_host *to,
	      const struct rig_move *move, struct rig_result *ret);

#endif
