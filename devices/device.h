/* SPDX-License-Identifier: MIT */
/*
 * What a device is, and what it may ask of the machine around it.
 *
 * A device splits into a plain `struct x_state` (what the guest can see: no
 * pointers, no host handles, no host time) inside its `struct x`, which adds
 * descriptors, timers and the embedded `struct device`.
 *
 * Locking: the bus and the loop take device->lock before they call in, so
 * device code is single-threaded and never locks; the ops below are called
 * with the lock held too, except free(). Lock order: vm, then device. A device
 * never calls another device or the VM, only the hooks of its device_env.
 *
 * Migration of a device's state is in two strict steps. Every section of the
 * whole VM is decoded into temporaries and check()ed; only when all are valid
 * does any commit() run. So check() must refuse each state that the device
 * can't reach, and commit() can't fail.
 */
#ifndef GODWIT_DEVICE_H
#define GODWIT_DEVICE_H

#include <pthread.h>

#include "migration/codec.h"
#include "vmm/error.h"

struct bus;
struct disk;
struct doorbell;
struct hints;
struct irq;
struct line;
struct loop;
struct memory;
struct pci_bus;
struct sandbox;
struct tap;
struct device;

#define DEVICE_ID_MAX	   32
#define DEVICE_TYPE_MAX	   16
#define DEVICE_OPTIONS_MAX 256

/* A peer must be able to hold every vector of every device. */
#define DEVICE_VECTORS_MAX 32

/* How a device takes part in a migration. */
enum device_migrates {
	DEVICE_MIGRATES_STATE, /* its state travels as a section */
	DEVICE_MIGRATES_NONE,  /* it has none worth moving */
	DEVICE_MIGRATES_NEVER, /* a VM with it can't move; never_reason says why
				*/
};

/*
 * A device as data: what CONFIG carries and a target builds from. Text
 * options are the device's own, "key=value,key=value".
 */
struct device_config {
	char type[DEVICE_TYPE_MAX];
	char id[DEVICE_ID_MAX];
	uint32_t vectors; /* MSI-X, 0 when the device has none */
	char options[DEVICE_OPTIONS_MAX];
};

/*
 * What a device may ask of the VM it is in. Each may be called with the
 * device's lock held, from any thread, and returns at once: the VM acts on it
 * later, on its own thread.
 */
struct device_hooks {
	void (*request_poweroff)(void *opaque);
	void (*request_reset)(void *opaque);
	void (*request_exit)(void *opaque, uint8_t status); /* debug-exit */
	/* The guest has crashed, as it says itself; @text is for people. */
	void (*request_crash)(void *opaque, const char *text);
	/* Stop, as the user's `pause` does; @text says why. */
	void (*request_stop)(void *opaque, const char *text);
	/* The guest has more memory than before, or less. */
	void (*tell_balloon)(void *opaque);
};

#define DEVICE_HOST_SIZE 16

/*
 * Where a device finds what it talks to on the host. `run` and `listen` each
 * have their own: the first opens what its command line describes, the other
 * only what its own command line allows. Called while a device is made.
 */
struct device_backends {
	/*
	 * The disk behind device @id, locked as it has to be here. @name, @size
	 * and @readonly are those of the device's options; @size is 0 when the
	 * machine is made for the first time. The disk is the device's from
	 * then on: disk_close().
	 */
	int (*open_disk)(void *opaque, const char *id, const char *name,
			 uint64_t size, bool readonly, struct disk **ret,
			 struct error *err);
	/*
	 * What names the page cache behind disk @id on this host, see
	 * disk_inode(). Return: false when there is no such disk.
	 */
	bool (*disk_inode)(void *opaque, const char *id, uint64_t *ret_dev,
			   uint64_t *ret_ino);
	/*
	 * Name the running kernel towards a peer of @session: the same on both
	 * sides if it is the same kernel, and of no use to others. All zero:
	 * can't be known.
	 */
	void (*name_host)(void *opaque, const uint8_t *session,
			  uint8_t ret[DEVICE_HOST_SIZE]);
	void *opaque;
};

/*
 * The same for what guests are connected by. @name and @queues are those of the
 * device's options, and so is whether it is the @user kind. The tap is the
 * device's from then on: tap_close(). It is silent until the device takes it
 * over, unless the machine is made for the first time.
 */
struct device_taps {
	int (*open_tap)(void *opaque, const char *id, const char *name,
			unsigned int queues, bool user, struct tap **ret,
			struct error *err);
	void *opaque;
};

/*
 * The same for consoles. The line stays its owner's, and outlives the device.
 */
struct device_lines {
	int (*open_line)(void *opaque, const char *id, struct line **ret,
			 struct error *err);
	void *opaque;
};

/*
 * The moments of a move at which a device deals with what only one host may
 * have: the locks of its disk, and what lies in the host's caches. Called on
 * the migration thread; may block for as long as the storage takes.
 */
