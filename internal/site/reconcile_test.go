package site

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/config"
)

func given[T any](v T) config.Optional[T] { return config.Optional[T]{Value: v, Set: true} }

const owner = "0123456789abcdef"

// wanted is a site of three runners.
func wanted() Site {
	app, group := Scope{ScopeProject, "hpc/app"}, Scope{ScopeGroup, "hpc"}
	return Site{Name: "hpc", Runners: []Runner{
		{Name: "small", Description: "hpc-small", Scope: app, Tags: []string{"small", "slurm"}},
		{Name: "large", Description: "hpc-large", Scope: group, Tags: []string{"large"}, MaximumTimeout: 4 * time.Hour, AccessLevel: "ref_protected", MaintenanceNote: "Ask Ada."},
		{Name: "gpu", Description: "hpc-gpu", Scope: app, Tags: []string{"gpu"}, Paused: given(false), Locked: given(true), Projects: []Scope{{ScopeProject, "hpc/lib"}}},
	}}
}

// inPlace is what there is after the site was applied.
func inPlace() Facts {
	f := Facts{
		Owner: owner, Known: map[string]Known{}, Actual: map[int64]Actual{}, Now: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), RotateBefore: 24 * time.Hour,
		Scopes: map[Scope]int64{{ScopeProject, "hpc/app"}: 1, {ScopeProject, "hpc/lib"}: 2, {ScopeGroup, "hpc"}: 3},
	}
	carryOut(&f, Reconcile(wanted(), f), 11)
	return f
}

// carryOut does to the facts what an apply does to server and state.
func carryOut(f *Facts, p Plan, next int64) {
	for _, s := range p.Steps {
		switch s.Kind {
		case Create:
			f.Actual[next] = Actual{ID: next, Locked: true}
			f.Known[s.Runner] = Known{Token: Token{ID: next, Token: "glrt-x"}}
			s.ID = next
			next++
		case Adopt, Rotate:
			f.Known[s.Runner] = Known{Token: Token{ID: s.ID, Token: "glrt-y"}, Scope: f.Known[s.Runner].Scope}
		case Delete:
			delete(f.Actual, s.ID)
			delete(f.Known, s.Runner)
			continue
		case Forget:
			delete(f.Known, s.Runner)
			continue
		case Update, Keep:
		}
		if k := f.Known[s.Runner]; s.Scope.Kind != "" {
			k.Scope, k.ScopeID = s.Scope, f.Scopes[s.Scope]
			f.Known[s.Runner] = k
		}
		f.Actual[s.ID] = settled(f.Actual[s.ID], s)
	}
}

func settled(a Actual, s Step) Actual {
	put := func(to *bool, from *bool) {
		if from != nil {
			*to = *from
		}
	}
	text := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	text(&a.Description, s.Set.Description)
	text(&a.AccessLevel, s.Set.AccessLevel)
	text(&a.MaintenanceNote, s.Set.MaintenanceNote)
	put(&a.Paused, s.Set.Paused)
	put(&a.Locked, s.Set.Locked)
	put(&a.RunUntagged, s.Set.RunUntagged)
	if s.Set.Tags != nil {
		a.Tags = *s.Set.Tags
	}
	if s.Set.MaximumTimeout != nil {
		a.MaximumTimeout = *s.Set.MaximumTimeout
	}
	for _, p := range s.Assign {
		a.Projects = append(a.Projects, p.Path)
		a.Locked = s.Lock
	}
	return a
}

// actual changes what is at the server.
func actual(f *Facts, id int64, change func(*Actual)) {
	a := f.Actual[id]
	change(&a)
	f.Actual[id] = a
}

func known2(f *Facts, name string, change func(*Known)) {
	k := f.Known[name]
	change(&k)
	f.Known[name] = k
}

