package coordinator

import (
	"log/slog"
	"slices"
	"time"
)

// roster is what exists beside the pipelines: runners and projects. The book's lock guards it.
type roster struct {
	disk     *disk
	now      func() time.Time
	log      *slog.Logger
	settings settings
	bell     bell // rings when runners come, go or change
}

// runnersChanged wakes all that wait for a runner, or for something that depends on one.
func (b *roster) runnersChanged() { b.bell.ring() }

// saveSettings writes runners and projects. On an error they are to be put back as they were.
func (b *roster) saveSettings() error {
	if err := save(b.disk.settingsPath(), &b.settings); err != nil {
		b.log.Error("runners and projects cannot be saved", slog.Any("error", err))
		return err
	}
	return nil
}

// saveRunner does f to a runner and saves it, or leaves it as it was.
func (b *roster) saveRunner(rn *runner, f func()) error {
	before := *rn
	f()
	if err := b.saveSettings(); err != nil {
		*rn = before
		return err
	}
	rn.queue = randomHex(16)
	rn.bell.ring()
	b.runnersChanged()
	return nil
}

func (b *roster) project(id int64) *project {
	i := slices.IndexFunc(b.settings.Projects, func(p *project) bool { return p.ID == id })
	if i < 0 {
		return &project{}
	}
	return b.settings.Projects[i]
}
