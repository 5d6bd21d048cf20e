# SPDX-License-Identifier: MIT
# bash completion for godwit: commands, options, and the names of running VMs.

_godwit_names()
{
	godwit list --json 2>/dev/null |
		sed -n 's/^ *"name": "\(.*\)",\{0,1\}$/\1/p'
}

_godwit()
{
	local cur=${COMP_WORDS[COMP_CWORD]}
	local prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]}
	local names="cancel console kill migrate pause poweroff reset resolve resume"
	local words=""

	names="$names set show status"
	if ((COMP_CWORD == 1)); then
		words="run listen list cpu help $names --help --version"
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		return
	fi
	case $prev in
	--disk-root | --lock-dir)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	--kernel | --initrd | --disk)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--console | --serial) words="stdio null unix: file:" ;;
	--cpu) words="host x86-64 x86-64-v2 x86-64-v3 x86-64-v4" ;;
	--can-run)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--guest) words=$(_godwit_names) ;;
	--rng | --balloon) words="on off" ;;
	--net) [[ $command == run ]] && words="tap= user" ;;
	--on-panic) words="exit pause" ;;
	--on-timeout) words="cancel pause" ;;
	--to | --migrate-to | listen) words="tcp: unix: fd:" ;;
	--cmdline | --cpus | --memory | --name | --allow | --max-downtime | \
		--abort-after | --bandwidth | --timeout)
		return
		;;
	esac
	if [[ -z $words ]]; then
		case $command in
		run)
			words="--kernel --initrd --cmdline --cpus --cpu --memory
				--disk --lock-dir --net --rng --balloon
				--serial --console --name
				--debug-exit --on-panic --migrate-to
				--no-sandbox --verbose
				--help"
			;;
		listen)
			words="--name --serial --console --disk --disk-root
				--lock-dir --net --unsafe --hugepages --paused --once --allow
				--insecure --on-panic
				--no-sandbox --verbose --help"
			;;
		migrate)
			words="--to --max-downtime --abort-after --bandwidth
				--timeout --on-timeout --offline --verify
				--dry-run --json --help"
			;;
		set) words="max-downtime bandwidth memory --help" ;;
		resolve) words="--resume --discard --help" ;;
		status | list) words="--json --help" ;;
		cpu)
			compopt -o filenames
			mapfile -t COMPREPLY < <(compgen -f -W \
				"--guest --can-run --help" -- "$cur")
			return
			;;
		help) words="run listen list cpu $names" ;;
		esac
		if ((COMP_CWORD == 2)) && [[ " $names " == *" $command "* ]]; then
			words=$(_godwit_names)
		fi
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	# tcp:, unix:, file: and tap= want more behind them.
	[[ ${COMPREPLY[0]-} == *[:=] ]] && compopt -o nospace
}

complete -F _godwit godwit
