/* SPDX-License-Identifier: MIT */
/*
 * The language of the control socket: QMP, as QEMU speaks it (QEMU's
 * docs/interop/qmp-spec), with QEMU's names, units and shapes wherever QEMU
 * has the thing. What QEMU can't say has a field or command of its own, whose
 * name begins with "x-godwit-" when a QEMU could one day use it otherwise.
 *
 * A request is one line of JSON, and so is an answer. This file turns lines
 * into answers; it knows no sockets (control.h does) and no VM: what it needs
 * of one is struct qmp_backend. All on one thread, the loop's; nothing blocks.
 */
#ifndef GODWIT_QMP_H
#define GODWIT_QMP_H

#include <jansson.h>

#include "migration/source.h"
#include "vmm/balloon.h"

#define QMP_LINE_MAX (64 * KIB)
#define QMP_FDS_MAX  4

struct qmp_info {
	const char *name;   /* "" for a listener that has no guest yet */
	const char *status; /* QEMU's RunState: "running", "paused", … */
	bool running;
	bool uncertain;	     /* it may run elsewhere; QEMU has no word for it */
	const char *reason;  /* why it is paused, if it isn't its user; or "" */
	const char *session; /* of the move that it came, or comes, by; or "" */
	const char *moving_to; /* the address, while it does; or "" */
	bool dry_run;	       /* and that is no more than one */
	uint32_t cpus;
	uint64_t memory; /* bytes */
};

/* A disk of the guest. */
struct qmp_disk {
	const char *id;
	const char *path;
	uint64_t size; /* bytes */
	bool readonly;
	bool direct;
};

/* What can be heard of a console: bytes, counted from its first. */
struct qmp_console {
	const char *device;
	uint64_t first; /* that can still be had */
	uint64_t end;
};

/*
 * The process behind the control socket. Functions that return int give 0, or
 * -errno with @err for the user.
 */
struct qmp_backend {
	void (*info)(void *opaque, struct qmp_info *ret);
	int (*stop)(void *opaque, struct error *err);
	int (*cont)(void *opaque, struct error *err);
	int (*powerdown)(void *opaque, struct error *err);
	int (*reset)(void *opaque, struct error *err);
	/* End the process soon, after the answer is out; process @by asks. */
	void (*quit)(void *opaque, pid_t by);

	/* Begin to move; @params->to is resolved. An fd:N in it is taken. */
	int (*migrate)(void *opaque, const struct source_params *params,
		       struct error *err);
	int (*cancel)(void *opaque, struct error *err);
	int (*resolve)(void *opaque, bool resume, struct error *err);
	/* What a migration starts with unless it says otherwise. */
	const struct source_params *(*params)(void *opaque);
	/* For every later migration, and for one that is under way. */
	void (*set_max_downtime)(void *opaque, uint64_t ns);
	void (*set_bandwidth)(void *opaque, uint64_t bytes_per_s);
	/* Of the migration that runs or ran last; false when there was none. */
	bool (*report)(void *opaque, struct report *ret);

	/* Of the guest's balloon; false when it has none. */
	bool (*balloon)(void *opaque, struct balloon_info *ret);
	/* Have the guest keep @bytes of its memory. */
	int (*set_balloon)(void *opaque, uint64_t bytes, struct error *err);

	/* The @index-th of the guest's disks; false: there are no more. */
	bool (*disk)(void *opaque, uint32_t index, struct qmp_disk *ret);

	/*
	 * A console of the guest's, by its device's id; NULL: the one that
	 * people mean.
	 */
	int (*find_console)(void *opaque, const char *device,
			    struct qmp_console *ret, struct error *err);
	int (*resize_console)(void *opaque, const char *device,
			      uint16_t columns, uint16_t rows,
			      struct error *err);
	/*
	 * Make @fd, whose owner was answered so, a watcher of it, from byte
	 * @from on; it has sent @typed already. @fd is taken, also on failure.
	 */
	int (*watch_console)(void *opaque, const char *device, int fd,
			     uint64_t from, const void *typed, size_t len,
			     struct error *err);

	/*
	 * The command line that would make this VM; the caller frees it. NULL:
	 * there is no guest. @ret_came_along: its boot image came with the
	 * guest, the line names it by this process.
	 */
	char *(*show)(void *opaque, bool *ret_came_along);
	/* The guest's processor as facts (arch/cpu.h); likewise. */
	char *(*cpu)(void *opaque);
};

/* One client's conversation. */
struct qmp_session {
	pid_t peer;	 /* the client's process; 0: not known */
	bool negotiated; /* qmp_capabilities was said */
	bool told_end;	 /* an answer told how a migration ended */
	/*
	 * Behind the answer that is on its way the connection is no longer
	 * QMP's: it is a watcher of this console. "": it stays.
	 */
	char watches[DEVICE_ID_MAX];
	uint64_t watches_from;
	int arrived_fd; /* by SCM_RIGHTS, for the next getfd; -1 */
	unsigned int nfds;
	struct {
		char name[32];
		int fd;
	} fds[QMP_FDS_MAX];
};

void qmp_session_init(struct qmp_session *session);

/**
 * qmp_session_fini() - close the descriptors that nobody used.
 */
void qmp_session_fini(struct qmp_session *session);

/**
 * qmp_session_take_fd() - a descriptor arrived; an unused one before it is
 * closed.
 */
void qmp_session_take_fd(struct qmp_session *session, int fd);

/**
 * qmp_greeting() - what a server says first.
 */
json_t *qmp_greeting(void);

/**
 * qmp_handle() - carry out one request.
 * @line: without its newline, not terminated.
 *
 * Return: the answer, a new reference; NULL when out of memory.
 */
json_t *qmp_handle(struct qmp_session *session,
		   const struct qmp_backend *backend, void *opaque,
		   const char *line, size_t len);

/**
 * qmp_error() - an answer that says what is wrong; also for lines too long to
 * be handled.
 */
json_t *qmp_error(const char *class, const char *text);

/**
 * qmp_event() - an event with its timestamp.
 * @data: stolen; NULL for none.
 */
json_t *qmp_event(const char *name, json_t *data);

/**
 * qmp_migration_data() - what query-migrate returns for @report.
 */
json_t *qmp_migration_data(const struct report *report);

#endif
