# Makes a machine ready for jobs. It is read from standard input, after the variables that it wants: state M NAME LOGIN OWNER
# HOLD LINGER SOCKET INSTALL INSTALL_URL TLS PORT CA CERT KEY DAEMON DAEMON_HOSTS ENVIRONMENT EXPORTS PROXIES BEFORE AFTER
# READY GPU. Lines with the marker on standard output are for the manager; all else goes to standard error.

nl='
'
STEP=start

die() {
	say "fail $STEP $*"
	exit 1
}

# refuse is die for what no other machine would do better.
refuse() {
	say "refuse $STEP $*"
	exit 1
}

ask() {
	say "ask $*"
	IFS= read -r ANSWER <&4 || exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# run NAME TEXT runs a script that the manager has sent, by what its first line names.
run() {
	printf '%s\n' "$2" >"$state/$1" || die "cannot write $state/$1"
	first=${2%%"$nl"*}
	case $first in
	'#!'*) with=${first#??} ;;
	*) with=sh ;;
	esac
	(
		set -f
		cd / || exit
		# shellcheck disable=SC2086 # a program and its argument
		exec $with "$state/$1" 3>&- 4<&-
	)
	status=$?
	rm -f "$state/$1"
	return $status
}

hook() {
	STEP=$1
	[ -n "$2" ] || return 0
	run "$1" "$2" || die "the script ended with status $?"
	say "step $1"
}

detect() {
	os=unknown
	if [ -r /etc/os-release ]; then
		# shellcheck disable=SC1091 # a file of the machine
		os=$(. /etc/os-release >/dev/null 2>&1 && echo "${ID:-unknown} ${VERSION_ID:-}")
	fi
	if [ -d /run/systemd/system ] && have systemctl; then
		INIT=systemd
	elif have rc-service; then
		INIT=openrc
	elif have service; then
		INIT=service
	else
		INIT=none
	fi
	say "fact os $os"
	say "fact arch $(uname -m)"
	say "fact init $INIT"
}

# Installing.

have_engine() {
	if [ -S "$SOCKET" ] || have dockerd; then
		return 0
	fi
	have podman && have docker
}

# patiently COMMAND... tries again as long as another program has the package database.
patiently() {
	uptime_now
	limit=$((UP + 300))
	while :; do
		"$@" >"$state/out" 2>&1 3>&- 4<&-
		status=$?
		cat "$state/out" >&2
		[ $status -ne 0 ] || break
		grep -Eiq 'could not get lock|unable to (acquire|lock)|is another process using|is locked by|management is locked' "$state/out" || break
		uptime_now
		[ "$UP" -lt "$limit" ] || break
		say tick
		nap 2
	done
	rm -f "$state/out"
	return $status
}

from_apt() {
	set -- docker.io ca-certificates
	patiently apt-get -q update || echo 'apt-get update failed; the old lists may do' >&2
	if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] && ! have apparmor_parser; then
		set -- "$@" apparmor
	fi
	if apt-cache show docker-cli >/dev/null 2>&1; then # apart from docker.io since Debian 13
		set -- "$@" docker-cli
	fi
	patiently apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold --no-install-recommends install "$@"
}

from_rpm() {
	for package in docker-ce moby-engine docker podman-docker; do
		if patiently "$1" -y install $package; then
			return 0
		fi
	done
	return 1
}

from_url() {
	if have curl; then
		curl -fsSL --retry 3 --connect-timeout 20 --max-time 300 -o "$state/install" "$1" || return
	elif have wget; then
		wget -q -T 60 -O "$state/install" "$1" || return
	else
		die "neither curl nor wget is there to fetch $1"
	fi
	patiently sh "$state/install"
	status=$?
	rm -f "$state/install"
	return $status
}

install_packages() {
	if [ -n "$INSTALL_URL" ]; then
		from_url "$INSTALL_URL"
	elif have apt-get; then
		from_apt
	elif have dnf; then
		from_rpm dnf
	elif have yum; then
		from_rpm yum
	elif have zypper; then
		patiently zypper --non-interactive install docker
	elif have apk; then
		patiently apk add docker
	elif have pacman; then
		patiently pacman -Sy --noconfirm --needed docker
	else
		refuse "there is no container engine, and no package manager that is known: use an image with an engine, or set engine.install_url"
	fi
}

install_engine() {
	STEP=install
	have_engine && return
	[ "$INSTALL" = 1 ] || refuse 'there is no container engine, and engine.install is false'
	install_packages || die "the engine could not be installed (status $?)"
	hash -r
	have_engine || die 'packages were installed, and there is no engine still'
	case $INIT in
	systemd) systemctl enable docker.service >/dev/null 2>&1 ;;
	openrc) rc-update add docker default >/dev/null 2>&1 ;;
	esac
	say 'step install'
}

