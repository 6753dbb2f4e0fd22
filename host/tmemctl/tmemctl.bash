# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion of tmemctl(1).  Names of stores are those that there are now,
# asked for where the command line says.

_tmemctl_options() { # COMMAND
	case $1 in
	top) echo --interval= --once ;;
	stats) echo --json ;;
	advise) echo --json --seconds= ;;
	limits) echo --max= --weight= ;;
	'') echo --version ;;
	esac
	echo --broker= --qmp= --stats-path= --help
}

_tmemctl() {
	local line=${COMP_LINE:0:COMP_POINT} commands word last command= names=0 words
	local -a sources=()
	commands='top stats advise limits freeze thaw shrink names'
	COMPREPLY=()
	# Not COMP_WORDS: there --broker=PATH is three words, and vm:1, too.
	read -ra words <<<"$line"
	last=
	[[ $line == *[[:space:]] ]] || last=${words[-1]}
	for word in "${words[@]:1}"; do
		[[ $word == "$last" && $word == "${words[-1]}" ]] && continue
		case $word in
		--broker=* | --qmp=* | --stats-path=*) sources+=("$word") ;;
		-*) ;;
		*) if [[ $command ]]; then names=$((names + 1)); else command=$word; fi ;;
		esac
	done
	case $last in
	--broker=* | --qmp=* | --stats-path=*)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "${last#*=}")
		return
		;;
	-*)
		mapfile -t COMPREPLY < <(compgen -W "$(_tmemctl_options "$command")" -- "$last")
		[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
		return
		;;
	esac
	case $command in
	'') mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$last") ;;
	limits | freeze | thaw | shrink) ((names)) && return ;;&
	stats | advise | limits | freeze | thaw | shrink)
		mapfile -t COMPREPLY < <(compgen -W \
			"$("${COMP_WORDS[0]}" names "${sources[@]}" 2>/dev/null)" -- "$last")
		# A colon breaks words: bash replaces what is behind the last one.
		if [[ $last == *:* && $COMP_WORDBREAKS == *:* ]]; then
			COMPREPLY=("${COMPREPLY[@]#"${last%:*}":}")
		fi
		;;
	esac
}

complete -F _tmemctl tmemctl
