package config

import (
	"strings"
	"testing"
)

func TestAdvertisedAddressHasNoScheme(t *testing.T) {
	for address, wrong := range map[string]bool{"runner.example.com:8093": false, "https://runner.example.com:8093": true, "": false} {
		_, problems := Parse(Source{Data: []byte("[session_server]\nlisten_address = \":8093\"\nadvertise_address = \"" + address + "\"\n")})
		found := false
		for _, p := range problems {
			found = found || p.Severity == Error && strings.Contains(p.String(), "advertise_address")
		}
		if found != wrong {
			t.Errorf("%q: %v", address, problems)
		}
	}
}
