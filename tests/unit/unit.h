/* SPDX-License-Identifier: MIT */
/*
 * What every unit test program shares: one suite a program, and main().
 *
 *	START_TEST(codec_refuses_a_truncated_field) { ... } END_TEST
 *	UNIT_SUITE("codec", codec_refuses_a_truncated_field, ...)
 *
 * Each test runs in a process of its own unless CK_FORK=no.
 */
#ifndef GODWIT_TESTS_UNIT_H
#define GODWIT_TESTS_UNIT_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/error.h"
#include "vmm/util.h"

/* What an error says is part of what it is for. */
#define ck_says(err, word)                                                   \
	ck_assert_msg(strstr((err).text, (word)), "'%s' says nothing of %s", \
		      (err).text, (word))

/* A call that fills ck_err when it fails. */
#define ck_ok(call)                                       \
	do {                                              \
		struct error ck_err = { "" };             \
		int ck_rc = (call);                       \
                                                          \
		ck_assert_msg(!ck_rc, "%s", ck_err.text); \
	} while (0)

#define UNIT_SUITE(suite_name, ...)                            \
	int main(void)                                         \
	{                                                      \
		const TTest *const tests[] = { __VA_ARGS__ };  \
		Suite *suite = suite_create(suite_name);       \
		TCase *tcase = tcase_create(suite_name);       \
		SRunner *runner;                               \
		int failed;                                    \
                                                               \
		tcase_set_timeout(tcase, 600);                 \
		for (size_t i = 0; i < ARRAY_SIZE(tests); i++) \
			tcase_add_test(tcase, tests[i]);       \
		suite_add_tcase(suite, tcase);                 \
		runner = srunner_create(suite);                \
		srunner_run_all(runner, CK_ENV);               \
		failed = srunner_ntests_failed(runner);        \
		srunner_free(runner);                          \
		return failed ? EXIT_FAILURE : EXIT_SUCCESS;   \
	}

#endif
