// SPDX-License-Identifier: MIT
/*
 * Filters of tables; see rules.h.
 */
#include <errno.h>
#include <unistd.h>

#include "vmm/rules.h"

static int add_rule(scmp_filter_ctx ctx, const struct rule *rule)
{
	if (!rule->mask)
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, rule->call, 0);
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, rule->call, 1,
				SCMP_CMP(rule->arg, SCMP_CMP_MASKED_EQ,
					 rule->mask, rule->value));
}

int rules_compile(const struct rule *rules, size_t n, unsigned int kinds,
		  scmp_filter_ctx *ret)
{
	struct rule own_threads = RULE_INT(tgkill, kinds, 0, getpid());
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc;

	if (!ctx)
		return -ENOMEM;
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH,
			      SCMP_ACT_KILL_PROCESS);
	if (!rc)
		rc = add_rule(ctx, &own_threads);
	for (size_t i = 0; i < n && !rc; i++) {
		if (rules[i].kinds & kinds)
			rc = add_rule(ctx, &rules[i]);
	}
	if (rc) {
		seccomp_release(ctx);
		return rc;
	}
	*ret = ctx;
	return 0;
}
