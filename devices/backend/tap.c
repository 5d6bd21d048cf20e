// SPDX-License-Identifier: MIT
/*
 * Taps; see tap.h.
 *
 * A tap that its maker gave several queues (IFF_MULTI_QUEUE) can be attached to
 * by several processes, which then share its frames at random. So who attaches
 * counts the queues that are attached afterwards: there must be no other.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/backend/tap.h"
#include "devices/backend/user.h"
#include "vmm/log.h"

#define NODE "/dev/net/tun"

/* A frame that waits is read to be dropped; a queue holds no more. */
#define DRAIN_MAX 4096

#define FLAGS_WANTED (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

struct tap {
	int fds[TAP_QUEUES_MAX];
	unsigned int queues;
	unsigned int active; /* the first ones, that frames are spread over */
	unsigned int mtu;
	bool interface;
	struct user *user;
	char name[IFNAMSIZ];
};

/* ---- what the host says of an interface ---- */

static int ask_interface(const char *name, unsigned long request,
			 struct ifreq *ret)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	*ret = (struct ifreq){ 0 };
	snprintf(ret->ifr_name, sizeof(ret->ifr_name), "%s", name);
	rc = ioctl(fd, request, ret) ? -errno : 0;
	close(fd);
	return rc;
}

/* The attribute of @type among @len bytes of them; NULL: none. */
static const struct rtattr *find_attribute(const void *bytes, size_t len,
					   unsigned int type)
{
	const uint8_t *at = bytes;

	while (len >= sizeof(struct rtattr)) {
		const struct rtattr *attribute = (const void *)at;
		size_t step = RTA_ALIGN((size_t)attribute->rta_len);

		if (attribute->rta_len < sizeof(*attribute) || step > len)
			break;
		if ((attribute->rta_type & NLA_TYPE_MASK) == type)
			return attribute;
		at += step;
		len -= step;
	}
	return NULL;
}

static bool attached_in(const struct nlmsghdr *header, unsigned int *ret)
{
	const struct ifinfomsg *link = NLMSG_DATA(header);
	const struct rtattr *at;

	if (header->nlmsg_type != RTM_NEWLINK)
		return false;
	at = find_attribute(IFLA_RTA(link), IFLA_PAYLOAD(header),
			    IFLA_LINKINFO);
	if (at)
		at = find_attribute(RTA_DATA(at), RTA_PAYLOAD(at),
				    IFLA_INFO_DATA);
	if (at)
		at = find_attribute(RTA_DATA(at), RTA_PAYLOAD(at),
				    IFLA_TUN_NUM_QUEUES);
	if (!at)
		return false;
	memcpy(ret, RTA_DATA(at), sizeof(*ret));
	return true;
}

/* Linux, rtnetlink(7). Return: false when the kernel doesn't say. */
static bool count_attached(const char *name, unsigned int *ret)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			    .nlmsg_type = RTM_GETLINK,
			    .nlmsg_flags = NLM_F_REQUEST },
		.link = { .ifi_index = (int)if_nametoindex(name) },
	};
	union {
		struct nlmsghdr header;
		uint8_t bytes[16384];
	} reply;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	bool known = false;
	ssize_t n;

	if (fd < 0)
		return false;
	if (send(fd, &request, sizeof(request), 0) > 0) {
		n = recv(fd, &reply, sizeof(reply), 0);
		known = n > 0 && NLMSG_OK(&reply.header, (size_t)n) &&
			attached_in(&reply.header, ret);
	}
	close(fd);
	return known;
}

/* ---- attaching ---- */

static int refuse_node(const char *name, int code, struct error *err)
{
	if (code == -EACCES || code == -EPERM)
		return error_set(err, code,
				 "tap %s: %s: %s; have root run this, or let "
				 "your group read and write that device",
				 name, NODE, strerror(-code));
	return error_set(err, code,
			 "tap %s: %s: %s; `modprobe tun` makes it where the "
			 "kernel has taps",
			 name, NODE, strerror(-code));
}

static int refuse_attach(const char *name, unsigned int queues, int code,
			 struct error *err)
{
	if (code == -EBUSY)
		return error_set(err, code,
				 "tap %s: in use by another process; stop "
				 "that, or give another tap",
				 name);
	if (code == -EPERM)
		return error_set(err, code,
				 "tap %s: it belongs to another user; make it "
				 "with `ip tuntap add dev %s mode tap user "
				 "NAME`, or have root run this",
				 name, name);
	if (code == -EINVAL && queues > 1)
		return error_set(err, code,
				 "tap %s: no tap of several queues; make it "
				 "with `ip tuntap add dev %s mode tap "
				 "multi_queue`, or leave queues= out",
				 name, name);
	if (code == -EINVAL)
		return error_set(err, code,
				 "tap %s: an interface, but no tap that gives "
				 "its header; make one with `ip tuntap add dev "
				 "NAME mode tap`",
				 name);
	if (code == -E2BIG)
		return error_set(err, code,
				 "tap %s: it has no %u free queues; give "
				 "fewer, or another tap",
				 name, queues);
	return error_set(err, code, "tap %s: %s", name, strerror(-code));
}

