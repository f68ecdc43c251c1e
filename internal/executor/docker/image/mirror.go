package image

import (
	"strings"

	"github.com/distribution/reference"
)

// mirror is a Mirror that has been understood. A nil one copies nothing.
type mirror struct{ address, remote string }

func mirrorOf(m Mirror) *mirror {
	address := bare(m.Address)
	if address == "" {
		return nil
	}
	if !strings.ContainsAny(address, ".:") && address != "localhost" {
		// Without a dot or a port the engine takes the first part of a name for a user of docker.io.
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(m.Address)), "http://") {
			address += ":80"
		} else {
			address += ":443"
		}
	}
	return &mirror{address: address, remote: registryKey(orDefault(m.Remote, hub))}
}

func orDefault(text, otherwise string) string {
	if text = strings.TrimSpace(text); text != "" {
		return text
	}
	return otherwise
}

// copies reports whether the mirror stands for the registry of n.
func (m *mirror) copies(n name) bool {
	return m != nil && !n.isID() && strings.ToLower(n.registry()) == m.remote
}

// repository is where the mirror has the images of n's repository.
func (m *mirror) repository(n name) string { return m.address + "/" + reference.Path(n.named) }

// parsed is name, to be talked about.
func (m *mirror) parsed(n name) name {
	p, err := parse(m.name(n))
	if err != nil { // the address is none: the engine says so too
		return n
	}
	return p
}

// name is what the engine calls n's copy in the mirror.
func (m *mirror) name(n name) string {
	if d := n.digest(); d != "" {
		return m.repository(n) + "@" + d
	}
	return m.repository(n) + ":" + n.tag()
}
