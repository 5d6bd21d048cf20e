// SPDX-License-Identifier: MIT
/*
 * What comes before the first page: HELLO, CONFIG, the boot image, and the
 * REHEARSAL, in which the whole state is read, sent, checked and loaded once
 * for practice. Anything that would make the move fail is found here, and what
 * the steps of the pause will cost is measured.
 *
 * Runs on the migration thread; the guest runs on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/source_internal.h"
#include "vmm/log.h"

/* How long LOADED waits for COMMIT at the target. */
#define COMMIT_DEADLINE_MS 5000
/* A peer that says nothing for so long, when it is its turn, is gone. */
#define SILENCE_MS	 30000
#define CONNECT_PATIENCE (10 * NS_PER_S)
#define IMAGE_PIECE	 (128 * KIB)
#define PINGS		 5

uint64_t source_patience(const struct source *s)
{
	uint64_t now = clock_ns();

	return MIN(now + SILENCE_MS * NS_PER_MS,
		   MAX(s->deadline_ns, now + s->grace_ns));
}

int source_expect(struct source *s, enum wire_type type, struct record *ret,
		  uint64_t deadline_ns, struct error *err)
{
	struct wire_reason reason = { 0 };
	int rc = stream_recv(s->stream, ret, deadline_ns, err);

	if (rc || ret->type == type)
		return rc;
	if (ret->type != WIRE_REFUSE)
		return stream_unexpected(ret, wire_type_name(type), err);
	rc = stream_decode(ret, wire_reason_visit, &reason, err);
	if (rc)
		return rc;
	return error_set(err, -ECONNREFUSED, "the target refuses: %s",
			 reason.text);
}

void source_fill_hello(const struct source *s, struct wire_hello *hello)
{
	*hello = (struct wire_hello){
		.magic = WIRE_MAGIC,
		.version_min = WIRE_VERSION_MIN,
		.version_max = WIRE_VERSION_MAX,
		.capabilities = (s->params.verify ? WIRE_CAP_VERIFY : 0) |
				(s->params.dry_run ? WIRE_CAP_DRY_RUN : 0),
		.commit_deadline_ms = COMMIT_DEADLINE_MS,
		.silence_deadline_ms = SILENCE_MS,
		.software = "godwit " GODWIT_VERSION,
	};
	memcpy(hello->session, s->session, sizeof(hello->session));
}

int source_connect(struct source *s, uint64_t deadline_ns, struct stream **ret,
		   struct error *err)
{
	int fd = transport_connect(&s->params.to, s->interrupt_fd, deadline_ns,
				   err);

	if (fd < 0)
		return fd;
	transport_tune(fd, SILENCE_MS);
	return stream_open(fd, s->interrupt_fd, ret, err);
}

/*
 * What we asked for must be done, and nothing else. Who doesn't know dry runs
 * rehearses like any other, and only ends a listener that one goes wrong for.
 */
static int agree(const struct wire_hello *hello,
		 const struct wire_welcome *welcome, struct error *err)
{
	uint32_t missing = hello->capabilities & ~welcome->capabilities &
			   ~WIRE_CAP_DRY_RUN;

	if (welcome->capabilities & ~hello->capabilities)
		return error_set(err, -EPROTO,
				 "the peer's WELCOME has capabilities 0x%x, "
				 "our HELLO 0x%x",
				 welcome->capabilities, hello->capabilities);
	if (missing)
		return error_set(err, -ENOTSUP,
				 "--verify: the target, %s, can't; update it, "
				 "or move without",
				 welcome->software);
	return 0;
}

