/* SPDX-License-Identifier: MIT */
/*
 * The walk over a command line, for options*.c only: options by a table, the
 * rest to one function.
 */
#ifndef GODWIT_OPTIONS_INTERNAL_H
#define GODWIT_OPTIONS_INTERNAL_H

#include "vmm/options.h"

typedef int option_fn(void *opts, const char *value, struct error *err);

struct option_spec {
	const char *name; /* with its dashes */
	char short_name;  /* 0 for none */
	bool takes_value;
	bool repeats;
	option_fn *parse;
	const char *absent; /* not in this version: why, else NULL */
};

struct option_walk {
	const struct option_spec *specs;
	size_t nspecs; /* at most 32 */
	/* What the words without dashes are, in order; NULL-terminated. */
	const char *const *words;
	bool any_words;	     /* any number of them instead, or none */
	unsigned int needed; /* the first ones of them; 0: all */
	/* Takes the @index-th of them. */
	int (*word)(void *opts, unsigned int index, const char *text,
		    struct error *err);
};

/**
 * option_walk() - parse @argv into @opts.
 *
 * Return: 0, OPTIONS_HELP, -EINVAL, or what a parser returned with its text
 * prefixed by option and value.
 */
int __must_check option_walk(const struct option_walk *walk, char *const argv[],
			     void *opts, struct error *err);

/**
 * option_next_piece() - the piece up to the next comma that stands alone,
 * doubled ones made single.
 *
 * Return: what follows that comma, NULL at the end; -EINVAL in *@ret_rc when
 * the piece doesn't fit into @buf.
 */
const char *option_next_piece(const char *text, char *buf, size_t size,
			      int *ret_rc, struct error *err);

/**
 * option_disk_run() / option_disk_listen() - the value of --disk:
 * PATH[,WORD]..., ID=PATH[,direct].
 */
int __must_check option_disk_run(const char *text, struct disk_options *ret,
				 struct error *err);
int __must_check option_disk_listen(const char *text, struct disk_options *ret,
				    struct error *err);

/**
 * option_net_run() / option_net_listen() - the value of --net:
 * tap=NAME[,WORD]... or user[,WORD]..., ID=tap=NAME[,queues=N] or
 * ID=user[,hostfwd=FORWARD]...
 */
int __must_check option_net_run(const char *text, struct tap_options *ret,
				struct error *err);
int __must_check option_net_listen(const char *text, struct tap_options *ret,
				   struct error *err);

/**
 * option_user_forward() - the value of hostfwd=, into @net.
 */
int __must_check option_user_forward(const char *value, struct tap_options *net,
				     struct error *err);

/**
 * option_console() - the value of --serial and --console.
 */
int __must_check option_console(const char *value, struct console_options *ret,
				struct error *err);

/**
 * option_share_stdio() - decide which console has standard input and output,
 * when all have been read: the serial port, unless another does.
 */
int __must_check option_share_stdio(struct process_options *process,
				    struct error *err);

/**
 * option_take_path() - a path that isn't empty.
 */
int __must_check option_take_path(const char *value, const char **ret,
				  struct error *err);

/**
 * option_refuse() - -EINVAL with a text.
 */
#define option_refuse(err, ...) error_set((err), -EINVAL, __VA_ARGS__)

#endif
