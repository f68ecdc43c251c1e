package provision_test

import (
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provision"
)

func TestAMachineWithoutAnAddressIsNotThisHost(t *testing.T) {
	t.Parallel()
	p := provision.New(provision.Settings{}, provision.Options{})
	_, _, err := p.Open(t.Context(), tranter.Machine{Name: "m-1", Login: tranter.Login{User: "root", Port: 22, Identity: "key"}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "machine m-1 has no address") {
		t.Errorf("%v", err)
	}
}
