#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# The library that is installed: one object, whose only global names are those of
# tmem.h.  Its own sources' names are none of the business of who links it.
#
# usage: one-object.sh ARCHIVE OUTPUT COMPILER...
set -eu
archive=$1 output=$2
shift 2
object=$output.o
trap 'rm -f "$object"' EXIT
"$@" -r -nostdlib -o "$object" -Wl,--whole-archive "$archive" -Wl,--no-whole-archive
objcopy --wildcard --keep-global-symbol='tmem_*' "$object"
rm -f "$output"
ar rcsD "$output" "$object"
