/* SPDX-License-Identifier: MIT */
/*
 * The inside of a target, for target*.c only.
 */
#ifndef GODWIT_TARGET_INTERNAL_H
#define GODWIT_TARGET_INTERNAL_H

#include "migration/digest.h"
#include "migration/handoff.h"
#include "migration/pages.h"
#include "migration/populate.h"
#include "migration/target.h"
#include "vmm/vm_state.h"

#define TARGET_REPLY_PATIENCE	(30 * NS_PER_S)
#define TARGET_GOODBYE_PATIENCE (1 * NS_PER_S)

/* What is expected next on the connection. */
enum stage {
	STAGE_CONFIG,
	STAGE_IMAGE, /* IMAGE pieces, until all are here */
	STAGE_REHEARSE,
	STAGE_REHEARSING, /* sections */
	STAGE_BETWEEN,	  /* ROUND, or PAUSED */
	STAGE_ROUND,
	STAGE_FINAL,	/* the last pages, or the first section */
	STAGE_STATE,	/* sections */
	STAGE_DIGEST,	/* of memory, then of the state */
	STAGE_DIGESTED, /* both were as they should be */
	STAGE_COMMIT,
	STAGE_RUNNING,
	STAGES,
};

struct target {
	struct target_env env;
	struct wire_hello hello;
	int wake_fd; /* eventfd: the attempt is given up from elsewhere */

	/* the migration thread's own */
	struct stream *stream;
	enum stage stage;
	struct vm *vm;
	struct vm_state *vm_state;
	struct page_receiver *receiver;
	struct populate *populate;
	bool populating;	   /* vCPUs are lent for it */
	struct verifier *verifier; /* NULL: nothing is to be verified */
	struct vm_image image;
	uint64_t image_got;
	uint32_t round;
	uint64_t round_pages;
	uint32_t nsections;
	struct wire_load_times times;
	uint64_t commit_deadline_ns;
	bool rehearsed;	 /* and the source wanted no more */
	bool called_off; /* or lost, before it came to a pause */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum target_state state;
	bool reached_loaded;
	bool said_loaded; /* and could be heard; the receiving thread's own */
	bool gone; /* DESTROYED, and the VM is no more, or can't ever run */
	bool done; /* the source knows what became of the session */
	bool cancelled;
};

/**
 * target_step() - let @event happen.
 *
 * Return: the state it is in then; a refused event changes nothing.
 */
enum target_state target_step(struct target *t, enum target_event event);

/**
 * target_note_done() - the source knows what became of the session.
 */
void target_note_done(struct target *t);

/**
 * target_end_populating() - have the vCPUs back, which soon are needed for what
 * they are; fine when none were lent.
 */
void target_end_populating(struct target *t);

/**
 * target_dispatch() - carry out @record, if it may come now.
 */
int __must_check target_dispatch(struct target *t, const struct record *record,
				 struct error *err);

/**
 * target_on_config() / target_on_image() - carry out the records CONFIG and
 * IMAGE: build the whole machine, receive its boot image.
 */
int __must_check target_on_config(struct target *t, const struct record *record,
				  struct error *err);
int __must_check target_on_image(struct target *t, const struct record *record,
				 struct error *err);

/**
 * verifier_create() - get ready to compare memory and state with the source's
 * digests of them.
 * @nsections: how many sections of state there will be.
 */
int __must_check verifier_create(struct vm *vm, uint32_t nsections,
				 struct verifier **ret, struct error *err);

void verifier_free(struct verifier *verifier);

/**
 * verifier_content() - was everything compared, or is nothing to be (NULL)?
 */
bool verifier_content(const struct verifier *verifier);

/**
 * target_take_section() - a section was decoded: digest what was understood,
 * if it is to be verified.
 */
int __must_check target_take_section(struct target *t,
				     const struct vm_section *section,
				     struct error *err);

/**
 * target_on_digest() / target_on_state_digest() - carry out the records DIGEST
 * and STATE_DIGEST.
 *
 * Return: 0: it is all the same. -EBADMSG: @err names the first difference.
 */
int __must_check target_on_digest(struct target *t, const struct record *record,
				  struct error *err);
int __must_check target_on_state_digest(struct target *t,
					const struct record *record,
					struct error *err);

#endif
