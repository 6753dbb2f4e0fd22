// SPDX-License-Identifier: BSD-3-Clause
/*
 * The broker's configuration: every mistake is one line that says where
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "config.h"

#define MIB (1024ull * 1024)

/* Reads @text as a file; its error, or "". */
static struct config *read_text(const char *text, char *error)
{
	char path[] = "/tmp/test-broker-config-XXXXXX";
	int fd = mkstemp(path);
	struct config *config;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	config = config_read(path, error);
	unlink(path);
	return config;
}

static void all_keys(void **state)
{
	static const char text[] = "# a comment\n"
				   "[host]\n"
				   "limit = 16G\n"
				   "headroom=1G\n"
				   "chunk = 64M\n"
				   "grace-ms = 1\n"
				   "report-ms = 2\n"
				   "meminfo = /a\n"
				   "psi = /b\n"
				   "proc = /c\n"
				   "  cgroup = /d\n"
				   "\n"
				   "[metrics]\n"
				   "listen = /e\n"
				   "group = root\n"
				   "[default]\n"
				   "max = 4G ; a comment\n"
				   "weight = 50\n"
				   "[vm one]\n"
				   "reserved = 1024K\n"
				   "user = 12\n"
				   "[vm two.2]\n"
				   "weight = 10000\n"
				   "user = root\n"
				   "[vm three]\n";
	char error[CONFIG_ERROR_SIZE];
	struct config *c = read_text(text, error);
	const struct config_vm *vm;

	assert_string_equal(error, "");
	assert_non_null(c);
	assert_int_equal(c->limit, 16384 * MIB);
	assert_int_equal(c->headroom, 1024 * MIB);
	assert_int_equal(c->chunk, 64 * MIB);
	assert_int_equal(c->grace_ms, 1);
	assert_int_equal(c->report_ms, 2);
	assert_string_equal(c->meminfo, "/a");
	assert_string_equal(c->psi, "/b");
	assert_string_equal(c->proc, "/c");
	assert_string_equal(c->cgroup, "/d");
	assert_string_equal(c->metrics, "/e");
	assert_string_equal(c->metrics_group, "root");
	vm = config_vm(c, "one");
	assert_int_equal(vm->reserved, MIB);
	assert_int_equal(vm->max, 4096 * MIB);
	assert_int_equal(vm->weight, 50);
	assert_true(vm->has_user);
	assert_int_equal(vm->user, 12);
	vm = config_vm(c, "two.2");
	assert_int_equal(vm->reserved, UINT64_MAX);
	assert_int_equal(vm->weight, 10000);
	assert_int_equal(vm->user, 0);
	assert_string_equal(config_vm(c, "three")->name, "three");
	assert_string_equal(config_vm(c, "other")->name, "");
	free(c);
}

static void metrics_are_off_or_somewhere(void **state)
{
	static const char *const good[] = { "127.0.0.1:1", "[::1]:65535",
					    "0.0.0.0:9759", "/run/x" };
	char error[CONFIG_ERROR_SIZE], text[200];
	struct config *c = read_text("[host]\nlimit=1G\n", error);

	assert_non_null(c);
	assert_string_equal(c->metrics, "");
	free(c);
	for (unsigned int i = 0; i < 4; i++) {
		snprintf(text, sizeof(text),
			 "[host]\nlimit=1G\n[metrics]\nlisten=%s\n", good[i]);
		c = read_text(text, error);
		assert_non_null(c);
		assert_string_equal(c->metrics, good[i]);
		free(c);
	}
}

static void names_without_default_are_none(void **state)
{
	char error[CONFIG_ERROR_SIZE];
	struct config *c =
		read_text("[host]\nlimit=1G\n[vm one]\nweight=1\n", error);

	assert_non_null(c);
	assert_non_null(config_vm(c, "one"));
	assert_null(config_vm(c, "two"));
	free(c);
}

