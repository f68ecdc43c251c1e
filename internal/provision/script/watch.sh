# Switches this machine off once its uptime is past what the file deadline says. Somebody puts that off as long as the
# machine is looked after.
state=$1
echo $$ >"$state/watch.pid"
last=
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
		poweroff || shutdown -P now || shutdown -h now
		sleep 90
		poweroff -f
		left=30
	elif [ "$left" -gt 30 ]; then
		left=30
	fi
	sleep "$left"
done
