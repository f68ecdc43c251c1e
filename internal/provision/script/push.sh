# Tells a machine that is prepared that somebody looks after it.

main() {
	exec 3>&1 1>&2 </dev/null
	umask 077
	say start
	claim || {
		say "fail deadline cannot write to $state"
		exit 1
	}
	say 'step deadline'
	say 'done'
	exit 0
}
main
