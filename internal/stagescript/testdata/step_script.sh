#!/usr/bin/env sh
trap 'exit 1' TERM
if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi; set -o errexit; set +o noclobber
(trap 'exit 1' TERM; eval 'mkdir -p '\''/builds/g'\''
(umask 077; mkdir -p '\''/builds/g/p.tmp'\'')
(umask 077; rm -f '\''/builds/g/p.tmp/tranter-file-variables'\''; printf '\''%s'\'' '\''KUBECONFIG
'\'' >'\''/builds/g/p.tmp/tranter-file-variables'\'')
(umask 077; rm -f '\''/builds/g/p.tmp/KUBECONFIG'\''; printf '\''%s'\'' '\''the
content'\'' >'\''/builds/g/p.tmp/KUBECONFIG'\'')
export TEXT='\''it'\''\'\'''\''s $HOME'\''
export TWICE='\''new'\''
export KUBECONFIG='\''/builds/g/p.tmp/KUBECONFIG'\''
export GITLAB_ENV='\''/builds/g/p.tmp/gitlab_runner_env'\''
if [ -f "$GITLAB_ENV" ]; then
_tranter_cr=$(printf '\''\r'\'')
while IFS= read -r _tranter_line || [ -n "$_tranter_line" ]; do
_tranter_line=${_tranter_line%"$_tranter_cr"}
_tranter_key=${_tranter_line%%=*}
case $_tranter_line in
'\'''\'') continue ;;
[!A-Za-z_]*) _tranter_key=- ;;
*=*) ;;
*) _tranter_key=- ;;
esac
case $_tranter_key in
*[!A-Za-z0-9_]*) printf '\''\033[0;33m%s\033[0;m\n'\'' '\''WARNING: ignored a line of $GITLAB_ENV that is not KEY=VALUE'\''; continue ;;
BASHOPTS|BASH_VERSINFO|EUID|HISTCMD|OPTIND|PPID|SHELLOPTS|SRANDOM|UID|_tranter_*) continue ;;
esac
export "$_tranter_line"
done <"$GITLAB_ENV"
unset _tranter_line _tranter_key _tranter_cr
fi
cd '\''/builds/g/p'\''
printf '\''%s\n'\'' '\''[32;1m$ make[0;m'\''
make
printf '\''%s\n'\'' '\''[32;1m$ echo a # collapsed multi-line command[0;m'\''
echo a
echo b
') < /dev/null
set +o errexit
exit 0