static int attach(const char *name, int flags, int *ret_fd, bool *ret_node)
{
	struct ifreq ifr = { .ifr_flags = (short)(FLAGS_WANTED | flags) };
	int fd = open(NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int rc;

	*ret_node = fd < 0;
	if (fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (!ioctl(fd, TUNSETIFF, &ifr)) {
		*ret_fd = fd;
		return 0;
	}
	rc = -errno;
	close(fd);
	return rc;
}

static int attach_all(struct tap *tap, struct error *err)
{
	int flags = tap->queues > 1 ? IFF_MULTI_QUEUE : 0;
	bool node = false;
	int rc = 0;

	for (unsigned int i = 0; i < tap->queues && !rc; i++) {
		rc = attach(tap->name, flags, &tap->fds[i], &node);
		/* One that could have several may as well have one. */
		if (rc == -EINVAL && tap->queues == 1)
			rc = attach(tap->name, IFF_MULTI_QUEUE, &tap->fds[0],
				    &node);
	}
	if (!rc)
		return 0;
	return node ? refuse_node(tap->name, rc, err)
		    : refuse_attach(tap->name, tap->queues, rc, err);
}

static int check_alone(const struct tap *tap, struct error *err)
{
	unsigned int attached;

	if (!count_attached(tap->name, &attached) || attached <= tap->queues)
		return 0;
	return refuse_attach(tap->name, tap->queues, -EBUSY, err);
}

static int prepare_interface(struct tap *tap, struct error *err)
{
	int header = TAP_HEADER;
	struct ifreq ifr = { 0 };
	int rc = 0;

	for (unsigned int i = 0; i < tap->queues && !rc; i++) {
		if (ioctl(tap->fds[i], TUNSETVNETHDRSZ, &header))
			rc = -errno;
	}
	if (!rc)
		rc = ask_interface(tap->name, SIOCGIFMTU, &ifr);
	if (rc)
		return error_set(err, rc, "tap %s: %s", tap->name,
				 strerror(-rc));
	tap->mtu = (unsigned int)ifr.ifr_mtu;
	if (!ask_interface(tap->name, SIOCGIFFLAGS, &ifr) &&
	    !(ifr.ifr_flags & IFF_UP))
		log_warn("tap %s is down, and carries nothing; `ip link set "
			 "%s up`",
			 tap->name, tap->name);
	tap_set_offloads(tap, 0);
	tap_set_queues(tap, 1);
	return 0;
}

static int open_by_name(struct tap *tap, const char *name, struct error *err)
{
	int rc;

	tap->interface = true;
	snprintf(tap->name, sizeof(tap->name), "%s", name);
	/* Attaching to what isn't there would make it. */
	if (!if_nametoindex(name))
		return error_set(
			err, -ENODEV,
			"tap %s: there is no such interface; make it "
			"with `ip tuntap add dev %s mode tap`, or with "
			"tools/godwit-bridge",
			name, name);
	rc = attach_all(tap, err);
	if (!rc)
		rc = check_alone(tap, err);
	return rc ? rc : prepare_interface(tap, err);
}

/* ---- inherited descriptors ---- */

static int take_socket(struct tap *tap, struct error *err)
{
	socklen_t len = sizeof(int);
	int type = 0;

	tap->mtu = UINT16_MAX;
	if (!getsockopt(tap->fds[0], SOL_SOCKET, SO_TYPE, &type, &len) &&
	    (type == SOCK_DGRAM || type == SOCK_SEQPACKET))
		return 0;
	return error_set(err, -EINVAL,
			 "%s: neither a tap nor a socket that keeps messages "
			 "apart; open it before godwit is started, and pass "
			 "the number that it has there",
			 tap->name);
}

static int take_fd(struct tap *tap, struct error *err)
{
	int flags = fcntl(tap->fds[0], F_GETFL);
	struct ifreq ifr = { 0 };

	if (flags < 0 || fcntl(tap->fds[0], F_SETFL, flags | O_NONBLOCK) ||
	    fcntl(tap->fds[0], F_SETFD, FD_CLOEXEC))
		return error_set(err, -errno,
				 "%s: %s; pass the number of an "
				 "open descriptor",
				 tap->name, strerror(errno));
	if (ioctl(tap->fds[0], TUNGETIFF, &ifr))
		return take_socket(tap, err);
	if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI) ||
	    !(ifr.ifr_flags & IFF_VNET_HDR))
		return error_set(err, -EINVAL,
				 "%s: attached to %s without IFF_TAP, "
				 "IFF_NO_PI or IFF_VNET_HDR; attach with these",
				 tap->name, ifr.ifr_name);
	tap->interface = true;
	memcpy(tap->name, ifr.ifr_name, sizeof(tap->name));
	return prepare_interface(tap, err);
}

/* ---- life ---- */

static struct tap *new_tap(unsigned int queues)
{
	struct tap *tap = calloc(1, sizeof(*tap));

