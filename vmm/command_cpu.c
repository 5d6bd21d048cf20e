// SPDX-License-Identifier: MIT
/*
 * `godwit cpu`: what this host's processor offers to guests, what it has in
 * common with other hosts', and whether a guest could run here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/cpu.h"
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"

#define FACTS_MAX (64 * KIB)

static int failed(const struct error *err)
{
	log_error("cpu: %s", err->text);
	return EXIT_FAILURE;
}

/* Facts of this host; of two vCPUs, so that what comes with several is there.
 */
static int host_facts(char **ret, struct error *err)
{
	struct arch_cpu_model *model = calloc(1, sizeof(*model));
	struct kvm kvm;
	int rc;

	*ret = NULL;
	if (!model)
		return error_set(err, -ENOMEM, "out of memory");
	rc = kvm_open(&kvm, err);
	if (rc) {
		free(model);
		return rc;
	}
	rc = arch_cpu_model_host(&kvm, -1, 2, model, err);
	if (!rc)
		*ret = arch_cpu_facts(
			model, kvm_extension(kvm.fd, KVM_CAP_TSC_CONTROL) > 0);
	if (!rc && !*ret)
		rc = error_set(err, -ENOMEM, "out of memory");
	kvm_close(&kvm);
	free(model);
	return rc;
}

static int read_all(int fd, char *buf, const char *path, struct error *err)
{
	size_t len = 0;

	while (len < FACTS_MAX) {
		ssize_t n = read(fd, buf + len, FACTS_MAX - len);

		if (n < 0 && errno != EINTR)
			return error_set(err, -errno, "%s: %s", path,
					 strerror(errno));
		if (!n) {
			buf[len] = '\0';
			return 0;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	return error_set(err, -EFBIG,
			 "%s: longer than %llu bytes; give what `godwit cpu` "
			 "printed",
			 path, FACTS_MAX);
}

/* "-" is standard input. */
static int file_facts(const char *path, char **ret, struct error *err)
{
	bool input = !strcmp(path, "-");
	int fd = input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	*ret = NULL;
	if (fd < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	*ret = malloc(FACTS_MAX + 1);
	rc = *ret ? read_all(fd, *ret, path, err)
		  : error_set(err, -ENOMEM, "out of memory");
	if (!input)
		close(fd);
	return rc;
}

static int print_host(void)
{
	struct error err;
	char *facts;

	if (host_facts(&facts, &err))
		return failed(&err);
	fputs(facts, stdout);
	free(facts);
	return EXIT_SUCCESS;
}

static int print_guest(const char *name)
{
	struct client client;
	struct error err;
	json_t *answer;

	if (client_open(name, &client, &err)) {
		log_error("%s: %s", name, err.text);
		return EXIT_FAILURE;
	}
	answer = client_call(&client, "x-godwit-cpu", NULL, &err);
	client_close(&client);
	if (!answer) {
		log_error("%s: %s", name, err.text);
		return EXIT_FAILURE;
	}
	fputs(json_string_value(json_object_get(answer, "facts")), stdout);
	json_decref(answer);
	return EXIT_SUCCESS;
}

static int print_missing(const char *path)
{
	struct arch_cpu_source guest = { .from = path };
	struct arch_cpu_source here = { .from = "this host" };
	char *theirs = NULL, *ours = NULL, *lines = NULL;
	struct error err;
	int rc = file_facts(path, &theirs, &err);

	if (!rc)
		rc = host_facts(&ours, &err);
	guest.facts = theirs;
	here.facts = ours;
	if (!rc)
		rc = arch_cpu_missing(&guest, &here, &lines, &err);
	if (rc)
		rc = failed(&err);
	else if (lines[0])
		rc = EXIT_FAILURE;
	if (lines && lines[0]) {
		log_error("cpu: %s can't run here; this host lacks:", path);
		fputs(lines, stdout);
	}
	free(theirs);
	free(ours);
	free(lines);
	return rc;
}

static int common_of(const struct cpu_options *options, char **facts,
		     struct arch_cpu_source *hosts, struct error *err)
{
	char *name = NULL, *why = NULL;
	int rc = host_facts(&facts[0], err);

	hosts[0] = (struct arch_cpu_source){ "this host", facts[0] };
	for (unsigned int i = 0; !rc && i < options->nfiles; i++) {
		rc = file_facts(options->files[i], &facts[i + 1], err);
		hosts[i + 1] = (struct arch_cpu_source){ options->files[i],
							 facts[i + 1] };
	}
	if (!rc)
		rc = arch_cpu_common(hosts, options->nfiles + 1, &name, &why,
				     err);
	if (!rc) {
		fputs(why, stderr);
		puts(name);
	}
	free(name);
	free(why);
	return rc;
}

static int print_common(const struct cpu_options *options)
{
	char *facts[CPU_FILES_MAX + 1] = { NULL };
	struct arch_cpu_source hosts[CPU_FILES_MAX + 1];
	struct error err;
	int rc = common_of(options, facts, hosts, &err);

	for (unsigned int i = 0; i <= options->nfiles; i++)
		free(facts[i]);
	return rc ? failed(&err) : EXIT_SUCCESS;
}

int command_cpu(const struct cpu_options *options)
{
	if (options->guest)
		return print_guest(options->guest);
	if (options->can_run)
		return print_missing(options->can_run);
	return options->nfiles ? print_common(options) : print_host();
}
