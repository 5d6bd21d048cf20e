/* SPDX-License-Identifier: MIT */
/*
 * Frames between a guest and the network that a test plays, as a tap's
 * messages: of an Ethernet type for experiments, and numbered; what is in one,
 * and how much, follows from its number (guests/net, guests/sync/card.c).
 */
#ifndef GODWIT_TESTS_FRAMES_H
#define GODWIT_TESTS_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAME_HEADER  12 /* of a tap's message */
#define FRAME_FRONT   14 /* of a frame */
#define FRAME_NUMBER  8
#define FRAME_MIN     60
#define FRAME_MAX     1514
#define FRAME_MESSAGE (FRAME_HEADER + FRAME_MAX)

static const uint8_t frame_to_guest[FRAME_FRONT] = {
	2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 1, 0x88, 0xb5
};
static const uint8_t frame_to_network[FRAME_FRONT] = {
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x88, 0xb5
};

static size_t frame_size(uint64_t number)
{
	return FRAME_MIN + number * 97 % (FRAME_MAX - FRAME_MIN + 1);
}

/*
 * Return: the message's length, up to FRAME_MESSAGE.
 */
static size_t frame_put(uint8_t *at, uint64_t number, const uint8_t *front)
{
	size_t size = frame_size(number);

	memset(at, 0, FRAME_HEADER);
	memcpy(at + FRAME_HEADER, front, FRAME_FRONT);
	memcpy(at + FRAME_HEADER + FRAME_FRONT, &number, FRAME_NUMBER);
	for (size_t i = FRAME_FRONT + FRAME_NUMBER; i < size; i++)
		at[FRAME_HEADER + i] = (uint8_t)(number + i);
	return FRAME_HEADER + size;
}

#endif
