package manager

import (
	"cmp"
	"fmt"
	"time"

	"github.com/tranter-ci/tranter"
)

// told is what was told last of a runner's trouble.
type told struct {
	text  string // empty: there is none
	at    time.Time
	since time.Time // there is some
}

// repeat is how long another trouble is not told after one: words that are new each time would flood the log of events.
const repeat = time.Minute

// news is what has happened to a runner; the zero value: nothing.
type news struct{ tranter.Event }

func (n news) pass(m *Manager) {
	if n.Kind != "" {
		tell(m, n.Event)
	}
}

// newsLocked says what has changed since the last time in whether the runner gets jobs. A server that it can't reach, a fault here, and
// a token that is refused are trouble; a place that is in use is none.
func (p *poller) newsLocked(now time.Time) news {
	text := ""
	e := tranter.Event{Runner: p.runner.Token.Short(), Kind: tranter.RunnerTrouble, Level: tranter.EventWarning}
	switch problem := cmp.Or(p.unready, p.problem); {
	case p.pace.paused && p.unready == "":
		e.Level = tranter.EventError
		text = fmt.Sprintf("The runner pauses for %v because its requests are refused: %s", p.runner.Limits.pause(), problem)
	case p.unready != "":
		text = "The runner takes no jobs for now: " + problem
	case problem != "":
		text = "Checking for jobs... failed: " + problem
	}
	switch {
	case text == p.told.text, text != "" && p.told.text != "" && now.Sub(p.told.at) < repeat && !p.pace.paused:
		return news{}
	case text == "":
		e.Kind, e.Level, e.Took = tranter.RunnerRecovered, tranter.EventInfo, now.Sub(p.told.since)
		e.Text = "Checking for jobs works again, after: " + p.told.text
	default:
		e.Text = text
	}
	since := p.told.since
	if p.told.text == "" {
		since = now
	}
	p.told = told{text: text, at: now, since: since}
	return news{e}
}
