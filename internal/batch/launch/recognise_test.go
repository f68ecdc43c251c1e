package launch

import (
	"strings"
	"testing"
)

func TestTheLastJobThatACommandNamesIsIts(t *testing.T) {
	for name, c := range map[string]struct{ executable, output, command, id string }{
		"sbatch":                      {"/opt/slurm/bin/sbatch", "Submitted batch job 12\n", "/opt/slurm/bin/sbatch", "12"},
		"sbatch of several clusters":  {"sbatch", "Submitted batch job 12 on cluster c1\n", "sbatch", "12"},
		"sbatch --parsable":           {"sbatch", "12\n", "sbatch", "12"},
		"sbatch --parsable, cluster":  {"sbatch", "sbatch: hello\n12;c1", "sbatch", "12"},
		"a wrapper of sbatch":         {"./submit.sh", "Submitted batch job 1\nSubmitted batch job 2\nok\n", "sbatch", "2"},
		"a number of a wrapper":       {"./submit.sh", "12\n", "", ""},
		"no job":                      {"sbatch", "sbatch: error: Batch job submission failed\n", "", ""},
		"nothing":                     {"sbatch", "", "", ""},
		"qsub":                        {"/usr/bin/qsub", "1234.head.example.org\n", "/usr/bin/qsub", "1234.head.example.org"},
		"qsub for an array":           {"qsub", "1234[].head\n", "qsub", "1234[].head"},
		"qsub on Slurm":               {"qsub", "7\n", "qsub", "7"},
		"qsub in a wrapper":           {"sh", "1234.head\n", "qsub", "1234.head"},
		"a version is not one":        {"sh", "1.2.3\n", "", ""},
		"bsub":                        {"bsub", "Job <99> is submitted to default queue <normal>.\n", "bsub", "99"},
		"bsub in a wrapper":           {"sh", "Job <99> is submitted to queue <x>.\n", "bsub", "99"},
		"flux":                        {"/usr/bin/flux", "ƒ2bCdEF9\n", "/usr/bin/flux", "ƒ2bCdEF9"},
		"flux without ƒ":              {"flux", "f2bCdEF9\n", "flux", "f2bCdEF9"},
		"flux in a wrapper":           {"sh", "ƒ2bCdEF9\r\n", "flux", "ƒ2bCdEF9"},
		"a word with f is not flux's": {"sh", "fine\n", "", ""},
		"a long line":                 {"sh", strings.Repeat("x", 3*mostLine) + "Submitted batch job 3\n", "", ""},
		"after a long line":           {"sh", strings.Repeat("x", 3*mostLine) + "\nSubmitted batch job 3\n", "sbatch", "3"},
	} {
		h, ok := recognise(c.executable, strings.NewReader(c.output))
		if h.Command != c.command || h.ID != c.id || ok != (c.id != "") {
			t.Errorf("%s: %+v, %v", name, h, ok)
		}
	}
}

func FuzzRecognise(f *testing.F) {
	f.Add("sbatch", "Submitted batch job 12\n")
	f.Add("qsub", "12.head\nx\x00")
	f.Add("sh", "ƒ2bC\n")
	f.Fuzz(func(t *testing.T, executable, output string) {
		h, ok := recognise(executable, strings.NewReader(output))
		if ok && (h.ID == "" || h.ID[0] == '-' || len(h.ID) > 250 || strings.ContainsAny(h.ID, " \n;'\"$`")) {
			t.Errorf("%+v", h)
		}
	})
}
