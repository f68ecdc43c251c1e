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
export GIT_TERMINAL_PROMPT=0 GCM_INTERACTIVE=Never GIT_CEILING_DIRECTORIES='\''/builds/g'\''
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_PREFIX
command -v git >/dev/null 2>&1 || _fail '\''git is not installed where the job runs: install it, or set GIT_STRATEGY to none'\''
_lfs=
export GIT_LFS_SKIP_SMUDGE=1
if git lfs version >/dev/null 2>&1; then _lfs=yes; fi
_git() { git '\''-c'\'' '\''include.path=/builds/g/p.tmp/tranter-git.conf'\'' '\''-c'\'' '\''http.userAgent=tranter 1.2.3 linux/amd64'\'' "$@"; }
_info '\''$ echo pre # collapsed multi-line command'\''
eval '\''echo pre
echo two'\''
mkdir -p '\''/builds/g'\''
if [ -L '\''/builds/g/p'\''/.git ] || [ -f '\''/builds/g/p'\''/.git ]; then rm -f '\''/builds/g/p'\''/.git; fi
_unlock
rm -rf '\''/builds/g/p'\''/.git/config '\''/builds/g/p'\''/.git/hooks
[ ! -d '\''/builds/g/p'\''/.git/modules ] || find '\''/builds/g/p'\''/.git/modules \( -type f -name config -o -type d -name hooks \) -prune -exec rm -rf {} +
_fresh=
[ -d '\''/builds/g/p'\''/.git ] || _fresh=yes
_info '\''Gitaly correlation ID: c1'\''
mkdir -p '\''/builds/g'\''
(umask 077; mkdir -p '\''/builds/g/p.tmp'\'')
(umask 077; rm -f '\''/builds/g/p.tmp/tranter-git-credential-0'\''; printf '\''%s'\'' '\''username=gitlab-ci-token
password=repo-token
'\'' >'\''/builds/g/p.tmp/tranter-git-credential-0'\'')
(umask 077; rm -f '\''/builds/g/p.tmp/tranter-git.conf'\''; printf '\''%s'\'' '\''[fetch]
	recurseSubmodules = "false"
[credential]
	interactive = "never"
[gc]
	autoDetach = "false"
[maintenance]
	autoDetach = "false"
[http "https://gitlab.example.com"]
	extraHeader = ""
[http "https://gitlab.example.com"]
	extraHeader = "X-Gitaly-Correlation-ID: c1"
[credential "https://gitlab.example.com"]
	helper = ""
[credential "https://gitlab.example.com"]
	helper = "!f() { test \"$1\" = get && cat '\''\'\'''\''/builds/g/p.tmp/tranter-git-credential-0'\''\'\'''\''; }; f"
[url "https://gitlab.example.com/"]
	insteadOf = "git@gitlab.example.com:"
[url "https://gitlab.example.com/"]
	insteadOf = "ssh://git@gitlab.example.com/"
'\'' >'\''/builds/g/p.tmp/tranter-git.conf'\'')
if [ -n "$_lfs" ]; then printf '\''%s'\'' '\''[filter "lfs"]
	clean = "git-lfs clean -- %f"
[filter "lfs"]
	smudge = "git-lfs smudge -- %f"
[filter "lfs"]
	process = "git-lfs filter-process"
[filter "lfs"]
	required = "true"
'\'' >>'\''/builds/g/p.tmp/tranter-git.conf'\''; fi
if [ -n "${CI_SERVER_TLS_CA_FILE:-}" ] && [ -f "$CI_SERVER_TLS_CA_FILE" ]; then git config --file '\''/builds/g/p.tmp/tranter-git.conf'\'' '\''http.https://gitlab.example.com.sslCAInfo'\'' "$CI_SERVER_TLS_CA_FILE"; fi
if [ -n "${CI_SERVER_TLS_CERT_FILE:-}" ] && [ -f "$CI_SERVER_TLS_CERT_FILE" ]; then git config --file '\''/builds/g/p.tmp/tranter-git.conf'\'' '\''http.https://gitlab.example.com.sslCert'\'' "$CI_SERVER_TLS_CERT_FILE"; fi
if [ -n "${CI_SERVER_TLS_KEY_FILE:-}" ] && [ -f "$CI_SERVER_TLS_KEY_FILE" ]; then git config --file '\''/builds/g/p.tmp/tranter-git.conf'\'' '\''http.https://gitlab.example.com.sslKey'\'' "$CI_SERVER_TLS_KEY_FILE"; fi
_remove '\''/builds/g/p.tmp/git-template'\''; mkdir -p '\''/builds/g/p.tmp/git-template'\''
(umask 077; rm -f '\''/builds/g/p.tmp/git-template/config'\''; printf '\''%s'\'' '\''[include]
	path = "/builds/g/p.tmp/tranter-git.conf"
'\'' >'\''/builds/g/p.tmp/git-template/config'\'')
_info '\''Fetching changes with git depth set to 20...'\''
git -c init.defaultBranch=none init --quiet '\''/builds/g/p'\'' --template '\''/builds/g/p.tmp/git-template'\''
cd '\''/builds/g/p'\''
[ -z "$_fresh" ] || _info '\''Created fresh repository.'\''
git config --replace-all remote.origin.url '\''https://gitlab.example.com/g/p.git'\''
git config --replace-all remote.origin.fetch '\''+refs/heads/*:refs/remotes/origin/*'\''
git config --replace-all include.path '\''/builds/g/p.tmp/tranter-git.conf'\'' '\''tranter-git\.conf$'\''
_git fetch origin --no-recurse-submodules '\''+refs/heads/main:refs/remotes/origin/main'\'' '\''--depth'\'' '\''20'\'' '\''--prune'\''
_info '\''Checking out 01234567 as detached HEAD (ref is main)...'\''
_git -c submodule.recurse=false checkout -f -q '\''0123456789abcdef'\''
git clean '\''-ffdx'\''
if [ -n "$_lfs" ]; then _git lfs pull; fi
_info '\''Updating/initializing submodules recursively with git depth set to 5...'\''
if [ -f .gitmodules ]; then
_sync() { git submodule sync --recursive -- '\''a b'\''; }
_each() { _git submodule foreach --recursive "$1"; }
_clean() { _each '\''git clean '\''\'\'''\''-ffdx'\''\'\'''\'''\''; }
_update() { _git submodule update --init --recursive '\''--depth'\'' '\''5'\'' '\''--remote'\'' -- '\''a b'\''; }
if git submodule init && _sync && _clean && _each '\''git reset --hard'\''; then :; else
[ -z "$_fresh" ] || exit 1
_warn "submodules that an earlier job has left can'\''t be used; starting over"
_remove .git/modules
git submodule deinit --force --all
git submodule init
_sync
fi
if _update; then
_info '\''Updated submodules'\''
else
_warn '\''Updating submodules failed. Retrying...'\''
_each '\''git fetch origin '\''\'\'''\''+refs/heads/*:refs/remotes/origin/*'\''\'\'''\'''\''
_sync
_update
_each '\''git reset --hard'\''
fi
_sync
_clean
git submodule --quiet foreach --recursive '\''git config --replace-all include.path '\''\'\'''\''/builds/g/p.tmp/tranter-git.conf'\''\'\'''\'' '\''\'\'''\''tranter-git\.conf$'\''\'\'''\'''\''
if [ -n "$_lfs" ]; then _each '\''git lfs pull'\''; fi
fi
_info '\''$ echo post'\''
eval '\''echo post'\''
') < /dev/null
set +o errexit
exit 0