static int say_hello(struct source *s, struct error *err)
{
	struct wire_welcome welcome = { 0 };
	struct wire_hello hello;
	struct record record;
	int rc;

	rc = source_connect(
		s, MIN(clock_ns() + CONNECT_PATIENCE, source_patience(s)),
		&s->stream, err);
	if (rc)
		return rc;
	source_fill_hello(s, &hello);
	rc = stream_send_struct(s->stream, WIRE_HELLO, wire_hello_visit, &hello,
				source_patience(s), err);
	if (!rc)
		rc = source_expect(s, WIRE_WELCOME, &record, source_patience(s),
				   err);
	if (rc == -EBADMSG)
		error_prefix(err,
			     "%s is not where a `godwit listen` waits; a "
			     "control socket and a console are other places",
			     s->params.to.text);
	if (!rc)
		rc = stream_decode(&record, wire_welcome_visit, &welcome, err);
	if (rc)
		return rc;
	if (welcome.magic != WIRE_MAGIC ||
	    memcmp(welcome.session, s->session, sizeof(s->session)) ||
	    welcome.version < WIRE_VERSION_MIN ||
	    welcome.version > WIRE_VERSION_MAX)
		return error_set(err, -EPROTO,
				 "the peer's WELCOME is not an "
				 "answer to our HELLO");
	log_info("migration: hello: the target is %s", welcome.software);
	rc = agree(&hello, &welcome, err);
	if (!rc && s->params.verify)
		rc = digest_create(vm_memory(s->vm),
				   vm_host(s->vm)->kvm->pagemap_fd,
				   vm_host(s->vm)->sandbox, &s->digest, err);
	if (rc)
		return rc;
	return page_sender_create(s->stream, vm_memory(s->vm), &s->sender, err);
}

/* Whose page cache each disk is read and written through. */
static void describe_disks(const struct source *s, struct wire_config *config)
{
	const struct device_backends *backends = vm_host(s->vm)->backends;
	const struct machine *machine = &config->machine;

	if (!backends)
		return;
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		const char *id = machine->devices[i].id;
		struct wire_disk *disk = &config->disks[config->ndisks];

		if (!backends->disk_inode(backends->opaque, id, &disk->dev,
					  &disk->ino))
			continue;
		memcpy(disk->id, id, sizeof(disk->id));
		config->ndisks++;
	}
	if (config->ndisks)
		backends->name_host(backends->opaque, s->session, config->host);
}

static int send_config(struct source *s, struct error *err)
{
	struct wire_config *config = calloc(1, sizeof(*config));
	const struct memory *mem = vm_memory(s->vm);
	struct record record;
	int rc;

	if (!config)
		return error_set(err, -ENOMEM, "CONFIG: out of memory");
	config->machine = *vm_machine(s->vm);
	config->page_size = GUEST_PAGE_SIZE;
	config->nranges = mem->nregions;
	for (unsigned int i = 0; i < mem->nregions; i++) {
		config->ranges[i].gpa = mem->regions[i].gpa;
		config->ranges[i].size = mem->regions[i].size;
	}
	config->kernel_size = vm_image(s->vm)->kernel_size;
	config->initrd_size = vm_image(s->vm)->initrd_size;
	describe_disks(s, config);
	rc = stream_send_struct(s->stream, WIRE_CONFIG, wire_config_visit,
				config, source_patience(s), err);
	free(config);
	if (rc)
		return rc;
	return source_expect(s, WIRE_ACCEPT, &record, source_patience(s), err);
}

/* One file of the boot image, from @offset of the image on. */
static int send_image_file(struct source *s, int fd, uint64_t size,
			   uint64_t offset, uint8_t *piece, struct error *err)
{
	for (uint64_t at = 0; at < size;) {
		size_t len = MIN(size - at, IMAGE_PIECE);
		int rc = pread_full(fd, piece, len, at);

		if (rc)
			return error_set(err, rc, "boot image at %llu: %s",
					 (unsigned long long)at, strerror(-rc));
		rc = stream_send_image(s->stream, offset + at, piece, len,
				       source_patience(s), err);
		if (rc)
			return rc;
		at += len;
	}
	return 0;
}

static int send_image(struct source *s, struct error *err)
{
	const struct vm_image *image = vm_image(s->vm);
	uint8_t *piece = malloc(IMAGE_PIECE);
	int rc;

	if (!piece)
		return error_set(err, -ENOMEM, "boot image: out of memory");
	rc = send_image_file(s, image->kernel_fd, image->kernel_size, 0, piece,
			     err);
	if (!rc)
		rc = send_image_file(s, image->initrd_fd, image->initrd_size,
				     image->kernel_size, piece, err);
	free(piece);
	return rc;
}