enum device_handover {
	/* Source, guest running, before CONFIG: leave the session's proof. */
	DEVICE_PROVE,
	/*
	 * Source, in the pause, device paused: flush, then let go of the right
	 * to write.
	 */
	DEVICE_YIELD,
	/*
	 * Source, the move has failed: take it all back. The guest runs on at
	 * once, so what can't be had yet is tried for in the background.
	 */
	DEVICE_RECLAIM,
	/*
	 * Target, before LOADED: take the right to write, drop caches. Failure
	 * ends the attempt.
	 */
	DEVICE_TAKE,
	/* Target, after RUNNING: own it, as soon as the source lets go. */
	DEVICE_OWN,
	/*
	 * Source, the target runs the guest: let go of all that is left now,
	 * and not when the machine is unmade, which takes its time.
	 */
	DEVICE_LEAVE,
};

#define DEVICE_SESSION_SIZE 16

/*
 * The machine as a device sees it while it is being made. All pointers outlive
 * the device.
 */
struct device_env {
	struct bus *pio;
	struct bus *mmio;
	struct pci_bus *pci;
	struct irq *irq;
	struct doorbell *doorbell;
	struct loop *loop;
	struct memory *memory;
	struct hints *hints; /* of pages that the guest does not need */
	const struct sandbox *sandbox;		/* of threads; NULL for none */
	const struct device_backends *backends; /* NULL: none can be had */
	const struct device_taps *taps;		/* likewise */
	const struct device_lines *lines;	/* NULL: nobody is there */
	const struct device_hooks *hooks;
	void *hooks_opaque;
};

struct device_ops {
	const char *type;
	enum device_migrates migrates;
	const char *never_reason; /* for NEVER: a whole sentence for the user */
	uint32_t version;	  /* of the section that visit() writes */
	size_t state_size;	  /* of struct x_state; 0 with MIGRATES_NONE */

	/*
	 * Name each field once, in wire order. Runs on a copy, under no lock.
	 */
	void (*visit)(struct codec *c, void *state);

	/* Copy the live state out. Only while paused, or to rehearse. */
	void (*snapshot)(struct device *dev, void *state);

	/*
	 * Could this device, as it is configured here, be in this state?
	 * Return 0, or -EINVAL with @err naming field and value.
	 */
	int (*check)(struct device *dev, const void *state, struct error *err);

	/*
	 * Take a checked state as the live one. Can't fail, writes no guest
	 * memory, arms no timer, raises no interrupt: resume() does.
	 */
	void (*commit)(struct device *dev, const void *state);

	/* Returns only when no request is in flight; nothing starts after. */
	void (*pause)(struct device *dev);

	/*
	 * Run again: arm timers, kick every active queue, drive interrupt
	 * lines to what the state says.
	 */
	void (*resume)(struct device *dev);

	/* Power-on state; called paused. */
	void (*reset)(struct device *dev);

	/*
	 * Write to stable storage what the host still caches, while the guest
	 * runs, so that little is left for the pause. Never blocks: starts a
	 * flush unless one is under way.
	 *
	 * Return: true when one has ended since the guest was last held, with
	 * what it took in *@ret_ns; devices without caches are always done, in
	 * no time.
	 */
	bool (*settle)(struct device *dev, uint64_t *ret_ns);

	/*
	 * See enum device_handover. @session: DEVICE_SESSION_SIZE bytes.
	 * Called without the lock: locks and flushes may take long. Only YIELD
	 * and TAKE may fail, and PROVE.
	 */
	int (*handover)(struct device *dev, enum device_handover step,
			const uint8_t *session, struct error *err);

	/*
	 * How many connections by way of this host end when the guest moves
	 * away now.
	 */
	unsigned int (*left_behind)(struct device *dev);

	/* Unhook from bus and loop, close, free. The VM is stopped. */
	void (*free)(struct device *dev);
};

struct device {
	const struct device_ops *ops;
	char id[DEVICE_ID_MAX];
	pthread_mutex_t lock;
};

/**
 * device_init() - fill the embedded base; the id is copied.
 */
void device_init(struct device *dev, const struct device_ops *ops,
		 const char *id);

/**
 * device_fini() - the counterpart of device_init(); call last in free().
 */
void device_fini(struct device *dev);

/**
 * device_settled() / device_no_handover() - settle() and handover() of a device
 * that keeps nothing on the host.
 */
bool device_settled(struct device *dev, uint64_t *ret_ns);
int __must_check device_no_handover(struct device *dev,
				    enum device_handover step,
				    const uint8_t *session, struct error *err);

/**
 * device_leaves_nothing() - left_behind() of a device that has no connections.
 */
unsigned int device_leaves_nothing(struct device *dev);

/**
 * device_open_line() - the line for device @id: NULL when nobody is there.
 */
int __must_check device_open_line(const struct device_env *env, const char *id,
				  struct line **ret, struct error *err);

/*
 * The one list of devices that this build knows. @create makes a device from
 * its configuration, registered with the bus and ready but paused; on failure
 * it returns -errno with @err naming the option, and leaves nothing behind.
 */
struct device_type {
	const struct device_ops *ops;
	int (*create)(const struct device_env *env,
		      const struct device_config *config, struct device **ret,
		      struct error *err);
};

/**
 * device_type_find() - look a type up by name.
 *
 * Return: the entry, or NULL when this build has no such device.
 */
const struct device_type *device_type_find(const char *type);

/**
 * device_type_at() - the @index-th entry of the table, NULL past its end.
 */
const struct device_type *device_type_at(unsigned int index);

#endif
