// SPDX-License-Identifier: MIT
/*
 * --verify at the target: memory as it arrived and state as it was understood,
 * against the source's digests (FORMAT.md, Verification). What differs is
 * named, and the attempt has failed.
 *
 * Of the state it is not the bytes that arrived that are summed, which the
 * checksums of records look after, but those that come of encoding again what
 * was decoded.
 *
 * Runs on the migration thread; nothing has been loaded yet.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/target_internal.h"

/* A section as it was understood. */
struct taken {
	char type[DEVICE_TYPE_MAX];
	char id[DEVICE_ID_MAX];
	uint32_t crc;
};

struct verifier {
	struct digest *digest;
	uint32_t chunks; /* compared so far */
	bool done;	 /* all of memory, and the state */
	uint32_t ntaken;
	struct taken taken[];
};

int verifier_create(struct vm *vm, uint32_t nsections, struct verifier **ret,
		    struct error *err)
{
	struct verifier *v =
		calloc(1, sizeof(*v) + nsections * sizeof(v->taken[0]));
	int rc;

	if (!v)
		return error_set(err, -ENOMEM, "--verify: out of memory");
	rc = digest_create(vm_memory(vm), vm_host(vm)->kvm->pagemap_fd,
			   vm_host(vm)->sandbox, &v->digest, err);
	if (rc) {
		free(v);
		return rc;
	}
	*ret = v;
	return 0;
}

void verifier_free(struct verifier *v)
{
	if (!v)
		return;
	digest_free(v->digest);
	free(v);
}

bool verifier_content(const struct verifier *v)
{
	return !v || v->done;
}

int target_take_section(struct target *t, const struct vm_section *section,
			struct error *err)
{
	struct vm_section again = *section;
	struct verifier *v = t->verifier;
	struct taken *taken;
	int rc;

	if (!v || t->stage != STAGE_STATE)
		return 0;
	rc = vm_state_recode(t->vm_state, &again, err);
	if (rc)
		return rc;
	/* No section is decoded twice, and none that the VM does not have. */
	taken = &v->taken[v->ntaken++];
	memcpy(taken->type, section->type, sizeof(taken->type));
	memcpy(taken->id, section->id, sizeof(taken->id));
	taken->crc = crc32c(0, again.data, again.len);
	return 0;
}

static int differs(const struct verifier *v, uint32_t chunk, uint32_t ours,
		   uint32_t theirs, struct error *err)
{
	uint64_t gpa, last;

	digest_range(v->digest, chunk, &gpa, &last);
	return error_set(err, -EBADMSG,
			 "--verify: memory 0x%llx to 0x%llx is not what the "
			 "source has (CRC32C 0x%08x here, 0x%08x there): it "
			 "was damaged on its way; try again",
			 (unsigned long long)gpa, (unsigned long long)last,
			 ours, theirs);
}

int target_on_digest(struct target *t, const struct record *record,
		     struct error *err)
{
	struct wire_digest theirs = { 0 };
	uint32_t ours[WIRE_DIGESTS_MAX];
	struct verifier *v = t->verifier;
	uint32_t chunks;
	int rc;

	if (!v)
		return stream_unexpected(record, "STATE_END", err);
	rc = stream_decode(record, wire_digest_visit, &theirs, err);
	if (rc)
		return rc;
	chunks = digest_chunks(v->digest);
	if (theirs.first != v->chunks || !theirs.n ||
	    theirs.n > chunks - v->chunks)
		return error_set(err, -EBADMSG,
				 "digests of %u chunks from %u on, %u of %u "
				 "are here",
				 theirs.n, theirs.first, v->chunks, chunks);
	if (!v->chunks)
		digest_begin(v->digest);
	digest_take(v->digest, theirs.first, theirs.n, ours);
	for (uint32_t i = 0; i < theirs.n; i++) {
		if (ours[i] != theirs.crcs[i])
			return differs(v, theirs.first + i, ours[i],
				       theirs.crcs[i], err);
	}
	v->chunks += theirs.n;
	return 0;
}

int target_on_state_digest(struct target *t, const struct record *record,
			   struct error *err)
{
	struct wire_digest theirs = { 0 };
	struct verifier *v = t->verifier;
	int rc = stream_decode(record, wire_state_digest_visit, &theirs, err);

	if (rc)
		return rc;
	if (v->chunks != digest_chunks(v->digest) || theirs.n != v->ntaken)
		return error_set(err, -EBADMSG,
				 "digests of %u of %u chunks and of %u "
				 "sections, there are %u",
				 v->chunks, digest_chunks(v->digest), theirs.n,
				 v->ntaken);
	for (uint32_t i = 0; i < theirs.n; i++) {
		const struct taken *ours = &v->taken[i];

		if (ours->crc == theirs.crcs[i])
			continue;
		return error_set(err, -EBADMSG,
				 "--verify: the state of %s %s is not what the "
				 "source has (CRC32C 0x%08x here, 0x%08x "
				 "there)",
				 ours->type, ours->id, ours->crc,
				 theirs.crcs[i]);
	}
	v->done = true;
	return 0;
}
