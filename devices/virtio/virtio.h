/* SPDX-License-Identifier: MIT */
/*
 * What all virtio devices share: the device status and its state machine,
 * feature negotiation, queues as the driver sets them up, interrupts, and the
 * modern PCI transport that shows all this to the guest.
 *
 * A device embeds `struct virtio` and its state struct embeds `struct
 * virtio_state` first; it hands its device_ops' calls on to the virtio_*
 * functions of the same name.
 *
 * The device serves a queue from the moment it is told start_queue() until it
 * says virtio_queue_stopped() after stop_queue(). In between the queue (struct
 * virtqueue) belongs to whatever thread the device serves it on; the core looks
 * at it only outside of that. A driver that resets a queue or the device reads
 * back that it isn't reset yet until every request in flight has ended; no vCPU
 * waits.
 *
 * Pausing is the same thing: every queue is stopped, and virtio_pause() returns
 * when all are. It waits on a condition of the device's lock, which it holds,
 * so that other threads can enter to say virtio_queue_stopped().
 *
 * A guest that breaks a queue's rules gets NEEDS_RESET, a configuration
 * interrupt, and a warning in the log, not too often. All queues are stopped
 * then, and none is served until the driver has reset the device. A device that
 * finds a queue broken says so by virtio_fail().
 *
 * The doorbell of a queue is an eventfd, which KVM signals when the guest
 * notifies by BAR 0, and we when it does by another way. It is signalled also
 * whenever start_queue() was called, as a guest may have rung before.
 *
 * Spec: VIRTIO 1.2: 2.1 to 2.6, 4.1.
 */
#ifndef GODWIT_DEVICES_VIRTIO_VIRTIO_H
#define GODWIT_DEVICES_VIRTIO_VIRTIO_H

#include "devices/pci.h"
#include "devices/virtio/queue.h"
#include "vmm/doorbell.h"

/* A vector a queue and one for the configuration fit into 32. */
#define VIRTIO_QUEUES_MAX 31

/* Device status, section 2.1. */
#define VIRTIO_ACKNOWLEDGE 1
#define VIRTIO_DRIVER	   2
#define VIRTIO_DRIVER_OK   4
#define VIRTIO_FEATURES_OK 8
#define VIRTIO_NEEDS_RESET 64
#define VIRTIO_FAILED	   128

/* Features of every device, section 6; bit numbers. */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_F_RING_RESET    40

#define VIRTIO_BIT(feature) (1ULL << (feature))

struct virtio;

struct virtio_ops {
	uint16_t id;	      /* section 5: 2 is block, 4 entropy */
	uint32_t class_code;  /* of PCI */
	uint32_t config_size; /* of the device-specific configuration */

	/* Read or write device-specific configuration, within its size. */
	void (*config_read)(struct virtio *v, uint32_t offset, void *data,
			    unsigned int size);
	void (*config_write)(struct virtio *v, uint32_t offset,
			     const void *data, unsigned int size);
	/*
	 * Serve queue @index from now on; there may be something in it already.
	 * Its event_fd is readable when there may be more.
	 */
	void (*start_queue)(struct virtio *v, unsigned int index);
	/* Begin nothing new; virtio_queue_stopped() when nothing is in flight,
	 * at once or later. */
	void (*stop_queue)(struct virtio *v, unsigned int index);
	/*
	 * The device was reset, by its driver or with the machine: forget what
	 * the driver made of it. No queue is served.
	 */
	void (*forget)(struct virtio *v);
};

struct virtio_queue_setup {
	struct virtqueue_state ring;
	uint16_t vector; /* VIRTIO_NO_VECTOR: none */
};

struct virtio_state {
	struct pci_state pci;
	uint64_t driver_features;
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	/* The window of VIRTIO_PCI_CAP_PCI_CFG. */
	uint32_t window_offset;
	uint32_t window_length;
	uint8_t window_bar;
	uint8_t status;
	uint8_t config_generation;
	uint8_t isr; /* bit 0: a queue, bit 1: configuration */
	uint16_t config_vector;
	uint16_t queue_select;
	uint32_t nqueues;
	struct virtio_queue_setup queues[VIRTIO_QUEUES_MAX];
};

