package image

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	useBeat = 30 * time.Second
	// usedFor is how long an image counts as used after the last sign of life of who used it: jobs go on while a manager
	// starts again.
	usedFor = 15 * time.Minute
)

// hold says that an image is used until the function is called. It is false if the image is about to be removed.
func (s *ground) hold(id string) (release func(), ok bool, err error) {
	dir := filepath.Join(s.dir, useDir, id)
	if err := s.mkdir(dir); err != nil {
		return nil, false, fmt.Errorf("say that an image is used: %w", err)
	}
	host, _ := os.Hostname()
	path := filepath.Join(dir, fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()))
	if err := os.WriteFile(path, nil, s.fileMode()); err != nil {
		return nil, false, fmt.Errorf("say that an image is used: %w", err)
	}
	// Who removes says so first and looks for users then; here it is the other way round. So one sees the other.
	if _, err := os.Lstat(filepath.Join(dir, condemned)); err == nil {
		_ = os.Remove(path) // it ends by itself
		return nil, false, nil
	}
	done := make(chan struct{})
	var beat sync.WaitGroup
	beat.Go(func() {
		tick := time.NewTicker(useBeat)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = os.WriteFile(path, []byte(time.Now().Format(time.RFC3339)), s.fileMode()) // the next one may work
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		beat.Wait()
		_ = os.Remove(path) // it ends by itself
	}), true, nil
}

// used says whether anybody uses an image.
func (s *ground) used(id string, now time.Time) bool {
	entries, err := os.ReadDir(filepath.Join(s.dir, useDir, id))
	if err != nil {
		return !os.IsNotExist(err)
	}
	for _, e := range entries {
		if e.Name() == condemned {
			continue
		}
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) < usedFor {
			return true
		}
	}
	return false
}
