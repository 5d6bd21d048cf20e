// SPDX-License-Identifier: MIT
/*
 * The host's pool of huge pages; see hugepages.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/hugepages.h"

void hugepages_init(struct hugepages *pool)
{
	*pool = (struct hugepages){ .free_fd = -1, .reserved_fd = -1 };
}

int hugepages_open(struct hugepages *pool, struct error *err)
{
	hugepages_init(pool);
	pool->free_fd =
		open(HUGE_PAGE_POOL "free_hugepages", O_RDONLY | O_CLOEXEC);
	if (pool->free_fd >= 0)
		pool->reserved_fd = open(HUGE_PAGE_POOL "resv_hugepages",
					 O_RDONLY | O_CLOEXEC);
	if (pool->reserved_fd >= 0)
		return 0;
	(void)error_set(err, -errno,
			"hugepages: " HUGE_PAGE_POOL
			": %s; this host has no huge pages "
			"of 2 MiB, leave it out",
			strerror(errno));
	hugepages_close(pool);
	return -ENOTSUP;
}

void hugepages_close(struct hugepages *pool)
{
	close_fd(&pool->free_fd);
	close_fd(&pool->reserved_fd);
}

static uint64_t read_count(int fd)
{
	char text[24] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

uint64_t hugepages_available(const struct hugepages *pool)
{
	uint64_t nfree = read_count(pool->free_fd);
	uint64_t nreserved = read_count(pool->reserved_fd);

	return nfree - MIN(nreserved, nfree);
}
