# SPDX-License-Identifier: BSD-3-Clause
# What every set-up script shares.  Sourced by bash scripts:
#   . "$(dirname "$0")/lib.sh"
#
# $TOP    the source tree          $CACHE  downloads and builds
# die     one line that says what is wrong and what mends it; exit 1
# stray   the same for an option that there is not
# written the same for a file that cannot be written, before hours of work for it
# step    run a long command: log to a file, a sign of life every 8 s
# locked  run the rest of the script with a lock, so that two do not collide
#
# SCRIPT --help prints the comment at the script's head.
set -euo pipefail

case ${1:-} in
-h | --help)
	sed -n '3,/^[^#]/s/^# \?//p' "$0"
	exit
	;;
esac

say() { echo "==> $*" >&2; }
die() {
	echo "${0##*/}: $*" >&2
	exit 1
}
stray() { die "unknown option '$1': see $0 --help"; }
# written OPTION FILE: FILE.part, of which it is made, is tried; its folder is made.
written() {
	[ ! -d "$2" ] && { mkdir -p "$(dirname "$2")" && : >"$2.part" && rm "$2.part"; } 2>/dev/null ||
		die "$1 '$2': cannot be written: name a file in a folder that can"
}

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Absolute, and told to all that is started: they work in other folders.
CACHE=$(realpath -ms "${VIRTIO_TMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/virtio-tmem}")
export VIRTIO_TMEM_CACHE=$CACHE
LOGS=$CACHE/log
export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
export LC_ALL=C.UTF-8

# A folder with this file is ours: a cache, which scripts/clean may remove, or one
# that we build in (scratch).
MARK=.virtio-tmem-cache

# claim FOLDER: make it a cache.  Fails for one that holds anything else.
claim() {
	mkdir -p "$1" 2>/dev/null ||
		die "cannot write to $1: set VIRTIO_TMEM_CACHE to a folder that can be written"
	# In this order: another script may be marking it.
	if [ -n "$(ls -A "$1")" ] && [ ! -e "$1/$MARK" ] && ! unmarked_cache "$1"; then
		die "$1 holds something else: set VIRTIO_TMEM_CACHE to a new or an empty folder"
	fi
	{ [ -e "$1/$MARK" ] || : >"$1/$MARK"; } 2>/dev/null && mkdir -p "$1/log" 2>/dev/null ||
		die "cannot write to $1: set VIRTIO_TMEM_CACHE to a folder that can be written"
}
# One that is older than the mark: logs, locks, and no source tree.
unmarked_cache() {
	[ -d "$1/log" ] && [ ! -e "$1/.git" ] && [ ! -e "$1/scripts/lib.sh" ] &&
		compgen -G "$1/*.lock" >/dev/null
}
claim "$CACHE"

# why LOG: the line that says why a command failed, if one does: the first of
# apt's (E:), or meson's, a compiler's or our own.
why() {
	grep -m 1 -E '^E: |ERROR: |(fatal )?error: |^no version of |No space left' "$1" |
		sed -E 's/^([^ ]*:)?[0-9]+:[0-9]+: ERROR: //; s/^(E|ERROR): //' | cut -c1-200
}

# step NAME COMMAND...: what it prints goes to $LOGS/NAME.log
step() {
	local name=$1 start=$SECONDS log=$LOGS/$1.log pid status=0 reason
	shift
	say "$name"
	"$@" >"$log" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		for _ in 1 2 3 4 5 6 7 8; do
			sleep 1
			kill -0 "$pid" 2>/dev/null || break
		done
		kill -0 "$pid" 2>/dev/null &&
			printf '    %3d s  %.100s\n' $((SECONDS - start)) \
				"$(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 || true)" >&2
	done
	wait "$pid" || status=$?
	if [ $status -ne 0 ]; then
		reason=$(why "$log") || tail -n 15 "$log" | sed 's/^/    | /' >&2
		die "$name failed (exit $status)${reason:+: $reason}: see $log${STEP_MEND:+; $STEP_MEND}"
	fi
	say "$name: done in $((SECONDS - start)) s"
}

# locked NAME: wait for, then hold, a lock until the script ends.
locked() {
	exec {LOCK_FD}>"$CACHE/$1.lock"
	flock -n "$LOCK_FD" || {
		say "waiting for another run that holds $CACHE/$1.lock"
		flock "$LOCK_FD"
	}
}

# scratch OPTION FOLDER: FOLDER may be emptied: it is in the cache, was new, or was
# empty when we had it first
scratch() {
	case $2 in
	"$CACHE"/*) return ;;
	esac
	[ -e "$2/$MARK" ] || [ -z "$(ls -A "$2" 2>/dev/null)" ] ||
		die "$1 $2: it holds something else: name a new or an empty folder"
	mkdir -p "$2" 2>/dev/null && : >"$2/$MARK" ||
		die "$1 $2: cannot write to it: name a folder that can be written"
}

# need_space MIB WHAT
need_space() {
	local free
	free=$(df -Pm "$CACHE" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$1" ] ||
		die "$2 needs $1 MiB in $CACHE, which has $free MiB free: make room, or set VIRTIO_TMEM_CACHE to a folder on a larger disk"
}

# tree_arg OPTION [FOLDER]: FOLDER, which must be a copy of this tree
tree_arg() {
	[ $# -eq 2 ] || die "$1 needs a folder"
	[ -d "$2/host/qemu" ] || die "$1 $2: that is no copy of this tree (it has no host/qemu)"
	(cd "$2" && pwd)
}

# digest FILE-OR-FOLDER...: one hash over names and contents
digest() {
	find "$@" -type f ! -name '*.o' ! -name '*.pyc' -print0 | sort -z |
		xargs -0 sha256sum | sed "s#$TOP/##" | sha256sum | cut -c1-16
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "this step needs root ($*): run it as root, or install sudo"
	fi
}
