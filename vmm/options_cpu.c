// SPDX-License-Identifier: MIT
/*
 * The command line of `godwit cpu`; see options.h.
 */
#include <errno.h>

#include "vmm/options_internal.h"

#define CPU(opts) ((struct cpu_options *)(opts))

static int cpu_guest(void *opts, const char *value, struct error *err)
{
	int rc = machine_name_check(value, err);

	if (!rc)
		CPU(opts)->guest = value;
	return rc;
}

static int cpu_can_run(void *opts, const char *value, struct error *err)
{
	return option_take_path(value, &CPU(opts)->can_run, err);
}

static int cpu_file(void *opts, unsigned int index, const char *text,
		    struct error *err)
{
	if (index == CPU_FILES_MAX)
		return option_refuse(err, "'%.100s': give at most %d files",
				     text, CPU_FILES_MAX);
	return option_take_path(text, &CPU(opts)->files[CPU(opts)->nfiles++],
				err);
}

int options_cpu(char *const argv[], struct cpu_options *ret, struct error *err)
{
	static const struct option_spec specs[] = {
		{ "--guest", .takes_value = true, .parse = cpu_guest },
		{ "--can-run", .takes_value = true, .parse = cpu_can_run },
	};
	static const struct option_walk walk = {
		.specs = specs,
		.nspecs = ARRAY_SIZE(specs),
		.word = cpu_file,
		.any_words = true,
	};
	int rc;

	*ret = (struct cpu_options){ 0 };
	rc = option_walk(&walk, argv, ret, err);
	if (!rc && !!ret->guest + !!ret->can_run + !!ret->nfiles > 1)
		return option_refuse(err, "give --guest, --can-run or files of "
					  "other hosts, one of these");
	return rc;
}