# Configuring.

# put FILE MODE TEXT writes a file if it is not so already.
put() {
	if [ -f "$1" ] && [ "$(cat "$1" && echo .)" = "$3$nl." ]; then
		chmod "$2" "$1"
		return
	fi
	if ! mkdir -p "${1%/*}" || ! (umask 077 && printf '%s\n' "$3" >"$1.tranter"); then
		rm -f "$1.tranter"
		die "cannot write $1: is the disk full?"
	fi
	chmod "$2" "$1.tranter" && mv -f "$1.tranter" "$1" || die "cannot write $1"
	CHANGED=1
}

put_certificates() {
	STEP=certificates
	put /etc/docker/ca.pem 0600 "$CA"
	put /etc/docker/server-key.pem 0600 "$KEY"
	put /etc/docker/server.pem 0600 "$CERT"
}

# put_daemon sets what is wanted in daemon.json and leaves the rest of it. The manager puts the two together.
put_daemon() {
	wanted=$DAEMON
	[ "$INIT" = systemd ] || wanted=$DAEMON_HOSTS
	[ -n "$wanted" ] || return 0
	file=/etc/docker/daemon.json
	if [ ! -s $file ]; then
		put $file 0644 "$wanted"
		return
	fi
	[ "$(wc -c <$file)" -le 65536 ] || die "$file has more than 64 KiB"
	ask "daemon $INIT $(base64 <$file | tr -d '\n')"
	case $ANSWER in
	same) ;;
	'{'*) put $file 0644 "$ANSWER" ;;
	*) die "$file cannot be read: $ANSWER" ;;
	esac
}

# listening prints the command line of the engine with the port added. What it has of TLS, as from an older set-up, goes.
listening() {
	command=$(systemctl show -p ExecStart docker.service | sed -n 's/^ExecStart={.*argv\[\]=\(.*\) ; ignore_errors=.*/\1/p')
	[ -n "$command" ] || command="$(command -v dockerd) -H fd://"
	set -f
	line='' host=''
	for word in $command; do
		case $host$word in
		-H | --host | --tlscacert | --tlscert | --tlskey) host=$word ;;
		--tlscacert* | --tlscert* | --tlskey*) host='' ;;
		-Htcp://* | --hosttcp://*) host='' ;;
		-H?* | --host?*)
			case $word in
			-H=tcp://* | --host=tcp://* | -Htcp://*) ;;
			*) line="$line $host $word" ;;
			esac
			host=''
			;;
		--tls*) ;;
		*) line="$line $word" ;;
		esac
	done
	set +f
	echo "${line# } -H tcp://0.0.0.0:$PORT --tlsverify --tlscacert=/etc/docker/ca.pem --tlscert=/etc/docker/server.pem --tlskey=/etc/docker/server-key.pem"
}

put_unit() {
	[ "$TLS" = 1 ] || [ -n "$ENVIRONMENT" ] || return 0
	unit='[Service]'
	if [ -n "$ENVIRONMENT" ]; then
		unit="$unit$nl$ENVIRONMENT"
	fi
	if [ "$TLS" = 1 ]; then
		unit="$unit${nl}ExecStart=${nl}ExecStart=$(listening)"
	fi
	put /etc/systemd/system/docker.service.d/50-tranter.conf 0600 "$unit"
}

# put_defaults gives the engine its environment where an init script reads it from a file.
put_defaults() {
	[ -n "$EXPORTS" ] || return 0
	file=/etc/default/docker
	[ "$INIT" != openrc ] || file=/etc/conf.d/docker
	old=
	if [ -f $file ]; then
		old=$(sed '/^# Tranter:/,/^# Tranter ends/d' $file)
	fi
	put $file 0600 "$old${old:+$nl}# Tranter: the engine's environment$nl$EXPORTS$nl# Tranter ends"
}

# engines prints the processes of the engine; those in containers are none of ours.
engines() {
	for process in /proc/[0-9]*; do
		read -r name 2>/dev/null <"$process/comm" && [ "$name" = dockerd ] || continue
		[ "$(readlink "$process/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] || echo "${process#/proc/}"
	done
}

# engine_runs says so also of one that is only starting.
engine_runs() {
	case $INIT in
	systemd) systemctl is-active -q docker.service ;;
	*) [ -n "$(engines)" ] ;;
	esac
}