/* A file, the line that is named, and words of the error. */
static const struct {
	const char *text;
	int line;
	const char *words;
} mistakes[] = {
	{ "", 0, "limit= is missing" },
	{ "[default]\n", 0, "limit= is missing" },
	{ "limit=1G\n", 1, "belongs into a section" },
	{ "[host]\nlimit=1G\nlimits=2G\n", 3, "limits: unknown key" },
	{ "[host]\nlimit=1G\nweight=1\n", 3, "weight: unknown key" },
	{ "[host]\nlimit=1G\nlimit=2G\n", 3, "given twice" },
	{ "[host]\nlimit=1G\n[host]\nchunk=1M\n", 3, "is there already" },
	{ "[host]\nlimit=1G\n[hosts]\n", 3, "unknown section" },
	{ "[host]\nlimit=1G\n[vm]\n", 3, "unknown section" },
	{ "[host]\nlimit=1G\n[default]\n[default]\n", 4, "in line 3" },
	{ "[host]\nlimit=1G\n[vm a]\n[vm a]\n", 4, "in line 3" },
	{ "[host]\nlimit=1G\n[vm a b]\n", 3, "a name has" },
	{ "[host]\nlimit=1G\n[vm a\n", 3, "a section is a line" },
	{ "[host]\nlimit=1G\n[vm a] x\n", 3, "a section is a line" },
	{ "[host]\nlimit=1X\n", 2, "must be bytes" },
	{ "[host]\nlimit=-1\n", 2, "must be bytes" },
	{ "[host]\nlimit=1GG\n", 2, "must be bytes" },
	{ "[host]\nlimit=99999999999G\n", 2, "must be bytes" },
	{ "[host]\nlimit=\n", 2, "must be bytes" },
	{ "[host]\nlimit=4K\n", 2, "at least" },
	{ "[host]\nlimit=1G\nchunk=2G\n", 2, "less than one chunk" },
	{ "[host]\nlimit=1G\nchunk=1K\n", 3, "at least" },
	{ "[host]\nlimit=1G\ngrace-ms=soon\n", 3, "milliseconds" },
	{ "[host]\nlimit=1G\nproc=proc\n", 3, "begins with /" },
	{ "[host]\nlimit=1G\nnonsense\n", 3, "KEY=VALUE" },
	{ "[host]\nlimit=1G\nprocess-stores=0\n", 3, "from 1 to 1024" },
	{ "[host]\nlimit=1G\nprocess-stores=1025\n", 3, "from 1 to 1024" },
	{ "[host]\nlimit=1G\n[vm a]\nreserved=0\n", 4, "at least 1" },
	{ "[host]\nlimit=1G\n\f[vm a]\n", 3, "a byte 12" },
	{ "\xef\xbb\xbf[host]\nlimit=1G\n", 1, "byte order mark" },
	{ "[host]\nlimit=1G\n[vm a]\nweight=0\n", 4, "1 to 10000" },
	{ "[host]\nlimit=1G\n[vm a]\nweight=10001\n", 4, "1 to 10000" },
	{ "[host]\nlimit=1G\n[vm a]\nuser=nobody-at-all\n", 4, "no such user" },
	{ "[host]\nlimit=1G\n[vm a]\nmax=0\n", 4, "at least 1" },
	{ "[host]\nlimit=1G\n[vm a]\nreserved=2G\n", 3, "more than [host]" },
	{ "[host]\nlimit=1G\n[vm a]\nreserved=4M\nmax=2M\n", 3,
	  "more than max=2097152" },
	{ "[host]\nlimit=1G\n[default]\nmax=2M\n[vm a]\nreserved=4M\n", 5,
	  "more than max=2097152" },
	{ "[host]\nchunk=1M\nlimit=1G\n[vm a]\nreserved=600M\n[vm b]\n"
	  "reserved=500M\n",
	  3, "are 1153433600 together" },
	{ "[host]\nlimit=1G\n[metrics]\n", 0, "listen= is missing" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=9759\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=:9759\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=localhost:9759\n", 4,
	  "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=127.0.0.1\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=127.0.0.1:\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=127.0.0.1:0\n", 4,
	  "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=127.0.0.1:65536\n", 4,
	  "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=127.0.0.1:+1\n", 4,
	  "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=::1:9759\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=[::1]\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=[::1:9759\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=[]:9759\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=[127.0.0.1]:9759\n", 4,
	  "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=metrics\n", 4, "an address" },
	{ "[host]\nlimit=1G\n[metrics]\nport=1\n", 4, "has listen, group" },
	{ "[metrics]\nlisten=/a\n[metrics]\n", 3, "is there already" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=/a\nlisten=/b\n", 5, "twice" },
	{ "[host]\nlimit=1G\n[metrics]\nlisten=/a\ngroup=no-such\n", 5,
	  "no such group" },
	{ "[host]\nlimit=1G\n[metrics]\ngroup=root\nlisten=[::1]:1\n", 4,
	  "has a path" },
};

static void mistakes_are_told(void **state)
{
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		char error[CONFIG_ERROR_SIZE], line[32];

		if (read_text(mistakes[i].text, error))
			fail_msg("taken: %s", mistakes[i].text);
		snprintf(line, sizeof(line), ":%d: ", mistakes[i].line);
		if (!strstr(error, mistakes[i].words) ||
		    (mistakes[i].line && !strstr(error, line)) ||
		    strchr(error, '\n'))
			fail_msg("%s\nis told as: %s", mistakes[i].text, error);
	}
}

static void long_lines_are_told(void **state)
{
	char text[1000], error[CONFIG_ERROR_SIZE];

	strcpy(text, "[host]\nlimit=1G\nproc=/");
	memset(text + strlen(text), 'a', 300);
	strcpy(text + 322, "\n");
	assert_null(read_text(text, error));
	assert_non_null(strstr(error, ":3: the line is longer"));
	strcpy(text, "[host]\nlimit=1G\n[vm ");
	memset(text + strlen(text), 'a', 60);
	strcpy(text + 80, "]\n");
	assert_null(read_text(text, error));
	assert_non_null(strstr(error, ":3: a section is a line"));
}

static void no_file(void **state)
{
	char error[CONFIG_ERROR_SIZE];

	assert_null(config_read("/nowhere/tmem-broker.conf", error));
	assert_string_equal(error, "/nowhere/tmem-broker.conf: cannot be read: "
				   "No such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_keys),
		cmocka_unit_test(metrics_are_off_or_somewhere),
		cmocka_unit_test(names_without_default_are_none),
		cmocka_unit_test(mistakes_are_told),
		cmocka_unit_test(long_lines_are_told),
		cmocka_unit_test(no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
