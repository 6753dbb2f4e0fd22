// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A terminal
 *
 * Signals are read from a descriptor, so that nothing here is interrupted: the
 * terminal is given back by the same code whatever ends us.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "report.h"
#include "screen.h"

/* The other screen, without a cursor; and back. */
#define ENTER "\033[?1049h\033[?25l\033[2J"
#define LEAVE "\033[0m\033[?25h\033[?1049l"

static struct {
	bool open, colours;
	bool raw;	/* stdin is a terminal, and not as it was */
	bool keys;	/* there may be some */
	char typed[64]; /* keys; from @at to @length they are not taken yet */
	size_t at, length;
	int signal_fd;
	struct termios before;
} screen = { .signal_fd = -1 };

static void put_bytes(const char *bytes, size_t length)
{
	while (length) {
		ssize_t done = write(STDOUT_FILENO, bytes, length);

		if (done < 0 && errno != EINTR && errno != EAGAIN)
			return; /* the terminal is gone: SIGHUP tells */
		if (done > 0) {
			bytes += done;
			length -= done;
		}
	}
}

/* --------------------------------------------------------- begin and end */

static void enter(void)
{
	struct termios raw = screen.before;

	raw.c_lflag &= ~(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (screen.raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	put_bytes(ENTER, strlen(ENTER));
}

static void leave(void)
{
	put_bytes(LEAVE, strlen(LEAVE));
	if (screen.raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &screen.before);
}

void screen_close(void)
{
	if (screen.open)
		leave();
	screen.open = false;
}

static bool can_draw(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb");
}

static bool wants_colours(void)
{
	const char *no = getenv("NO_COLOR");

	return !no || !*no;
}

bool screen_open(void)
{
	static const int signals[] = { SIGINT,	SIGTERM, SIGHUP,
				       SIGQUIT, SIGTSTP, SIGWINCH };
	sigset_t set;

	if (!can_draw())
		return false;
	sigemptyset(&set);
	for (unsigned int i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(&set, signals[i]);
	screen.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (screen.signal_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL))
		fatal("cannot have signals: %s", strerror(errno));
	screen.raw = screen.keys = !tcgetattr(STDIN_FILENO, &screen.before);
	screen.colours = wants_colours();
	screen.open = true;
	atexit(screen_close);
	enter();
	return true;
}

/* As if nobody had blocked it. */
static void die_by(int signal)
{
	sigset_t set;

	screen_close();
	sigemptyset(&set);
	sigaddset(&set, signal);
	raise(signal);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static enum screen_event take_signal(void)
{
	struct signalfd_siginfo info;

	if (read(screen.signal_fd, &info, sizeof(info)) != sizeof(info))
		return SCREEN_NOTHING;
	switch (info.ssi_signo) {
	case SIGINT:
		return SCREEN_QUIT;
	case SIGTSTP:
		leave();
		raise(SIGSTOP);
		enter();
		return SCREEN_REDRAW;
	case SIGWINCH:
		put_bytes("\033[2J", 4);
		return SCREEN_REDRAW;
	default:
		die_by(info.ssi_signo);
		return SCREEN_QUIT;
	}
}

/* ------------------------------------------------------------------- keys */

static void read_keys(void)
{
	ssize_t length = read(STDIN_FILENO, screen.typed, sizeof(screen.typed));

	screen.at = 0;
	screen.length = length > 0 ? length : 0;
	/* Nobody is there any more; signals still end it. */
	if (!length || (length < 0 && errno != EINTR))
		screen.keys = false;
}

/* The next of what was typed; an arrow is three bytes. */
static enum screen_event take_key(void)
{
	const char *at = screen.typed + screen.at;
	size_t left = screen.length - screen.at;
	char key = *at;

	screen.at++;
	if (key == '\033' && left >= 3 && at[1] == '[') {
		screen.at += 2;
		key = at[2] == 'A' ? 'k' : at[2] == 'B' ? 'j' : 0;
	}
	switch (key) {
	case 'q':
	case 'Q':
		return SCREEN_QUIT;
	case 'j':
		return SCREEN_DOWN;
	case 'k':
		return SCREEN_UP;
	default:
		return SCREEN_NOTHING;
	}
}

enum screen_event screen_wait(int ms)
{
	struct pollfd fds[2] = {
		{ .fd = screen.signal_fd, .events = POLLIN },
		{ .fd = screen.keys ? STDIN_FILENO : -1, .events = POLLIN },
	};

	if (screen.at < screen.length)
		return take_key();
	if (poll(fds, 2, ms) <= 0)
		return SCREEN_NOTHING;
	if (fds[0].revents)
		return take_signal();
	read_keys();
	return screen.length ? take_key() : SCREEN_NOTHING;
}

/* ----------------------------------------------------------------- canvas */

void canvas_clear(struct canvas *c, unsigned int rows)
{
	struct winsize size = { 0 };

	c->rows = rows;
	c->cols = SCREEN_COLS;
	if (screen.open && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) &&
	    size.ws_row && size.ws_col) {
		c->rows = size.ws_row;
		c->cols = size.ws_col;
	} else if (screen.open) {
		c->rows = 24;
	}
	if (c->rows > SCREEN_ROWS_MAX)
		c->rows = SCREEN_ROWS_MAX;
	if (c->cols > SCREEN_COLS_MAX)
		c->cols = SCREEN_COLS_MAX;
	memset(c->cell, ' ', sizeof(c->cell));
	memset(c->attr, ATTR_NONE, sizeof(c->attr));
}

void canvas_text(struct canvas *c, unsigned int row, unsigned int col,
		 enum attr attr, const char *format, ...)
{
	char text[SCREEN_COLS_MAX + 1];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (row >= c->rows)
		return;
	for (char *at = text; *at && col < c->cols; at++, col++) {
		c->cell[row][col] = *at < ' ' || *at > '~' ? '?' : *at;
		c->attr[row][col] = attr;
	}
}

static const char *colour(enum attr attr)
{
	static const char *const codes[] = {
		[ATTR_NONE] = "\033[0m",       [ATTR_HEAD] = "\033[0;1m",
		[ATTR_HELD] = "\033[0;32m",    [ATTR_IDLE] = "\033[0;36m",
		[ATTR_WANTS] = "\033[0;33m",   [ATTR_GIVES] = "\033[0;35m",
		[ATTR_WRONG] = "\033[0;1;31m",
	};

	return codes[attr];
}

/* Without the blanks at its end. */
static unsigned int row_length(const struct canvas *c, unsigned int row)
{
	unsigned int length = c->cols;

	while (length && c->cell[row][length - 1] == ' ')
		length--;
	return length;
}

static void draw_row(FILE *out, const struct canvas *c, unsigned int row)
{
	unsigned int length = row_length(c, row), last = ATTR_NONE;

	for (unsigned int i = 0; i < length; i++) {
		if (screen.open && screen.colours && c->attr[row][i] != last) {
			last = c->attr[row][i];
			fputs(colour(last), out);
		}
		fputc(c->cell[row][i], out);
	}
	if (last != ATTR_NONE)
		fputs(colour(ATTR_NONE), out);
}

void canvas_draw(const struct canvas *c)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		fatal("no memory");
	for (unsigned int row = 0; row < c->rows; row++) {
		if (screen.open)
			fprintf(out, "\033[%u;1H", row + 1);
		draw_row(out, c, row);
		/* To the end of the line. */
		fputs(screen.open ? "\033[K" : "\n", out);
	}
	fclose(out);
	if (screen.open)
		put_bytes(text, length);
	else
		fwrite(text, 1, length, stdout);
	free(text);
}
