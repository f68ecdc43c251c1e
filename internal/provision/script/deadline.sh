# What a machine knows of who looks after it, in $state: its owner, and the uptime at which it ends itself. Uptime does not
# jump, as a clock may. Wants: state M OWNER HOLD LINGER.

say() { printf '@%s %s\n' "$M" "$*" >&3 || exit 1; }

number() {
	case $1 in
	'' | *[!0-9]* | ????????????*) return 1 ;;
	esac
}

uptime_now() {
	IFS='. ' read -r UP rest </proc/uptime || UP=0
}

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# write FILE TEXT: other readers see the old text or the new one.
write() {
	printf '%s\n' "$2" >"$1.$$" && mv -f "$1.$$" "$1"
}

# ours says whether the machine is its owner's already.
ours() {
	[ -r "$state/owner" ] && read -r other until <"$state/owner" && [ "$other" = "$OWNER" ]
}

# hold takes the machine for its owner, unless somebody else has it.
hold() {
	uptime_now
	[ -n "$OWNER" ] || return 0
	tries=0
	until mkdir "$state/lock" 2>/dev/null; do
		if ours; then # nobody takes it away meanwhile
			write "$state/owner" "$OWNER $((UP + HOLD))"
			return
		fi
		tries=$((tries + 1))
		if [ $tries -gt 40 ]; then # whoever has made it is gone
			rmdir "$state/lock" 2>/dev/null
		fi
		nap 0.05
	done
	other='' until=0
	if [ -r "$state/owner" ]; then
		read -r other until <"$state/owner" || :
	fi
	number "$until" || until=0
	if [ -n "$other" ] && [ "$other" != "$OWNER" ] && [ "$UP" -lt "$until" ]; then
		rmdir "$state/lock"
		say "held $other $((until - UP))"
		exit 75
	fi
	write "$state/owner" "$OWNER $((UP + HOLD))"
	failed=$?
	rmdir "$state/lock"
	return $failed
}

watching() {
	read -r pid 2>/dev/null <"$state/watch.pid" && number "$pid" && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "$state/watch"
}

# put_off moves the machine's end forward, and sees to it that somebody watches.
put_off() {
	if [ "$LINGER" -eq 0 ]; then
		[ ! -e "$state/deadline" ] || write "$state/deadline" never
		return
	fi
	uptime_now
	write "$state/deadline" $((UP + LINGER)) || return
	[ -e "$state/watch.pid" ] && watching && return
	write "$state/watch" "$WATCH" || return
	if [ -d /run/systemd/system ] && systemd-run --quiet --description='Tranter: end of this machine' \
		/bin/sh "$state/watch" "$state" </dev/null >/dev/null 2>&1; then
		return 0
	fi
	setsid sh "$state/watch" "$state" </dev/null >/dev/null 2>&1 3>&- 4<&- &
}

# claim takes the machine and puts its end off.
claim() {
	mkdir -p "$state" && chmod 0700 "$state" && hold && put_off
}
