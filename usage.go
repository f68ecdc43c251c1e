package tranter

import (
	"encoding/json"
	"errors"
	"math"
	"time"
)

// UsageSamples are samples in the order of time, written compactly: an array of arrays of the time in Unix milliseconds, the thousandths
// of processors, the memory in KiB and the disk in KiB, each as the difference to that of the sample before.
type UsageSamples []UsageSample

// MarshalJSON implements json.Marshaler.
func (s UsageSamples) MarshalJSON() ([]byte, error) {
	rows := make([][4]int64, len(s))
	var before [4]int64
	for i, one := range s {
		now := [4]int64{one.At.UnixMilli(), int64(math.Round(one.CPU * 1000)), one.Memory >> 10, one.Disk >> 10}
		for k := range now {
			rows[i][k] = now[k] - before[k]
		}
		before = now
	}
	return json.Marshal(rows)
}

// UnmarshalJSON implements json.Unmarshaler. More than MaxSamples are an error: nobody writes them.
func (s *UsageSamples) UnmarshalJSON(data []byte) error {
	var rows [][4]int64
	if len(data) > MaxSamples*100 {
		return errManySamples
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return err
	}
	if len(rows) > MaxSamples {
		return errManySamples
	}
	*s = make(UsageSamples, len(rows))
	var now [4]int64
	for i, row := range rows {
		for k := range now {
			now[k] += row[k]
		}
		(*s)[i] = UsageSample{At: time.UnixMilli(now[0]).UTC(), CPU: float64(now[1]) / 1000, Memory: now[2] << 10, Disk: now[3] << 10}
	}
	return nil
}

var errManySamples = errors.New("more samples of what a job has used than there may be")

// JoinSamples returns the samples of a with those of b after them, as far as they are later, and thinned to at most MaxSamples. Neither
// is changed.
func JoinSamples(a, b []UsageSample) []UsageSample {
	out := make([]UsageSample, 0, len(a)+len(b))
	for _, part := range [][]UsageSample{a, b} {
		for _, s := range part {
			if len(out) == 0 || s.At.After(out[len(out)-1].At) {
				out = append(out, s)
			}
		}
	}
	return ThinSamples(out, MaxSamples)
}

// ThinSamples returns at most so many samples as there may be, by joining neighbours: what the processors did on average, and the most
// of memory and disk. The first sample stays as it is, so that the time that the second one is about is known. It may change s.
func ThinSamples(s []UsageSample, most int) []UsageSample {
	most = max(most, 2)
	for len(s) > most {
		kept := s[:1]
		for i := 1; i < len(s); i += 2 {
			one := s[i]
			if i+1 < len(s) {
				one = joined(kept[len(kept)-1].At, s[i], s[i+1])
			}
			kept = append(kept, one)
		}
		s = kept
	}
	return s
}

// joined is one sample for two that follow each other, of which the first is about the time since start.
func joined(start time.Time, a, b UsageSample) UsageSample {
	out := UsageSample{At: b.At, CPU: b.CPU, Memory: max(a.Memory, b.Memory), Disk: max(a.Disk, b.Disk)}
	if whole := b.At.Sub(start).Seconds(); whole > 0 {
		out.CPU = (a.CPU*a.At.Sub(start).Seconds() + b.CPU*b.At.Sub(a.At).Seconds()) / whole
	}
	return out
}
