/* SPDX-License-Identifier: MIT */
/*
 * Connections of the guest inet: RFC 9293 with nothing lost on the way to the
 * other end, and one segment at a time. Who connects gets back what he sends,
 * on any port.
 */
#include "inet/inet.h"

#define FIN 1U
#define SYN 2U
#define RST 4U
#define PSH 8U
#define ACK 16U

#define HEADER 20U
#define WINDOW 8192U
#define FIRST  1000U /* sequence number */
#define OURS   40000U

#define CONNECTIONS 8U

enum state {
	CLOSED,
	SYN_SENT,
	SYN_RECEIVED,
	OPEN,
	LAST_ACK
};

struct connection {
	enum state state;
	uint8_t peer[4];
	uint16_t theirs, ours; /* ports */
	uint32_t next;	       /* that we send */
	uint32_t expected;     /* of them */
};

static struct connection connections[CONNECTIONS];

static void send(struct inet *inet, struct connection *c, unsigned int flags,
		 const uint8_t *data, uint32_t len)
{
	uint8_t *tcp = ip_begin(inet, IP_TCP, c->peer) + TCP_AT;

	memset(tcp, 0, HEADER);
	put16(tcp, c->ours);
	put16(tcp + 2, c->theirs);
	put32(tcp + 4, c->next);
	put32(tcp + 8, flags & ACK ? c->expected : 0);
	tcp[12] = HEADER / 4 << 4;
	tcp[13] = (uint8_t)flags;
	put16(tcp + 14, WINDOW);
	memcpy(tcp + HEADER, data, len);
	ip_send(inet, HEADER + len);
	c->next += len + !!(flags & (SYN | FIN));
}

static struct connection *find(const uint8_t from[4], const uint8_t *tcp)
{
	for (unsigned int i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &connections[i];

		if (c->state != CLOSED && c->theirs == get16(tcp) &&
		    c->ours == get16(tcp + 2) && !memcmp(c->peer, from, 4))
			return c;
	}
	return NULL;
}

static struct connection *new_connection(const uint8_t peer[4],
					 unsigned int theirs, unsigned int ours)
{
	for (unsigned int i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &connections[i];

		if (c->state != CLOSED)
			continue;
		*c = (struct connection){ .theirs = (uint16_t)theirs,
					  .ours = (uint16_t)ours,
					  .next = FIRST };
		memcpy(c->peer, peer, 4);
		return c;
	}
	return NULL;
}

void tcp_connect(struct inet *inet, unsigned int port)
{
	struct connection *c = new_connection(inet->gateway, port, OURS);

	if (!c)
		return;
	c->state = SYN_SENT;
	send(inet, c, SYN, NULL, 0);
}

static void accept(struct inet *inet, const uint8_t from[4], const uint8_t *tcp)
{
	struct connection *c = new_connection(from, get16(tcp), get16(tcp + 2));

	if (!c)
		return;
	c->state = SYN_RECEIVED;
	c->expected = get32(tcp + 4) + 1;
	send(inet, c, SYN | ACK, NULL, 0);
}

/* What came in order goes back; what came before is acknowledged again. */
static void receive_data(struct inet *inet, struct connection *c,
			 const uint8_t *tcp, uint32_t len)
{
	uint32_t front = (uint32_t)(tcp[12] >> 4) * 4;
	uint32_t n = front > len ? 0 : len - front;
	unsigned int flags = tcp[13];

	if (get32(tcp + 4) != c->expected) {
		send(inet, c, ACK, NULL, 0);
		return;
	}
	c->expected += n;
	if (n)
		send(inet, c, PSH | ACK, tcp + front, n);
	if (flags & FIN) {
		c->expected++;
		c->state = LAST_ACK;
		send(inet, c, FIN | ACK, NULL, 0);
	}
}

static void receive_on(struct inet *inet, struct connection *c,
		       const uint8_t *tcp, uint32_t len)
{
	unsigned int flags = tcp[13];

	if (flags & RST) {
		print("reset %u\n", c->ours);
		inet->resets++;
		c->state = CLOSED;
	} else if (c->state == SYN_SENT && flags & SYN) {
		c->expected = get32(tcp + 4) + 1;
		c->state = OPEN;
		print("connected %u\n", c->theirs);
		send(inet, c, PSH | ACK, (const uint8_t *)"hello", 5);
	} else if (c->state == SYN_RECEIVED && !(flags & SYN)) {
		c->state = OPEN;
		print("accepted %u\n", c->ours);
		receive_data(inet, c, tcp, len);
	} else if (c->state == LAST_ACK && get32(tcp + 8) == c->next) {
		print("closed %u\n", c->ours);
		c->state = CLOSED;
	} else if (c->state == OPEN && (len > HEADER || flags & FIN)) {
		receive_data(inet, c, tcp, len);
	}
}

void tcp_receive(struct inet *inet, const uint8_t from[4], const uint8_t *data,
		 uint32_t len)
{
	struct connection *c;

	if (len < HEADER)
		return;
	c = find(from, data);
	if (c)
		receive_on(inet, c, data, len);
	else if ((data[13] & (SYN | ACK)) == SYN)
		accept(inet, from, data);
}

unsigned int tcp_say(struct inet *inet)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < CONNECTIONS; i++) {
		if (connections[i].state != OPEN)
			continue;
		send(inet, &connections[i], PSH | ACK, (const uint8_t *)"x", 1);
		n++;
	}
	return n;
}
