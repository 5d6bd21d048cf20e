// SPDX-License-Identifier: MIT
/*
 * MSI-X; see msix.h.
 *
 * The one rule, which holds whenever the lock is free: a vector is pending only
 * while something holds it back, which is its own mask or the function's. So
 * whatever takes a mask away sends, and nothing is left to do at resume.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "devices/msix.h"
#include "vmm/irq.h"

#define CONTROL_WRITABLE (MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK)
#define ADDRESS_ALIGN	 4

/* The table's dwords, section 7.7.2.5 and on. */
enum {
	ENTRY_ADDRESS_LOW,
	ENTRY_ADDRESS_HIGH,
	ENTRY_DATA,
	ENTRY_CONTROL,
};

static_assert(sizeof(struct msix_entry) == MSIX_ENTRY_SIZE,
	      "as the table has it");
static_assert(MSIX_TABLE_OFFSET + DEVICE_VECTORS_MAX * MSIX_ENTRY_SIZE <=
		      MSIX_PENDING_OFFSET,
	      "the table ends before the pending bits");

static void msix_power_on(struct msix *msix)
{
	msix->state = (struct msix_state){ .nvectors = msix->nvectors };
	for (unsigned int i = 0; i < msix->nvectors; i++)
		msix->state.entries[i].control = MSIX_ENTRY_MASKED;
}

void msix_init(struct msix *msix, struct irq *irq, unsigned int nvectors)
{
	assert(nvectors && nvectors <= DEVICE_VECTORS_MAX);
	*msix = (struct msix){ .irq = irq, .nvectors = nvectors };
	/* Can't fail with default attributes. */
	pthread_mutex_init(&msix->lock, NULL);
	msix_power_on(msix);
}

void msix_fini(struct msix *msix)
{
	if (msix->nvectors)
		pthread_mutex_destroy(&msix->lock);
}

void msix_reset(struct msix *msix)
{
	pthread_mutex_lock(&msix->lock);
	msix_power_on(msix);
	pthread_mutex_unlock(&msix->lock);
}

/* ---- sending ---- */

/* Is a message of this vector sent at once? Only when enabled. */
static bool msix_open(const struct msix_state *s, unsigned int vector)
{
	return !(s->control & MSIX_CONTROL_MASK) &&
	       !(s->entries[vector].control & MSIX_ENTRY_MASKED);
}

static void msix_send_pending(struct msix *msix, unsigned int vector)
{
	struct msix_state *s = &msix->state;

	if (!(s->pending >> vector & 1) || !msix_open(s, vector))
		return;
	s->pending &= ~(1U << vector);
	irq_send_msi(msix->irq, s->entries[vector].address,
		     s->entries[vector].data);
}

/* Send what nothing holds back any more. */
static void msix_flush(struct msix *msix)
{
	for (unsigned int i = 0; msix->state.pending && i < msix->nvectors; i++)
		msix_send_pending(msix, i);
}

bool msix_raise(struct msix *msix, unsigned int vector)
{
	bool enabled;

	pthread_mutex_lock(&msix->lock);
	enabled = msix->state.control & MSIX_CONTROL_ENABLE;
	if (enabled && vector < msix->nvectors) {
		msix->state.pending |= 1U << vector;
		msix_send_pending(msix, vector);
	}
	pthread_mutex_unlock(&msix->lock);
	return enabled;
}

bool msix_enabled(struct msix *msix)
{
	return msix_control(msix) & MSIX_CONTROL_ENABLE;
}

uint16_t msix_control(struct msix *msix)
{
	uint16_t control;

	pthread_mutex_lock(&msix->lock);
	control = (uint16_t)(msix->state.control | (msix->nvectors - 1));
	pthread_mutex_unlock(&msix->lock);
	return control;
}

void msix_set_control(struct msix *msix, uint16_t control)
{
	struct msix_state *s = &msix->state;

	pthread_mutex_lock(&msix->lock);
	s->control = control & CONTROL_WRITABLE;
	if (!(s->control & MSIX_CONTROL_ENABLE))
		s->pending = 0;
	msix_flush(msix);
	pthread_mutex_unlock(&msix->lock);
}

/* ---- the BAR ---- */

static bool msix_is_access(uint64_t offset, unsigned int size)
{
	return (size == 4 || size == 8) && offset % size == 0 &&
	       offset < MSIX_BAR_SIZE;
}

/* The entry at @offset of the BAR, or NULL. */
static struct msix_entry *msix_entry_at(struct msix *msix, uint64_t offset)
{
	uint64_t index = (offset - MSIX_TABLE_OFFSET) / MSIX_ENTRY_SIZE;

	return index < msix->nvectors ? &msix->state.entries[index] : NULL;
}

static uint32_t msix_read_dword(struct msix *msix, uint64_t offset)
{
	const struct msix_entry *entry = msix_entry_at(msix, offset);

	if (offset == MSIX_PENDING_OFFSET)
		return msix->state.pending;
	if (!entry)
		return 0;
	switch (offset % MSIX_ENTRY_SIZE / sizeof(uint32_t)) {
	case ENTRY_ADDRESS_LOW:
		return (uint32_t)entry->address;
	case ENTRY_ADDRESS_HIGH:
		return (uint32_t)(entry->address >> 32);
	case ENTRY_DATA:
		return entry->data;
	default:
		return entry->control;
	}
}

