# SPDX-License-Identifier: BSD-3-Clause
"""Command lines of the project's programs in Python.

    parser = Parser(__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=1)
    parser.add_argument("--json", type=output_file, default=...)

--help prints the program's own text; what is wrong is said in one line.
"""
import argparse
import os
import sys


class Parser(argparse.ArgumentParser):
    """Of a program whose text is @doc."""

    def __init__(self, doc):
        super().__init__(allow_abbrev=False)
        self.doc = doc

    def format_help(self):
        return self.doc

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}: see {sys.argv[0]} --help\n")


def at_least(least):
    """A type of arguments: a whole number from @least on."""
    def number(text):
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}': must be a number, {least} or more")
        return int(text)
    return number


def output_file(path):
    """A type of arguments: a file to be written, hours later perhaps, whose folder is made now."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"'{path}': {error.strerror}") from error
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"'{path}': cannot be written")
    return path
