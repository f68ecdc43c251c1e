#!/usr/bin/env sh
trap 'exit 1' TERM
if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi; set -o errexit; set +o noclobber
(trap 'exit 1' TERM; eval '_info() { printf '\''\033[32;1m%s\033[0;m\n'\'' "$1"; }
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
if [ -d '\''/builds/g/p'\''/.git ]; then (
cd '\''/builds/g/p'\''
git '\''clean'\'' '\''-ffdx'\'' || :
git '\''reset'\'' '\''--hard'\'' || :
if [ -f .gitmodules ]; then
git submodule foreach --recursive '\''git '\''\'\'''\''clean'\''\'\'''\'' '\''\'\'''\''-ffdx'\''\'\'''\'''\'' || :
git submodule foreach --recursive '\''git '\''\'\'''\''reset'\''\'\'''\'' '\''\'\'''\''--hard'\''\'\'''\'''\'' || :
fi
) || :; fi
rm -f '\''/builds/g/p.tmp/gitlab_runner_env'\'' '\''/builds/g/p.tmp/masking.db'\'' '\''/builds/g/p.tmp/tranter-git.conf'\'' '\''/builds/g/p.tmp/tranter-file-variables'\'' '\''/builds/g/p.tmp/KUBECONFIG'\'' '\''/builds/g/p.tmp/tranter-git-credential-'\''*
rm -rf '\''/builds/g/p.tmp/git-template'\''
_unlock
rmdir '\''/builds/g/p.tmp'\'' 2>/dev/null || :
') < /dev/null
set +o errexit
exit 0