func TestPlans(t *testing.T) {
	const mark = "[tranter site=hpc runner=small owner=" + owner + "]"
	for name, c := range map[string]struct {
		change func(*Site, *Facts)
		want   string
	}{
		"nothing to do": {func(*Site, *Facts) {}, `
Site hpc: nothing to do, 3 to keep
  = keep   small (11)
  = keep   large (12)
  = keep   gpu (13)
`},
		"from nothing": {func(_ *Site, f *Facts) { f.Known, f.Actual = map[string]Known{}, map[int64]Actual{} }, `
Site hpc: 3 to create
  + create small in project hpc/app
      description: hpc-small
      tags: small, slurm
      paused: no
      locked: yes
      run_untagged: no
  + create large in group hpc
      description: hpc-large
      tags: large
      paused: no
      locked: yes
      run_untagged: no
      access_level: ref_protected
      maximum_timeout: 4h0m0s
      maintenance_note: Ask Ada.
  + create gpu in project hpc/app
      description: hpc-gpu
      tags: gpu
      paused: no
      locked: yes
      run_untagged: no
      serves: project hpc/lib
`},
		"an administrator's decisions stay where the file is silent": {func(_ *Site, f *Facts) {
			actual(f, 11, func(a *Actual) {
				a.Paused, a.Locked, a.RunUntagged, a.AccessLevel, a.MaximumTimeout = true, false, true, "ref_protected", time.Hour
				a.MaintenanceNote = "Do not touch before Monday.\n" + mark
				a.Tags = []string{"slurm", "small"}
			})
			actual(f, 13, func(a *Actual) { a.Paused = true })
		}, `
Site hpc: 1 to change, 2 to keep
  = keep   small (11)
  = keep   large (12)
  ~ change gpu (13) in project hpc/app
      paused: yes -> no
`},
		"what differs is shown, and text of the server is made safe": {func(s *Site, f *Facts) {
			s.Runners[0].Tags, s.Runners[0].MaximumTimeout = []string{"tiny"}, time.Hour
			actual(f, 11, func(a *Actual) { a.Description = "evil\x1b[2J\nname" })
			actual(f, 13, func(a *Actual) { a.Projects = nil })
		}, `
Site hpc: 2 to change, 1 to keep
  ~ change small (11) in project hpc/app
      description: evil[2J name -> hpc-small
      tags: slurm, small -> tiny
      maximum_timeout: none -> 1h0m0s
  = keep   large (12)
  ~ change gpu (13) in project hpc/app
      serves: none -> project hpc/lib
`},
		"tokens that expire": {func(_ *Site, f *Facts) {
			known2(f, "small", func(k *Known) { k.ExpiresAt = f.Now.Add(23 * time.Hour) })
			known2(f, "large", func(k *Known) { k.ExpiresAt = f.Now.Add(-time.Hour) })
			known2(f, "gpu", func(k *Known) { k.ExpiresAt = f.Now.Add(25 * time.Hour) })
		}, `
Site hpc: 2 to rotate, 1 to keep
  ~ rotate small (11) in project hpc/app: its token expires at 2026-05-01T23:00:00Z
  ~ rotate large (12) in group hpc: its token has expired at 2026-04-30T23:00:00Z
  = keep   gpu (13)
`},
		"rotation of one, and of one that is not there": {func(_ *Site, f *Facts) { f.Rotate = []string{"gpu", "huge"} }, `
Site hpc: 1 to rotate, 2 to keep, 1 in the way
  = keep   small (11)
  = keep   large (12)
  ~ rotate gpu (13) in project hpc/app: as asked for
  ! no runner of the site is called huge, whose token was to be replaced
`},
		"gone at the server, and gone from the file": {func(s *Site, f *Facts) {
			delete(f.Actual, 11)
			s.Runners = s.Runners[:2]
			f.Known["older"] = Known{Token: Token{ID: 5}}
		}, `
Site hpc: 1 to create, 1 to delete, 1 to forget, 1 to keep
  + create small in project hpc/app: runner 11 is not at the server any more
      description: hpc-small
      tags: small, slurm
      paused: no
      locked: yes
      run_untagged: no
  = keep   large (12)
  - delete gpu (13) in project hpc/app: it is not in the file any more
  - forget older (5): it is neither in the file nor at the server any more
`},
		"removed ones can stay": {func(s *Site, f *Facts) { s.Runners = s.Runners[:2]; f.KeepRemoved = true }, `
Site hpc: nothing to do, 3 to keep
  = keep   small (11)
  = keep   large (12)
  = keep   gpu (13): it is not in the file any more and stays, as asked for
`},
		"a move is a removal and a creation": {func(s *Site, f *Facts) {
			s.Runners = s.Runners[:2]
			s.Runners[0].Scope = Scope{ScopeGroup, "hpc"}
			f.KeepRemoved = true
		}, `
Site hpc: 1 to create, 1 to delete, 2 to keep
  - delete small (11) in project hpc/app: it moves from project hpc/app to group hpc, which no runner can: it is made anew there
  + create small in group hpc: in place of runner 11
      description: hpc-small
      tags: small, slurm
      paused: no
      locked: yes
      run_untagged: no
  = keep   large (12)
  = keep   gpu (13): it is not in the file any more and stays, as asked for
`},
		"a project with a new name is the same one": {func(s *Site, f *Facts) {
			s.Runners[0].Scope.Path = "hpc/renamed"
			f.Scopes[s.Runners[0].Scope] = 1
		}, `
Site hpc: nothing to do, 3 to keep
  = keep   small (11)
  = keep   large (12)
  = keep   gpu (13)
`},
		"an answer that got lost": {func(_ *Site, f *Facts) { delete(f.Known, "small") }, `
Site hpc: 1 to adopt, 2 to keep
  + adopt  small (11) in project hpc/app: an earlier run made it and did not get to know its token: it gets a new one
  = keep   large (12)
  = keep   gpu (13)
`},
		"another state directory": {func(_ *Site, f *Facts) {
			f.Owner = "another"
			delete(f.Known, "small")
		}, `
Site hpc: 3 in the way
  ! runner small (11) is managed by another site file or state directory (site hpc, mark 0123456789abcdef): two managers must not share runners. Apply with the state directory that it belongs to, or take the site's runners over with --adopt, after which the other one can't use them any more
  ! runner large (12) is managed by another site file or state directory (site hpc, mark 0123456789abcdef): two managers must not share runners. Apply with the state directory that it belongs to, or take the site's runners over with --adopt, after which the other one can't use them any more
  ! runner gpu (13) is managed by another site file or state directory (site hpc, mark 0123456789abcdef): two managers must not share runners. Apply with the state directory that it belongs to, or take the site's runners over with --adopt, after which the other one can't use them any more
`},
		"taken over": {func(s *Site, f *Facts) {
			f.Owner, f.Adopt, f.Known = "another", true, map[string]Known{}
			s.Runners = s.Runners[:1]
		}, `
Site hpc: 1 to adopt, 1 to change
  + adopt  small (11) in project hpc/app: it is taken over from another state directory, which can't use it any more
  ~ change small (11) in project hpc/app
      maintenance_note: [tranter site=hpc runner=small owner=0123456789abcdef] -> [tranter site=hpc runner=small owner=another]
`},
		"what another one manages is not removed": {func(s *Site, f *Facts) {
			s.Runners = s.Runners[1:]
			actual(f, 11, func(a *Actual) { a.MaintenanceNote = Mark{"hpc", "small", "another"}.String() })
		}, `
Site hpc: 1 to forget, 2 to keep
  = keep   large (12)
  = keep   gpu (13)
  - forget small (11) in project hpc/app: it is not in the file any more, and another state directory manages it now
`},
		"what somebody writes behind the mark stays": {func(_ *Site, f *Facts) {
			actual(f, 11, func(a *Actual) { a.MaintenanceNote = "before\n" + mark + "\nbehind" })
		}, `
Site hpc: 1 to change, 2 to keep
  ~ change small (11) in project hpc/app
      maintenance_note: before [tranter site=hpc runner=small owner=0123456789abcdef] behind -> before behind [tranter site=hpc runner=small owner=0123456789abcdef]
  = keep   large (12)
  = keep   gpu (13)
`},
		"an imported runner gets the mark": {func(_ *Site, f *Facts) {
			known2(f, "small", func(k *Known) { k.Scope, k.ScopeID = Scope{}, 0 })
			actual(f, 11, func(a *Actual) { a.MaintenanceNote = "made by hand" })
		}, `
Site hpc: 1 to change, 2 to keep
  ~ change small (11) in project hpc/app
      maintenance_note: made by hand -> made by hand [tranter site=hpc runner=small owner=0123456789abcdef]
  = keep   large (12)
  = keep   gpu (13)
`},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := wanted(), inPlace()
			c.change(&s, &f)
			if got := "\n" + Reconcile(s, f).String(); got != c.want {
				t.Errorf("got:%s\nwant:%s", got, c.want)
			}
		})
	}
}

