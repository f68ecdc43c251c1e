package tranter_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func drawSamples(t *rapid.T, most int) []tranter.UsageSample {
	at := time.UnixMilli(rapid.Int64Range(1.7e12, 1.8e12).Draw(t, "start")).UTC()
	var out []tranter.UsageSample
	for range rapid.IntRange(0, most).Draw(t, "samples") {
		at = at.Add(time.Duration(rapid.IntRange(1, 100000).Draw(t, "ms")) * time.Millisecond)
		out = append(out, tranter.UsageSample{
			At: at, CPU: float64(rapid.IntRange(0, 64000).Draw(t, "cpu")) / 1000,
			Memory: rapid.Int64Range(0, 1<<30).Draw(t, "memory") << 10, Disk: rapid.Int64Range(0, 1<<30).Draw(t, "disk") << 10,
		})
	}
	return out
}

// spent is the processor time that samples tell, since the first one.
func spent(s []tranter.UsageSample) (sum float64) {
	for i := 1; i < len(s); i++ {
		sum += s[i].CPU * s[i].At.Sub(s[i-1].At).Seconds()
	}
	return sum
}

func most(s []tranter.UsageSample, of func(tranter.UsageSample) int64) (m int64) {
	for _, one := range s {
		m = max(m, of(one))
	}
	return m
}

func TestJoinedSamplesTellTheSameOfTheWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSamples(t, 130), drawSamples(t, 130)
		before, after := slices.Clone(a), slices.Clone(b)
		got := tranter.JoinSamples(a, b)
		if !slices.Equal(a, before) || !slices.Equal(b, after) {
			t.Fatal("what was joined was changed")
		}
		if len(got) > tranter.MaxSamples {
			t.Fatalf("%d samples", len(got))
		}
		if !slices.IsSortedFunc(got, func(a, b tranter.UsageSample) int { return a.At.Compare(b.At) }) {
			t.Fatal("they are not in order")
		}
		whole := slices.Clone(a)
		for _, s := range b {
			if len(whole) == 0 || s.At.After(whole[len(whole)-1].At) {
				whole = append(whole, s)
			}
		}
		if len(whole) == 0 {
			if len(got) != 0 {
				t.Fatalf("%d samples of none", len(got))
			}
			return
		}
		if got[0] != whole[0] || !got[len(got)-1].At.Equal(whole[len(whole)-1].At) {
			t.Fatal("the ends have changed")
		}
		if want := spent(whole); math.Abs(spent(got)-want) > 1e-6*(1+want) {
			t.Fatalf("%v s of processor time, want %v", spent(got), want)
		}
		for _, of := range []func(tranter.UsageSample) int64{
			func(s tranter.UsageSample) int64 { return s.Memory }, func(s tranter.UsageSample) int64 { return s.Disk },
		} {
			if most(got, of) != most(whole, of) {
				t.Fatalf("the most is %d, want %d", most(got, of), most(whole, of))
			}
		}
	})
}

func TestSamplesAreWrittenCompactlyAndReadAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawSamples(t, tranter.MaxSamples)
		data, err := json.Marshal(tranter.UsageSamples(want))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 2+45*len(want) {
			t.Fatalf("%d bytes for %d samples", len(data), len(want))
		}
		var got tranter.UsageSamples
		if err := json.Unmarshal(data, &got); err != nil || !slices.Equal([]tranter.UsageSample(got), want) {
			t.Fatalf("%v: %v, want %v", err, got, want)
		}
	})
}

func FuzzSamplesOfSomebodyElse(f *testing.F) {
	f.Add([]byte(`[[1,2,3,4],[5,-6,7,8]]`))
	f.Add([]byte(`[[9223372036854775807,9223372036854775807,9223372036854775807,9223372036854775807],[1,1,1,1]]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s tranter.UsageSamples
		if err := json.Unmarshal(data, &s); err != nil {
			return
		}
		if len(s) > tranter.MaxSamples || len(tranter.JoinSamples(s, s)) > tranter.MaxSamples {
			t.Fatalf("%d samples", len(s))
		}
	})
}