	for (unsigned int i = 0; tap && i < TAP_QUEUES_MAX; i++)
		tap->fds[i] = -1;
	if (tap)
		tap->active = tap->queues = queues;
	return tap;
}

int tap_open(const struct tap_params *params, struct tap **ret,
	     struct error *err)
{
	struct tap *tap = new_tap(params->queues);
	int rc;

	if (!tap)
		return error_set(err, -ENOMEM, "a tap: out of memory");
	if (params->name) {
		rc = open_by_name(tap, params->name, err);
	} else {
		tap->fds[0] = params->fd;
		snprintf(tap->name, sizeof(tap->name), "fd:%d", params->fd);
		rc = take_fd(tap, err);
	}
	if (!rc && params->user) {
		tap->user = params->user;
		tap->mtu = USER_MTU;
		strcpy(tap->name, "user network");
	}
	if (rc)
		tap_close(tap);
	else
		*ret = tap;
	return rc;
}

int tap_dup(const struct tap *tap, unsigned int queues, struct tap **ret,
	    struct error *err)
{
	struct tap *copy = new_tap(queues);

	if (!copy)
		return error_set(err, -ENOMEM, "tap %s: out of memory",
				 tap->name);
	copy->active = MIN(tap->active, queues);
	copy->mtu = tap->mtu;
	copy->interface = tap->interface;
	copy->user = tap->user;
	memcpy(copy->name, tap->name, sizeof(copy->name));
	for (unsigned int i = 0; i < queues; i++) {
		copy->fds[i] = fcntl(tap->fds[i], F_DUPFD_CLOEXEC, 0);
		if (copy->fds[i] < 0) {
			(void)error_set(err, -errno, "tap %s: %s", tap->name,
					strerror(errno));
			tap_close(copy);
			return -EMFILE;
		}
	}
	*ret = copy;
	return 0;
}

void tap_close(struct tap *tap)
{
	if (!tap)
		return;
	for (unsigned int i = 0; i < TAP_QUEUES_MAX; i++)
		close_fd(&tap->fds[i]);
	free(tap);
}

const char *tap_name(const struct tap *tap)
{
	return tap->name;
}

bool tap_is_interface(const struct tap *tap)
{
	return tap->interface;
}

struct user *tap_user(const struct tap *tap)
{
	return tap->user;
}

unsigned int tap_mtu(const struct tap *tap)
{
	return tap->mtu;
}

unsigned int tap_queues(const struct tap *tap)
{
	return tap->queues;
}

int tap_fd(const struct tap *tap, unsigned int index)
{
	return tap->fds[index];
}

/* ---- what comes in ---- */

void tap_set_offloads(struct tap *tap, unsigned int offloads)
{
	unsigned long flags = 0;

	if (!tap->interface)
		return;
	if (offloads & TAP_CSUM) {
		flags |= TUN_F_CSUM;
		flags |= offloads & TAP_TSO4 ? TUN_F_TSO4 : 0;
		flags |= offloads & TAP_TSO6 ? TUN_F_TSO6 : 0;
		flags |= offloads & TAP_ECN ? TUN_F_TSO_ECN : 0;
	}
	/* A tap that is gone has other troubles. */
	if (ioctl(tap->fds[0], TUNSETOFFLOAD, flags) && errno != EBADFD)
		log_warn("tap %s: offloads 0x%lx: %s", tap->name, flags,
			 strerror(errno));
}

void tap_set_queues(struct tap *tap, unsigned int count)
{
	for (; tap->active > count; tap->active--) {
		struct ifreq ifr = { .ifr_flags = IFF_DETACH_QUEUE };

		(void)!ioctl(tap->fds[tap->active - 1], TUNSETQUEUE, &ifr);
	}
	for (; tap->active < count; tap->active++) {
		struct ifreq ifr = { .ifr_flags = IFF_ATTACH_QUEUE };

		if (ioctl(tap->fds[tap->active], TUNSETQUEUE, &ifr)) {
			log_warn("tap %s: queue %u: %s", tap->name, tap->active,
				 strerror(errno));
			return;
		}
	}
}

static void drain(struct tap *tap)
{
	uint8_t bytes[64];

	/* What doesn't fit of a message is dropped with it. */
	for (unsigned int i = 0; i < tap->queues; i++) {
		for (unsigned int n = 0; n < DRAIN_MAX; n++) {
			if (read(tap->fds[i], bytes, sizeof(bytes)) <= 0)
				break;
		}
	}
}

void tap_hush(struct tap *tap)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &nothing };

	if (tap->interface && ioctl(tap->fds[0], TUNATTACHFILTER, &program))
		log_debug("tap %s: TUNATTACHFILTER: %s", tap->name,
			  strerror(errno));
	drain(tap);
}

void tap_hear(struct tap *tap)
{
	struct sock_fprog unused = { 0 };

	/* A socket could not be told: what has come is dropped now. */
	drain(tap);
	if (tap->interface && ioctl(tap->fds[0], TUNDETACHFILTER, &unused))
		log_debug("tap %s: TUNDETACHFILTER: %s", tap->name,
			  strerror(errno));
}