func TestANoteWithoutRoomForTheMarkIsAProblem(t *testing.T) {
	s, f := wanted(), inPlace()
	s.Runners[0].MaintenanceNote = strings.Repeat("ä", 1000)
	if p := Reconcile(s, f); len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "runner small: its maintenance_note is too long") {
		t.Errorf("%v", p)
	}
	actual(&f, 11, func(a *Actual) { a.MaintenanceNote = strings.Repeat("x", 1024) })
	p := Reconcile(wanted(), f)
	if note := p.Steps[0].Set.MaintenanceNote; note == nil || len(*note) > 1024 || !strings.HasSuffix(*note, "]") {
		t.Errorf("%v", p)
	}
}

func TestAMarkIsReadAsItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.StringN(1, 40, -1)
		m := Mark{some.Draw(t, "site"), some.Draw(t, "runner"), some.Draw(t, "owner")}
		before := rapid.String().Draw(t, "text")
		if got, ok := ReadMark(before + "\n" + m.String()); !ok || got != m {
			t.Fatalf("%q is read as %q, %v", m.String(), got, ok)
		}
	})
}

func FuzzMark(f *testing.F) {
	f.Add("text\n[tranter site=a runner=b owner=c]")
	f.Add("[tranter site=%zz]")
	f.Fuzz(func(t *testing.T, note string) {
		if m, ok := ReadMark(note); ok && (m.Site == "" || m.Runner == "" || m.Owner == "") {
			t.Errorf("%q: %+v", note, m)
		}
	})
}

