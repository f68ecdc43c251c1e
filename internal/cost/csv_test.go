package cost

import "testing"

func TestNothingOfACellIsWorkedOut(t *testing.T) {
	for text, want := range map[string]string{"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@sum": "'@sum", "\t=1": "'\t=1", "a=1": "a=1", "": "", "(none)": "(none)"} {
		if got := cell(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