static int emit_section(void *opaque, const struct vm_section *section,
			struct error *err)
{
	struct source *s = opaque;
	struct wire_section front = { .version = section->version };

	memcpy(front.type, section->type, sizeof(front.type));
	memcpy(front.id, section->id, sizeof(front.id));
	return stream_send_section(s->stream, &front, section->data,
				   section->len, s->state_deadline_ns, err);
}

int source_send_sections(struct source *s, uint64_t deadline_ns,
			 struct error *err)
{
	s->state_deadline_ns = deadline_ns;
	return vm_state_emit(s->vm_state, emit_section, s, err);
}

int source_send_state_end(struct source *s, uint64_t deadline_ns,
			  struct error *err)
{
	struct wire_state_end end = { .nsections =
					      vm_state_count(s->vm_state) };

	return stream_send_struct(s->stream, WIRE_STATE_END,
				  wire_state_end_visit, &end, deadline_ns, err);
}

int source_drain(struct source *s, struct error *err)
{
	struct record record;
	int rc = stream_send(s->stream, WIRE_PING, NULL, 0, source_patience(s),
			     err);

	if (rc)
		return rc;
	return source_expect(s, WIRE_PONG, &record, source_patience(s), err);
}

static int ping(struct source *s, struct error *err)
{
	uint64_t start = clock_ns();
	int rc = source_drain(s, err);

	if (!rc)
		pacing_note_cost(&s->pacing, PACING_TRIP, clock_ns() - start);
	return rc;
}

int source_measure(struct source *s, struct error *err)
{
	struct vm_state_times times;
	int rc = vm_state_peek(s->vm_state, &times, err);

	if (rc)
		return rc;
	pacing_note_cost(&s->pacing, PACING_STOP, times.stop_ns);
	pacing_note_cost(&s->pacing, PACING_SAVE, times.save_ns);
	for (int i = 0; !rc && i < PINGS; i++)
		rc = ping(s, err);
	return rc;
}

void source_settle(struct source *s)
{
	uint64_t ns;
	bool settled = vm_settle(s->vm, &ns);

	pacing_note_settled(&s->pacing, settled);
	if (settled)
		pacing_note_cost(&s->pacing, PACING_DRAIN, ns);
}

static int send_rehearsal(struct source *s, struct error *err)
{
	int rc;

	stream_gather(s->stream, true);
	rc = stream_send(s->stream, WIRE_REHEARSE, NULL, 0, source_patience(s),
			 err);
	if (!rc)
		rc = source_send_sections(s, source_patience(s), err);
	if (!rc)
		rc = source_send_state_end(s, source_patience(s), err);
	if (!rc)
		rc = stream_gathered(s->stream, source_patience(s), err);
	else
		stream_gather(s->stream, false);
	return rc;
}

static int rehearse(struct source *s, struct error *err)
{
	struct wire_load_times times = { 0 };
	uint64_t before = s->stream->bytes_sent;
	struct record record;
	int rc = source_measure(s, err);

	if (!rc)
		rc = send_rehearsal(s, err);
	if (!rc)
		rc = source_expect(s, WIRE_REHEARSED, &record,
				   source_patience(s), err);
	if (!rc)
		rc = stream_decode(&record, wire_load_times_visit, &times, err);
	if (rc)
		return rc;
	pacing_note_state(&s->pacing, s->stream->bytes_sent - before);
	/* Until a flush has ended nobody relies on what it would take. */
	pacing_note_cost(&s->pacing, PACING_DRAIN, 0);
	source_settle(s);
	pacing_note_cost(&s->pacing, PACING_LOAD,
			 times.decode_ns + times.check_ns + times.load_ns);
	return 0;
}

int source_set_up(struct source *s, struct error *err)
{
	int rc = say_hello(s, err);

	if (rc)
		return rc;
	source_enter_phase(s, PHASE_CONFIG);
	/* What CONFIG describes must be ours, and be seen to be. */
	rc = vm_handover(s->vm, DEVICE_PROVE, s->session, err);
	if (!rc)
		rc = send_config(s, err);
	if (!rc)
		rc = send_image(s, err);
	if (rc)
		return rc;
	source_enter_phase(s, PHASE_REHEARSAL);
	return rehearse(s, err);
}