stop_engine() {
	signal=TERM
	if [ -z "$(ls -A /var/lib/docker/containers 2>/dev/null)" ]; then
		signal=KILL # it has nothing to lose, and an end in peace takes a second
		# shellcheck disable=SC2046 # several
		kill -KILL $(engines)
	fi
	case $INIT in
	openrc) rc-service docker stop ;;
	service) service docker stop ;;
	esac >/dev/null 2>&1 3>&- 4<&-
	uptime_now
	limit=$((UP + 30))
	while pids=$(engines) && [ -n "$pids" ]; do
		# shellcheck disable=SC2086 # several
		kill -$signal $pids
		nap 0.1
		uptime_now
		[ "$UP" -lt "$limit" ] || signal=KILL
	done
	rm -f "$SOCKET"
}

start_engine() {
	case $INIT in
	systemd) systemctl daemon-reload && systemctl restart docker.service ;;
	openrc) rc-service docker start ;;
	service) service docker start ;;
	*) nap 1 && { engine_runs || setsid dockerd >/dev/null 2>&1 & } ;;
	esac 3>&- 4<&- || {
		STEP=engine
		diagnose
		die 'the engine does not start'
	}
}

diagnose() {
	if have journalctl && [ "$INIT" = systemd ]; then
		journalctl -q --no-pager -o cat -n 20 -u docker.service
	elif [ -r /var/log/docker.log ]; then
		tail -n 20 /var/log/docker.log
	fi >&2
}

configure_podman() {
	STEP=configure
	[ "$TLS" = 0 ] || refuse 'the engine is Podman, which has no TLS: set engine.access to "ssh"'
	[ -z "$DAEMON$ENVIRONMENT" ] || echo 'the engine is Podman: mirrors, registries and options of the engine are not set' >&2
	[ "$INIT" != systemd ] || systemctl start podman.socket
	[ -e "$SOCKET" ] || ln -sf /run/podman/podman.sock "$SOCKET"
}

configure() {
	if ! have dockerd; then
		have podman && configure_podman
		return 0
	fi
	CHANGED=
	[ "$TLS" = 0 ] || put_certificates
	STEP=configure
	put_daemon
	if [ "$INIT" = systemd ]; then
		put_unit
	else
		put_defaults
	fi
	if [ "$INIT" != systemd ] && [ -n "$CHANGED" ] && engine_runs; then
		stop_engine
		start_engine
	elif [ -n "$CHANGED" ] || ! engine_runs; then
		start_engine
	fi
	say 'step configure'
}

# admit lets the login use the socket. Its next login is the first that may.
admit() {
	[ "$LOGIN" != root ] && [ "$TLS" = 0 ] || return 0
	group=docker
	grep -q '^docker:' /etc/group || group=$(stat -L -c %G "$SOCKET")
	case " $(id -nG "$LOGIN") " in
	*" $group "*) return ;;
	esac
	if [ "$group" = root ]; then
		refuse "the user $LOGIN may not use $SOCKET, which belongs to root alone: log in as root"
	fi
	usermod -aG "$group" "$LOGIN" 2>/dev/null || addgroup "$LOGIN" "$group" || die "cannot add $LOGIN to the group $group"
	say 'fact group new'
}

wait_for_engine() {
	STEP=engine
	uptime_now
	limit=$((UP + 90))
	until [ -S "$SOCKET" ]; do
		uptime_now
		if [ "$UP" -ge "$limit" ]; then
			diagnose
			die "there is no socket $SOCKET"
		fi
		say tick
		nap 0.05
	done
	admit
	ask engine
	[ "$ANSWER" = ok ] || {
		diagnose
		die "the engine does not answer: $ANSWER"
	}
	say 'step engine'
}

wait_until_ready() {
	STEP=ready
	[ -n "$READY" ] || return 0
	pause=0.2
	until run ready "$READY"; do
		say "fact ready $?"
		nap $pause
		pause=1
	done
	say 'step ready'
}

main() {
	exec 3>&1 1>&2 4<&0 </dev/null
	umask 077
	say start
	STEP=deadline
	claim || die "cannot write to $state"
	say 'step deadline'
	umask 022
	if [ -n "$PROXIES" ]; then
		eval "$PROXIES"
	fi
	TRANTER_MACHINE=$NAME DEBIAN_FRONTEND=noninteractive
	export TRANTER_MACHINE DEBIAN_FRONTEND
	detect
	hook before "$BEFORE"
	install_engine
	configure
	wait_for_engine
	hook after "$AFTER"
	wait_until_ready
	STEP=gpu
	if [ -n "$GPU" ]; then
		run gpu "$GPU" || die "the check of the devices ended with status $?"
		say 'step gpu'
	fi
	say 'done'
	exit 0
}
main
