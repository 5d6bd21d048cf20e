// SPDX-License-Identifier: MIT
/*
 * How often KVM had to resolve a page fault of a vCPU, by the counters that it
 * keeps for each (Linux, Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD). Its
 * file tells where in it each counter is, by name.
 */
#include <errno.h>
#include <string.h>

#include "arch/arch.h"

/* Faults that were resolved: under KVM's lock, and without it. */
static const char *const counted[] = { "pf_fixed", "pf_fast" };

_Static_assert(ARRAY_SIZE(counted) == ARCH_FAULT_KINDS, "a place each");

#define NAME_SIZE 48 /* KVM_STATS_NAME_SIZE, of all kernels so far */

struct entry {
	struct kvm_stats_desc desc;
	char name[NAME_SIZE];
};

/* KVM has some 50; what is beyond isn't looked at. */
struct table {
	struct kvm_stats_header header;
	uint32_t n;
	struct entry entries[128];
};

static int read_table(int fd, struct table *table)
{
	const struct kvm_stats_header *header = &table->header;
	int rc = pread_full(fd, &table->header, sizeof(table->header), 0);

	if (rc)
		return rc;
	table->n = 0;
	if (header->name_size != NAME_SIZE)
		return 0;
	table->n = MIN(header->num_desc, ARRAY_SIZE(table->entries));
	return pread_full(fd, table->entries,
			  table->n * sizeof(table->entries[0]),
			  header->desc_offset);
}

static int find(const struct table *table, const char *name, uint64_t *ret_at)
{
	for (uint32_t i = 0; i < table->n; i++) {
		const struct entry *entry = &table->entries[i];

		if (strncmp(entry->name, name, sizeof(entry->name)))
			continue;
		*ret_at = table->header.data_offset + entry->desc.offset;
		return 0;
	}
	return -ENOENT;
}

int arch_faults_open(const struct kvm *kvm, int vcpu_fd,
		     struct arch_faults *ret, struct error *err)
{
	struct table table;
	int rc;

	ret->fd = -1;
	if (!kvm->has_stats)
		return 0;
	rc = KVM_IOCTL_NUM(vcpu_fd, KVM_GET_STATS_FD, 0, err);
	if (rc < 0)
		return rc;
	ret->fd = rc;
	rc = read_table(ret->fd, &table);
	if (rc)
		return error_set(err, rc, "KVM's counters: %s", strerror(-rc));
	for (size_t i = 0; !rc && i < ARRAY_SIZE(counted); i++)
		rc = find(&table, counted[i], &ret->at[i]);
	/* A kernel that counts other things. */
	if (rc)
		close_fd(&ret->fd);
	return 0;
}

int arch_faults_read(const struct arch_faults *faults, uint64_t *ret)
{
	int rc = faults->fd < 0 ? -ENOTSUP : 0;

	*ret = 0;
	for (size_t i = 0; !rc && i < ARRAY_SIZE(faults->at); i++) {
		uint64_t count = 0;

		rc = pread_full(faults->fd, &count, sizeof(count),
				faults->at[i]);
		*ret += count;
	}
	return rc;
}