static void msix_write_dword(struct msix *msix, uint64_t offset, uint32_t value)
{
	struct msix_entry *entry = msix_entry_at(msix, offset);

	if (!entry)
		return;
	switch (offset % MSIX_ENTRY_SIZE / sizeof(uint32_t)) {
	case ENTRY_ADDRESS_LOW:
		value -= value % ADDRESS_ALIGN;
		entry->address = entry->address >> 32 << 32 | value;
		break;
	case ENTRY_ADDRESS_HIGH:
		entry->address =
			(uint64_t)value << 32 | (uint32_t)entry->address;
		break;
	case ENTRY_DATA:
		entry->data = value;
		break;
	default:
		entry->control = value & MSIX_ENTRY_MASKED;
		break;
	}
}

void msix_read(struct msix *msix, uint64_t offset, void *data,
	       unsigned int size)
{
	uint32_t dwords[2] = { 0 };

	memset(data, 0, size);
	if (!msix_is_access(offset, size))
		return;
	pthread_mutex_lock(&msix->lock);
	for (unsigned int i = 0; i < size / sizeof(dwords[0]); i++)
		dwords[i] = msix_read_dword(msix, offset + 4 * i);
	pthread_mutex_unlock(&msix->lock);
	memcpy(data, dwords, size);
}

void msix_write(struct msix *msix, uint64_t offset, const void *data,
		unsigned int size)
{
	uint32_t dwords[2] = { 0 };

	if (!msix_is_access(offset, size))
		return;
	memcpy(dwords, data, size);
	pthread_mutex_lock(&msix->lock);
	for (unsigned int i = 0; i < size / sizeof(dwords[0]); i++)
		msix_write_dword(msix, offset + 4 * i, dwords[i]);
	msix_flush(msix);
	pthread_mutex_unlock(&msix->lock);
}

/* ---- the state ---- */

void msix_visit(struct codec *c, struct msix_state *state)
{
	codec_enter(c, "msix");
	codec_u16(c, "control", &state->control);
	codec_u32(c, "pending", &state->pending);
	codec_count(c, "vectors", &state->nvectors, DEVICE_VECTORS_MAX);
	codec_enter(c, "vector");
	for (uint32_t i = 0; i < state->nvectors; i++) {
		codec_u64(c, "address", &state->entries[i].address);
		codec_u32(c, "data", &state->entries[i].data);
		codec_u32(c, "control", &state->entries[i].control);
	}
	codec_leave(c);
	codec_leave(c);
}

void msix_snapshot(struct msix *msix, struct msix_state *state)
{
	pthread_mutex_lock(&msix->lock);
	*state = msix->state;
	pthread_mutex_unlock(&msix->lock);
}

static int msix_check_entry(const struct msix_state *s, unsigned int vector,
			    struct error *err)
{
	const struct msix_entry *entry = &s->entries[vector];

	if (entry->address % ADDRESS_ALIGN)
		return error_set(err, -EINVAL,
				 "msix.vector %u: address 0x%llx isn't aligned",
				 vector, (unsigned long long)entry->address);
	if (entry->control & ~(uint32_t)MSIX_ENTRY_MASKED)
		return error_set(err, -EINVAL,
				 "msix.vector %u: control 0x%x has bits that "
				 "aren't kept",
				 vector, entry->control);
	if (s->pending & 1U << vector && msix_open(s, vector))
		return error_set(err, -EINVAL,
				 "msix.pending 0x%x: vector %u is not masked",
				 s->pending, vector);
	return 0;
}

int msix_check(const struct msix *msix, const struct msix_state *state,
	       struct error *err)
{
	uint64_t all = (1ULL << msix->nvectors) - 1;
	int code = 0;

	if (state->nvectors != msix->nvectors)
		return error_set(err, -EINVAL,
				 "msix.vectors %u: there are %u here",
				 state->nvectors, msix->nvectors);
	if (state->control & ~CONTROL_WRITABLE ||
	    (state->control && !msix->nvectors))
		return error_set(err, -EINVAL,
				 "msix.control 0x%04x has bits that "
				 "aren't kept",
				 state->control);
	if (state->pending & ~all)
		return error_set(err, -EINVAL,
				 "msix.pending 0x%x: there are %u vectors",
				 state->pending, msix->nvectors);
	if (state->pending && !(state->control & MSIX_CONTROL_ENABLE))
		return error_set(err, -EINVAL,
				 "msix.pending 0x%x, but MSI-X is disabled",
				 state->pending);
	for (unsigned int i = 0; !code && i < msix->nvectors; i++)
		code = msix_check_entry(state, i, err);
	return code;
}

void msix_commit(struct msix *msix, const struct msix_state *state)
{
	pthread_mutex_lock(&msix->lock);
	msix->state = *state;
	pthread_mutex_unlock(&msix->lock);
}
