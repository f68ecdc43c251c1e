#!/bin/sh
# Checks one text: "words" that there are enough of them, "upper" that no small letter is left.
set -eu
case "$1" in
words) test "$(wc -w < "$2")" -gt 10 ;;
upper) ! grep -q '[a-z]' "$2" ;;
*) echo "unknown check $1" >&2; exit 2 ;;
esac
echo "$2: $1 ok"
