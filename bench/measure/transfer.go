package measure

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Transfer measures packing and uploading, downloading and unpacking. Its server is this program once more, started with
// -serve, so that the server's time and memory do not count.
type Transfer struct {
	Level, Format string
	Dir           string // where all is made; it is removed at the end
	Kept          string // in Dir: where the server keeps what it is sent
	URL           string // of the server

	Variables []tranter.Variable // of each phase

	program                  string
	serve                    string
	repeat, megabytes, files int
}

// NewTransfer defines the flags of a measurement, where level is the name of the variable with the degree of
// compression, things what is packed, and serve what the server does.
func NewTransfer(level, things, serve string) *Transfer {
	t := &Transfer{}
	flag.StringVar(&t.program, "program", "bin/tranter", "the built program")
	flag.StringVar(&t.Dir, "dir", "", "where the files are made; empty: the system's temporary directory")
	flag.IntVar(&t.repeat, "n", 3, "runs of each measurement; the median and the range are printed")
	flag.IntVar(&t.megabytes, "mb", 1000, "size of the one large file in MB")
	flag.IntVar(&t.files, "files", 50_000, "number of small files")
	flag.StringVar(&t.Level, "level", "", level)
	flag.StringVar(&t.Format, "format", "zip", "of the "+things+": zip, zipzstd, tarzstd")
	flag.StringVar(&t.serve, "serve", "", serve)
	return t
}

// Main is the server, of what handler makes of the path of what is kept, or it measures: each is called with every set
// of files, with the set's name and the directory that it is in. Columns are those of the table beside the usual ones.
func (t *Transfer) Main(handler func(kept string) (http.Handler, error), each func(name, project string) error, columns ...string) error {
	if t.serve == "" {
		return t.measure(each, columns)
	}
	h, err := handler(t.serve)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(l)
}

func (t *Transfer) measure(each func(name, project string) error, columns []string) error {
	var err error
	if t.program, err = filepath.Abs(t.program); err != nil {
		return err
	}
	if t.Dir, err = os.MkdirTemp(t.Dir, "bench-transfer-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(t.Dir) }()
	t.Kept = filepath.Join(t.Dir, "kept")
	stop, err := t.startServer()
	if err != nil {
		return err
	}
	defer stop()
	fmt.Printf("%s, %d processors, format %s, level %s\n", runtime.Version(), runtime.NumCPU(), t.Format, cmp.Or(t.Level, "default"))
	columns = append([]string{"what", "wall s", "user+sys s", "peak RSS MB"}, columns...)
	row(columns)
	fmt.Println(strings.Repeat("|---", len(columns)) + "|")
	for i, set := range []struct {
		name string
		fill func(dir string) error
	}{
		{fmt.Sprintf("%d MB in one file, incompressible", t.megabytes), func(dir string) error { return oneFile(dir, t.megabytes) }},
		{fmt.Sprintf("%d files of 3 KB", t.files), func(dir string) error { return manyFiles(dir, t.files) }},
	} {
		project := filepath.Join(t.Dir, fmt.Sprintf("project-%d", i))
		if err := set.fill(project); err != nil {
			return err
		}
		if err := each(set.name, project); err != nil {
			return err
		}
	}
	return nil
}

// startServer starts this program as the server and returns how to end it.
func (t *Transfer) startServer() (func(), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve", t.Kept)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, fmt.Errorf("start the server: %w", err)
	}
	t.URL = "http://" + strings.TrimSpace(line)
	return stop, nil
}

// Runs measures phases of one step, as often as the user wants, and writes a row of the table with the values of the
// columns that are not the usual ones. Next says before each which step it is, and the directory of its project.
func (t *Transfer) Runs(name string, next func() (project string, step tranter.Step, err error), values ...string) error {
	var walls, times, peaks []float64
	for range t.repeat {
		project, step, err := next()
		if err != nil {
			return err
		}
		r, err := t.Phase(project, step)
		if err != nil {
			return err
		}
		walls, times = append(walls, r.Wall.Seconds()), append(times, r.CPU.Seconds())
		peaks = append(peaks, float64(r.Memory.Peak)/1e6)
	}
	row(append([]string{name, median(walls), median(times), median(peaks)}, values...))
	return nil
}

// Phase lets the agent work through a phase of one step. A warning in its log is an error: the step has then done less
// than it should.
func (t *Transfer) Phase(project string, step tranter.Step) (Run, error) {
	dir, err := os.MkdirTemp(t.Dir, "phase-")
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := Agent(t.program, dir, &tranter.Phase{
		ID: "1", JobID: 1, Shell: "sh", JobToken: "t", Server: tranter.Server{URL: t.URL}, Steps: []tranter.Step{step}, Variables: t.Variables,
		Dirs: tranter.Dirs{Builds: t.Dir, Project: project, Temp: project + ".tmp", Cache: filepath.Join(t.Dir, "cache")},
	})
	if err != nil {
		return Run{}, err
	}
	if journal := Journal(dir); strings.Contains(journal, "WARNING") {
		return Run{}, fmt.Errorf("the phase has warned:\n%s", journal)
	}
	return r, nil
}

// row writes a row of a table.
func row(cells []string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

// median says the one in the middle, and the range.
func median(values []float64) string {
	slices.Sort(values)
	return fmt.Sprintf("%.2f [%.2f..%.2f]", values[len(values)/2], values[0], values[len(values)-1])
}
