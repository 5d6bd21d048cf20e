/* SPDX-License-Identifier: MIT */
/*
 * Formatted text. A line is formatted first and sent under a lock, so that
 * lines of different CPUs do not mix.
 */
#include <stdarg.h>

#include "runtime.h"

#define LINE_MAX 256

struct sink {
	char *out;
	size_t size;
	size_t used;
};

/* One of "%-less" conversions: what stands between % and the letter. */
struct spec {
	unsigned int width;
	char pad;
	bool wide;
};

static volatile uint32_t print_lock;

static void put(struct sink *sink, char c)
{
	if (sink->used + 1 < sink->size)
		sink->out[sink->used++] = c;
}

static void put_number(struct sink *sink, uint64_t value, unsigned int base,
		       bool negative, const struct spec *spec)
{
	char digits[24];
	unsigned int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	if (negative)
		digits[n++] = '-';
	for (unsigned int i = n; i < spec->width; i++)
		put(sink, spec->pad);
	while (n)
		put(sink, digits[--n]);
}

static void put_string(struct sink *sink, const char *s,
		       const struct spec *spec)
{
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++)
		put(sink, s[i]);
	for (size_t i = n; i < spec->width; i++)
		put(sink, ' ');
}

/* What follows '%': returns the conversion's letter's successor. */
static const char *parse_spec(const char *fmt, struct spec *spec)
{
	*spec = (struct spec){ .pad = ' ' };
	if (*fmt == '-')
		fmt++;
	if (*fmt == '0') {
		spec->pad = '0';
		fmt++;
	}
	while (*fmt >= '0' && *fmt <= '9')
		spec->width = spec->width * 10 + (unsigned int)(*fmt++ - '0');
	if (*fmt == 'l') {
		spec->wide = true;
		fmt++;
	}
	return fmt;
}

static void put_signed(struct sink *sink, int64_t value,
		       const struct spec *spec)
{
	uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;

	put_number(sink, size, 10, value < 0, spec);
}

size_t vformat(char *out, size_t size, const char *fmt, va_list args)
{
	struct sink sink = { .out = out, .size = size };
	struct spec spec;
	uint64_t value;

	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(&sink, *fmt);
			continue;
		}
		fmt = parse_spec(fmt + 1, &spec);
		switch (*fmt) {
		case 'd':
			put_signed(&sink,
				   spec.wide ? va_arg(args, long)
					     : va_arg(args, int),
				   &spec);
			break;
		case 'u':
		case 'x':
			value = spec.wide ? va_arg(args, unsigned long)
					  : va_arg(args, unsigned int);
			put_number(&sink, value, *fmt == 'u' ? 10 : 16, false,
				   &spec);
			break;
		case 's':
			put_string(&sink, va_arg(args, const char *), &spec);
			break;
		case 'c':
			put(&sink, (char)va_arg(args, int));
			break;
		default:
			put(&sink, *fmt);
			break;
		}
	}
	out[sink.used] = '\0';
	return sink.used;
}

static void send(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		serial_putc(text[i]);
}

void print(const char *fmt, ...)
{
	char line[LINE_MAX];
	va_list args;
	size_t n;

	va_start(args, fmt);
	n = vformat(line, sizeof(line), fmt, args);
	va_end(args);
	while (__atomic_exchange_n(&print_lock, 1, __ATOMIC_ACQUIRE))
		cpu_relax();
	send(line, n);
	__atomic_store_n(&print_lock, 0, __ATOMIC_RELEASE);
}

void print_urgent(const char *fmt, ...)
{
	char line[LINE_MAX];
	va_list args;
	size_t n;

	va_start(args, fmt);
	n = vformat(line, sizeof(line), fmt, args);
	va_end(args);
	send(line, n);
}
