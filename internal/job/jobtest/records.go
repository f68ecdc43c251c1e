package jobtest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/tranter-ci/tranter"
)

// Records keeps records in memory.
type Records struct {
	mu   sync.Mutex
	all  map[string]tranter.JobRecord
	Fail error // of Save
}

// NewRecords returns an empty one.
func NewRecords() *Records { return &Records{all: map[string]tranter.JobRecord{}} }

// Save keeps a copy as the store does.
func (r *Records) Save(_ context.Context, rec tranter.JobRecord) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Fail != nil {
		return r.Fail
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	var kept tranter.JobRecord
	if err := json.Unmarshal(data, &kept); err != nil {
		return err
	}
	r.all[rec.Key] = kept
	return nil
}

// Remove forgets a record.
func (r *Records) Remove(_ context.Context, key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, key)
	return nil
}

// Jobs returns all records.
func (r *Records) Jobs(context.Context) ([]tranter.JobRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]tranter.JobRecord, 0, len(r.all))
	for _, rec := range r.all {
		out = append(out, rec)
	}
	slices.SortFunc(out, func(a, b tranter.JobRecord) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}
