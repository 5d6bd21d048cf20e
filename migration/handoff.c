// SPDX-License-Identifier: MIT
/*
 * The handoff tables of handoff.def as C, and the one function for each side
 * that steps through them. A cell of a table is the next state plus one, so
 * that cells without a row are 0: refused.
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "migration/handoff.h"

enum origin {
	OWN,
	PEER,
	USER,
};

#define SOURCE_GUEST(name, guest)	[SOURCE_##name] = guest,
#define SOURCE_STATE_NAME(name, guest)	[SOURCE_##name] = #name,
#define SOURCE_EVENT_NAME(name, origin) [SOURCE_ON_##name] = #name,
#define SOURCE_ORIGIN(name, origin)	[SOURCE_ON_##name] = origin,
#define SOURCE_ROW(state, event, next) \
	[SOURCE_##state][SOURCE_ON_##event] = SOURCE_##next + 1,

static const bool source_guest[] = { HANDOFF_SOURCE_STATES(SOURCE_GUEST) };
static const char *const source_states[] = { HANDOFF_SOURCE_STATES(
	SOURCE_STATE_NAME) };
static const char *const source_events[] = { HANDOFF_SOURCE_EVENTS(
	SOURCE_EVENT_NAME) };
static const enum origin source_origins[] = { HANDOFF_SOURCE_EVENTS(
	SOURCE_ORIGIN) };
static const uint8_t source_table[SOURCE_STATES][SOURCE_EVENTS] = {
	HANDOFF_SOURCE_TABLE(SOURCE_ROW)
};

#define TARGET_GUEST(name, guest)	[TARGET_##name] = guest,
#define TARGET_STATE_NAME(name, guest)	[TARGET_##name] = #name,
#define TARGET_EVENT_NAME(name, origin) [TARGET_ON_##name] = #name,
#define TARGET_ORIGIN(name, origin)	[TARGET_ON_##name] = origin,
#define TARGET_ROW(state, event, next) \
	[TARGET_##state][TARGET_ON_##event] = TARGET_##next + 1,

static const bool target_guest[] = { HANDOFF_TARGET_STATES(TARGET_GUEST) };
static const char *const target_states[] = { HANDOFF_TARGET_STATES(
	TARGET_STATE_NAME) };
static const char *const target_events[] = { HANDOFF_TARGET_EVENTS(
	TARGET_EVENT_NAME) };
static const enum origin target_origins[] = { HANDOFF_TARGET_EVENTS(
	TARGET_ORIGIN) };
static const uint8_t target_table[TARGET_STATES][TARGET_EVENTS] = {
	HANDOFF_TARGET_TABLE(TARGET_ROW)
};

_Static_assert(ARRAY_SIZE(source_states) == SOURCE_STATES, "a name each");
_Static_assert(ARRAY_SIZE(source_events) == SOURCE_EVENTS, "a name each");
_Static_assert(ARRAY_SIZE(target_states) == TARGET_STATES, "a name each");
_Static_assert(ARRAY_SIZE(target_events) == TARGET_EVENTS, "a name each");

static int refusal(enum origin origin)
{
	assert(origin != OWN);
	return origin == USER ? -EPERM : -EPROTO;
}

int handoff_source_step(enum source_state *state, enum source_event event)
{
	unsigned int cell;

	assert(*state < SOURCE_STATES && event < SOURCE_EVENTS);
	cell = source_table[*state][event];
	if (!cell)
		return refusal(source_origins[event]);
	*state = (enum source_state)(cell - 1);
	return 0;
}

int handoff_target_step(enum target_state *state, enum target_event event)
{
	unsigned int cell;

	assert(*state < TARGET_STATES && event < TARGET_EVENTS);
	cell = target_table[*state][event];
	if (!cell)
		return refusal(target_origins[event]);
	*state = (enum target_state)(cell - 1);
	return 0;
}

bool handoff_source_may_run(enum source_state state)
{
	assert(state < SOURCE_STATES);
	return source_guest[state];
}

bool handoff_target_may_run(enum target_state state)
{
	assert(state < TARGET_STATES);
	return target_guest[state];
}

const char *handoff_source_state_name(enum source_state state)
{
	assert(state < SOURCE_STATES);
	return source_states[state];
}

const char *handoff_source_event_name(enum source_event event)
{
	assert(event < SOURCE_EVENTS);
	return source_events[event];
}

const char *handoff_target_state_name(enum target_state state)
{
	assert(state < TARGET_STATES);
	return target_states[state];
}

const char *handoff_target_event_name(enum target_event event)
{
	assert(event < TARGET_EVENTS);
	return target_events[event];
}
