package site

import (
	"reflect"

	"github.com/tranter-ci/tranter/internal/config"
)

// Show returns the site with all runners as they come out, for people and programs. Secrets are stars.
func (s Site) Show() config.Section {
	out := config.Section{
		{Key: "name", Value: s.Name}, {Key: "url", Value: s.URL}, {Key: "management_token", Value: s.Token.String()},
	}
	if s.TLSCAFile != "" {
		out = append(out, config.Entry{Key: "tls_ca_file", Value: s.TLSCAFile})
	}
	out = append(out, config.Entry{Key: "files", Value: s.Files}, config.Entry{Key: "poll_interval", Value: s.Poll})
	if len(s.stock) > 0 {
		c := s.Manager
		c.Runners = nil
		out = append(out, config.Entry{Key: "manager", Value: beyond(config.Effective(c), config.Effective(config.Default()))})
	}
	var runners []config.Section
	for i := range s.Runners {
		runners = append(runners, s.Runners[i].show(s.Path))
	}
	if len(runners) > 0 {
		out = append(out, config.Entry{Key: "runners", Value: runners})
	}
	return s.mask(out).(config.Section)
}

func (r *Runner) show(path string) config.Section {
	var scopes, pending []string
	for _, s := range r.serves() {
		scopes = append(scopes, s.String())
	}
	for _, s := range r.Pending {
		pending = append(pending, s.String())
	}
	out := config.Section{
		{Key: "name", Value: r.Name},
		{Key: "description", Value: r.Description},
		{Key: "line", Value: r.Line},
		{Key: "scopes", Value: scopes},
		{Key: "tags", Value: r.Tags},
	}
	add := func(key string, given bool, value any) {
		if given {
			out = append(out, config.Entry{Key: key, Value: value})
		}
	}
	add("file", r.File != path, r.File)
	add("paused", r.Paused.Set, r.Paused.Value)
	add("locked", r.Locked.Set, r.Locked.Value)
	add("run_untagged", r.RunUntagged.Set, r.RunUntagged.Value)
	add("access_level", r.AccessLevel != "", r.AccessLevel)
	add("maximum_timeout", r.MaximumTimeout > 0, r.MaximumTimeout)
	add("maintenance_note", r.MaintenanceNote != "", r.MaintenanceNote)
	add("launch_priority", r.Priority.Set, r.Priority.Value)
	if r.Launch != nil {
		add("jobs_wait_in", true, pending)
		add("launch", true, r.Launch.show())
	}
	if r.Section.Executor != "" {
		add("runner", true, settingsOf(&r.Section))
	}
	return out
}

// show returns the command for as many jobs as it takes, with a word in the place of the generated configuration.
func (l *Launch) show() config.Section {
	c, err := l.Command(l.GroupSize, "CONFIG")
	if err != nil {
		return config.Section{{Key: "error", Value: err.Error()}}
	}
	out := config.Section{{Key: "executable", Value: c.Executable}, {Key: "args", Value: c.Args}, {Key: "group_size", Value: c.GroupSize}}
	if c.Workdir != "" {
		out = append(out, config.Entry{Key: "workdir", Value: c.Workdir})
	}
	if c.Timeout > 0 {
		out = append(out, config.Entry{Key: "timeout", Value: c.Timeout})
	}
	if c.Stdin != "" {
		out = append(out, config.Entry{Key: "stdin", Value: c.Stdin})
	}
	return out
}

// settingsOf returns what a runner's section says beyond the defaults.
func settingsOf(r *config.Runner) config.Section {
	defaults := config.DefaultRunner()
	defaults.Executor = r.Executor
	defaults.Batch.Scheduler = r.Batch.Scheduler // so that the section is shown
	defaults.Apptainer.Executable, defaults.Apptainer.Image = "-", r.Apptainer.Image
	var both [2]config.Section
	for i, runner := range []config.Runner{*r, defaults} {
		if all, _ := config.Effective(config.Config{Runners: []config.Runner{runner}}).Get("runners").([]config.Section); len(all) > 0 {
			both[i] = all[0].Without("name", "url", "token")
		}
	}
	out := beyond(both[0], both[1])
	out = append(config.Section{{Key: "executor", Value: r.Executor}}, out.Without("executor")...)
	if r.Batch.Scheduler != "" {
		below, _ := out.Get("batch").(config.Section)
		below = append(config.Section{{Key: "scheduler", Value: r.Batch.Scheduler}, {Key: "order", Value: r.Batch.Order}}, below.Without("scheduler", "order")...)
		out = out.With("batch", below)
	}
	return out
}

// beyond returns what a section has that another one has not, or has otherwise.
func beyond(s, defaults config.Section) config.Section {
	var out config.Section
	for _, e := range s {
		other := defaults.Get(e.Key)
		if below, ok := e.Value.(config.Section); ok {
			otherBelow, _ := other.(config.Section)
			if more := beyond(below, otherBelow); len(more) > 0 {
				out = append(out, config.Entry{Key: e.Key, Value: more})
			}
			continue
		}
		if !reflect.DeepEqual(e.Value, other) {
			out = append(out, e)
		}
	}
	return out
}

// mask replaces secrets in all texts.
func (s Site) mask(v any) any {
	switch v := v.(type) {
	case string:
		return s.Masked(v)
	case []string:
		out := make([]string, len(v))
		for i := range v {
			out[i] = s.Masked(v[i])
		}
		return out
	case map[string]string:
		out := make(map[string]string, len(v))
		for key := range v {
			out[key] = s.Masked(v[key])
		}
		return out
	case config.Section:
		out := make(config.Section, len(v))
		for i, e := range v {
			out[i] = config.Entry{Key: e.Key, Value: s.mask(e.Value)}
		}
		return out
	case []config.Section:
		out := make([]config.Section, len(v))
		for i := range v {
			out[i] = s.mask(v[i]).(config.Section)
		}
		return out
	}
	return v
}
