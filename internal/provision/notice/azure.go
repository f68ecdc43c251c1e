package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// azure is Microsoft Azure's server.
type azure struct {
	*client
	name  string // by which events name the machine
	awake bool   // the server has answered for events
}

const (
	azureName   = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
	azureEvents = "/metadata/scheduledevents?api-version=2020-07-01"

	azureEvery = 5 * time.Second // a spot machine has half a minute
	// azureFirst is how long the first question may take: it switches the events on.
	azureFirst = 150 * time.Second
)

func (z *azure) every() time.Duration { return azureEvery }

func (z *azure) here(ctx context.Context) (bool, error) {
	a, err := z.client.ask(ctx, question{path: azureName, header: "Metadata", value: "true"})
	if err != nil || a.status != http.StatusOK || !word(a.body) {
		return false, err
	}
	z.name = string(a.body)
	return true, nil
}

func (z *azure) ask(ctx context.Context) (Notice, bool, error) {
	q := question{path: azureEvents, header: "Metadata", value: "true"}
	if !z.awake {
		q.limit = azureFirst
	}
	a, err := z.good(ctx, q)
	if err != nil {
		return Notice{}, false, err
	}
	z.awake = true
	return parseAzure(a.body, z.name)
}

// parseAzure finds the first event that ends the machine, or makes it start again, among those of all machines that are
// managed together with it.
func parseAzure(body []byte, name string) (Notice, bool, error) {
	var document struct {
		Events []struct {
			EventType, NotBefore string
			Resources            []string
		}
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return Notice{}, false, fmt.Errorf("understand the cloud's planned events: %w", err)
	}
	var first Notice
	found := false
	for _, e := range document.Events {
		if !slices.ContainsFunc(e.Resources, func(r string) bool { return strings.EqualFold(r, name) }) {
			continue
		}
		switch e.EventType {
		case "Preempt", "Terminate", "Redeploy", "Reboot":
			at, _ := time.Parse(time.RFC1123, e.NotBefore) // empty once it has begun
			if !found || at.Before(first.At) {
				first, found = Notice{Reason: "the cloud has planned an event for the machine (" + e.EventType + ")", At: at}, true
			}
		}
	}
	return first, found, nil
}
