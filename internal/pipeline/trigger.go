package pipeline

func (d *definition) readTrigger() {
	t := &Trigger{ForwardYAML: true}
	d.base.Trigger = t
	s, ok := d.keywords.sub("trigger")
	switch {
	case !ok && d.keywords.v.has("trigger"):
		d.keywords.report.errorf(d.keywords.v.keyAt("trigger"), d.name, "%s trigger can't be blank", d.keywords.path)
	case !ok: // needs:pipeline
	case s.v.is(text):
		t.Project = s.v.text
	case !s.v.is(hash):
		s.errorf("has to be either a string or a hash")
	default:
		t.readHash(s)
		for _, item := range flatten(s.v.get("include"), maxNesting) {
			if job := item.get("job"); job.is(text) {
				d.artifactJobs = append(d.artifactJobs, job)
			}
		}
	}
}

func (t *Trigger) readHash(f field) {
	f.known([]string{"project", "branch", "strategy", "forward", "include", "inputs"})
	t.Project, t.Branch, t.Strategy = f.text("project"), f.text("branch"), f.choice("strategy", "depend", "mirror")
	if forward, ok := f.sub("forward"); ok && forward.isHash("yaml_variables", "pipeline_variables") {
		if yes, given := forward.flag("yaml_variables"); given {
			t.ForwardYAML = yes
		}
		t.ForwardPipeline, _ = forward.flag("pipeline_variables")
	}
	if inputs, ok := f.sub("inputs"); ok {
		if !inputs.v.is(hash) {
			inputs.errorf("config should be a hash")
		}
		t.Inputs = inputs.v.json()
	}
	switch {
	case f.v.given("project") && f.v.given("include"):
		f.errorf("config contains unknown keys: include (a trigger has either project or include)")
	case f.v.given("include"):
		include, _ := f.sub("include")
		checkTriggerInclude(include)
		t.Include = include.v.json()
	case !f.v.given("project"):
		f.errorf("config must specify either project or include")
	}
}

// checkTriggerInclude checks the files of a child pipeline: where each comes from.
func checkTriggerInclude(f field) {
	const most = 3
	items := flatten(f.v, maxNesting)
	if len(items) > most {
		f.errorf("config is too long (maximum is %d)", most)
	}
	for _, item := range items {
		s := field{report: f.report, v: item, job: f.job, path: f.path}
		switch {
		case item.is(text):
		case !item.is(hash):
			s.errorf("config should be a string or a hash")
		case item.given("artifact") && !item.given("job"):
			s.errorf("config must specify the job where to fetch the artifact from")
		case item.given("project") && !item.given("file"):
			s.errorf("config must specify the file where to fetch the config from")
		default:
			s.known([]string{"local", "remote", "project", "file", "ref", "template", "component", "artifact", "job", "inputs", "rules", "integrity"})
		}
	}
}
