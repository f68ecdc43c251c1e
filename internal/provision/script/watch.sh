# Switches this machine off once its uptime is past what the file deadline says. Somebody puts that off as long as the
# machine is looked after.
state=$1

# off runs a program by its path: a shell that has poweroff built in speaks to an init that may not be there.
off() {
	for dir in /usr/sbin /sbin /usr/bin /bin; do
		if [ -x "$dir/$1" ]; then
			program=$dir/$1
			shift
			"$program" "$@"
			return
		fi
	done
	return 1
}

echo $$ >"$state/watch.pid"
last='' tries=0
while :; do
	deadline=
	if [ -r "$state/deadline" ]; then
		read -r deadline <"$state/deadline"
	fi
	case $deadline in
	never) exit 0 ;;
	'' | *[!0-9]*) ;;
	*) last=$deadline ;;
	esac
	IFS='. ' read -r up rest </proc/uptime
	left=$((${last:-$up} - up))
	if [ -z "$last" ]; then
		left=5
	elif [ "$left" -le 0 ]; then
		logger -t tranter 'nobody looks after this machine any more: it is switched off' 2>/dev/null
		tries=$((tries + 1))
		if [ $tries -gt 12 ]; then # a minute in peace was not enough
			off poweroff -f
		fi
		off poweroff || off shutdown -P now || off shutdown -h now
		left=5
	elif [ "$left" -gt 30 ]; then
		left=30
	fi
	sleep "$left"
done