enum virtio_queue_phase {
	VIRTIO_QUEUE_IDLE,     /* not enabled, or not started yet */
	VIRTIO_QUEUE_SERVED,   /* the device has it */
	VIRTIO_QUEUE_STOPPING, /* the device was asked to let it go */
};

struct virtio_queue {
	struct virtqueue ring;		/* the device's while it is not IDLE */
	struct virtqueue_state started; /* as it was when it was started */
	enum virtio_queue_phase phase;
	bool resetting;		 /* by the driver, until it is idle */
	_Atomic uint16_t vector; /* VIRTIO_NO_VECTOR: none */
	int event_fd;		 /* the doorbell; always open, non-blocking */
	uint64_t doorbell_gpa;	 /* 0: none */
};

struct virtio {
	struct device dev;
	struct pci_function pci;
	const struct virtio_ops *ops;
	struct memory *mem;
	struct doorbell *doorbell;
	uint64_t features; /* that are offered */
	uint32_t nqueues;
	uint16_t queue_size_max;
	unsigned int vectors;	 /* of MSI-X */
	unsigned int window_cap; /* where VIRTIO_PCI_CAP_PCI_CFG is */
	uint64_t warned_ns;	 /* when the log was last told of a fault */
	bool paused;
	bool resetting; /* by the driver, until all queues are idle */
	pthread_cond_t idle;
	pthread_mutex_t isr_lock; /* of state.isr; innermost but for MSI-X's */
	/* But for PCI, the window and the queues, which live elsewhere. */
	struct virtio_state state;
	struct virtio_queue queues[VIRTIO_QUEUES_MAX];
};

struct virtio_params {
	const struct device_ops *device_ops;
	const struct virtio_ops *ops;
	uint64_t features; /* of the device; those of every device are added */
	uint32_t nqueues;
	uint16_t queue_size_max;
};

/**
 * virtio_init() - the embedded base: a function on the bus, paused, reset.
 * @config: its vectors are those of MSI-X; 0: the interrupt line only.
 *
 * Return: 0 or -errno with @err; then virtio_fini() is not needed.
 */
int __must_check virtio_init(struct virtio *v, const struct device_env *env,
			     const struct device_config *config,
			     const struct virtio_params *params,
			     struct error *err);

/**
 * virtio_fini() - as it says; every queue is idle.
 */
void virtio_fini(struct virtio *v);

/**
 * virtio_queue_stopped() - nothing of queue @index is in flight any more, and
 * the device won't touch it. The lock is held, by whatever thread.
 */
void virtio_queue_stopped(struct virtio *v, unsigned int index);

/**
 * virtio_interrupt() - tell the driver that queue @index has something for it.
 * From the thread that serves the queue, with or without the lock.
 */
void virtio_interrupt(struct virtio *v, unsigned int index);

/**
 * virtio_kick() - signal the doorbell of queue @index, as the guest does. Any
 * thread.
 */
void virtio_kick(struct virtio *v, unsigned int index);

/**
 * virtio_config_changed() - the device-specific configuration is another. The
 * lock is held.
 */
void virtio_config_changed(struct virtio *v);

/**
 * virtio_fail() - the driver broke the rules: NEEDS_RESET. The lock is held.
 * @why: for the log, after the device's id.
 *
 * Calls stop_queue() for each queue that is served. Does nothing when that has
 * happened already, or no driver is there.
 */
void virtio_fail(struct virtio *v, const char *why);

/**
 * virtio_negotiated() - has the driver accepted @feature?
 */
static inline bool virtio_negotiated(const struct virtio *v,
				     unsigned int feature)
{
	return v->state.driver_features & VIRTIO_BIT(feature);
}

/*
 * As device_ops has them, on the embedded state. A snapshot that is taken while
 * queues are served shows them as they were when they were started.
 */
void virtio_visit(struct codec *c, struct virtio_state *state);
void virtio_snapshot(struct virtio *v, struct virtio_state *state);
int __must_check virtio_check(const struct virtio *v,
			      const struct virtio_state *state,
			      struct error *err);
void virtio_commit(struct virtio *v, const struct virtio_state *state);
void virtio_pause(struct virtio *v);
void virtio_resume(struct virtio *v);
void virtio_reset(struct virtio *v);

#endif
