package link

import (
	"errors"
	"os"
	"strings"
)

const hostsFile = "/etc/hosts"

// addHosts adds lines to a hosts file.
func addHosts(path string, lines []string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	return errors.Join(err, f.Close())
}
