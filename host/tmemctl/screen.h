/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A terminal: a canvas of cells that is drawn whole, keys and signals
 *
 * Where stdout is no terminal a canvas is lines of text, and there are neither
 * keys nor colours.
 */
#ifndef TMEMCTL_SCREEN_H
#define TMEMCTL_SCREEN_H

#include <stdbool.h>

/* A terminal of more is drawn in part. */
#define SCREEN_COLS_MAX 400
#define SCREEN_ROWS_MAX 300
/* Of what is no terminal. */
#define SCREEN_COLS 80

enum attr {
	ATTR_NONE,
	ATTR_HEAD, /* of a table */
	ATTR_HELD, /* of a bar, and so on */
	ATTR_IDLE,
	ATTR_WANTS,
	ATTR_GIVES,
	ATTR_WRONG,
};

enum screen_event {
	SCREEN_NOTHING, /* the time is over */
	SCREEN_QUIT,
	SCREEN_UP,
	SCREEN_DOWN,
	SCREEN_REDRAW, /* it has another size, or was away */
};

struct canvas {
	unsigned int rows, cols;
	char cell[SCREEN_ROWS_MAX][SCREEN_COLS_MAX];
	unsigned char attr[SCREEN_ROWS_MAX][SCREEN_COLS_MAX];
};

/*
 * Take the terminal, and give it back at the end of the process, whatever ends
 * it but SIGKILL.  False: stdout is none that can be drawn on.
 */
bool screen_open(void);
void screen_close(void);

/* Empty, of the terminal's size; @rows: of what is no terminal. */
void canvas_clear(struct canvas *canvas, unsigned int rows);
/* Text from there on; what is outside is cut off. */
void canvas_text(struct canvas *canvas, unsigned int row, unsigned int col,
		 enum attr attr, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
void canvas_draw(const struct canvas *canvas);

/* Wait for a key or a signal, @ms at most. */
enum screen_event screen_wait(int ms);

#endif /* TMEMCTL_SCREEN_H */