// Whatever was there: after a plan is carried out nothing is to be done, and only what our state had is removed.
func TestAPlanLeavesNothingToDoAndRemovesOnlyWhatWasOurs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, f := wanted(), inPlace()
		flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
		s.Runners = slices.DeleteFunc(s.Runners, func(r Runner) bool { return flag("drop " + r.Name) })
		for _, id := range slices.Sorted(maps.Keys(f.Actual)) {
			if flag("gone") {
				delete(f.Actual, id)
			} else if flag("changed") {
				actual(&f, id, func(a *Actual) { a.Tags, a.Paused, a.Description = nil, true, "other" })
			}
		}
		for _, name := range slices.Sorted(maps.Keys(f.Known)) {
			switch {
			case flag("unknown"):
				delete(f.Known, name)
			case flag("without token"):
				known2(&f, name, func(k *Known) { k.Token.Token = "" })
			}
		}
		f.Actual[99] = Actual{ID: 99, Description: "hpc-small", MaintenanceNote: "a stranger's"}
		f.Adopt = flag("adopt")
		ours := map[int64]bool{}
		for _, k := range f.Known {
			ours[k.ID] = true
		}
		p := Reconcile(s, f)
		for _, step := range p.Steps {
			if step.Kind == Delete && !ours[step.ID] {
				t.Fatalf("it removes what is not ours:\n%v", p)
			}
		}
		carryOut(&f, p, 100)
		if again := Reconcile(s, f); !again.Nothing() {
			t.Fatalf("first:\n%vthen:\n%v", p, again)
		}
	})
}
