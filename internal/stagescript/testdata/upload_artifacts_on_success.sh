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
if [ ${#_tranter_line} -gt 25000 ]; then unset "$_tranter_key"; eval "$_tranter_key=\${_tranter_line#*=}"; continue; fi
export "$_tranter_line"
done <"$GITLAB_ENV"
unset _tranter_line _tranter_key _tranter_cr
fi
_info() { printf '\''\033[32;1m%s\033[0;m\n'\'' "$1"; }
_warn() { printf '\''\033[0;33mWARNING: %s\033[0;m\n'\'' "$1"; }
_fail() { printf '\''\033[31;1mERROR: %s\033[0;m\n'\'' "$1"; exit 1; }
_remove() {
[ -e "$1" ] || [ -L "$1" ] || return 0
rm -rf "$1" 2>/dev/null && return 0
chmod -R u+rwX "$1" 2>/dev/null || :
rm -rf "$1" || [ -z "$(ls -A "$1")" ]
}
_unlock() {
[ -d '\''/builds/g/p/.git'\'' ] && [ ! -L '\''/builds/g/p/.git'\'' ] || return 0
rm -f '\''/builds/g/p/.git'\''/index.lock '\''/builds/g/p/.git'\''/shallow.lock '\''/builds/g/p/.git'\''/HEAD.lock '\''/builds/g/p/.git'\''/hooks/post-checkout '\''/builds/g/p/.git'\''/config.lock
[ ! -d '\''/builds/g/p/.git'\''/modules ] || find '\''/builds/g/p/.git'\''/modules -type f \( -name index.lock -o -name shallow.lock -o -name HEAD.lock -o -name post-checkout -o -name config.lock \) -exec rm -f {} +
[ ! -d '\''/builds/g/p/.git'\''/refs ] || find '\''/builds/g/p/.git'\''/refs -type f -name '\''*.lock'\'' -exec rm -f {} +
}
_runner=
for _name in gitlab-runner tranter; do
if [ -z "$_runner" ] && command -v "$_name" >/dev/null 2>&1; then _runner=$_name; fi
done
cd '\''/builds/g/p'\''
if [ -z "$_runner" ]; then _warn '\''Missing gitlab-runner. Uploading artifacts is disabled.'\''; else
_info '\''Uploading artifacts...'\''
CI_JOB_TOKEN='\''job-token'\'' "$_runner" artifacts-uploader '\''--url'\'' '\''https://gitlab.example.com'\'' '\''--id'\'' '\''7'\'' '\''--timeout'\'' '\''1m30s'\'' '\''--response-header-timeout'\'' '\''10m0s'\'' '\''--path'\'' '\''bin/'\'' '\''--exclude'\'' '\''bin/tmp'\'' '\''--name'\'' '\''a-$CI_JOB_NAME'\'' '\''--expire-in'\'' '\''1 week'\'' '\''--artifact-format'\'' '\''zip'\'' '\''--artifact-type'\'' '\''archive'\'' '\''--generate-artifacts-metadata'\'' '\''--runner-id'\'' '\''3'\'' '\''--repo-url'\'' '\''https://gitlab.example.com/g/p'\'' '\''--repo-digest'\'' '\''0123'\'' '\''--job-name'\'' '\''it'\''\'\'''\''s'\'' '\''--executor-name'\'' '\''custom'\'' '\''--runner-name'\'' '\''r'\'' '\''--started-at'\'' '\''2001-09-09T01:46:40Z'\'' '\''--ended-at'\'' '\''2001-09-09T01:46:40Z'\'' '\''--schema-version'\'' '\''v1'\'' '\''--metadata-parameter'\'' '\''A'\''
fi
if [ -z "$_runner" ]; then _warn '\''Missing gitlab-runner. Uploading artifacts is disabled.'\''; else
_info '\''Uploading artifacts...'\''
CI_JOB_TOKEN='\''job-token'\'' "$_runner" artifacts-uploader '\''--url'\'' '\''https://gitlab.example.com'\'' '\''--id'\'' '\''7'\'' '\''--timeout'\'' '\''1m30s'\'' '\''--response-header-timeout'\'' '\''10m0s'\'' '\''--untracked'\'' '\''--artifact-format'\'' '\''gzip'\'' '\''--artifact-type'\'' '\''junit'\''
fi
') < /dev/null
set +o errexit
exit 0
