package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/machine/libmachine/log"
)

// fault does what the control folder says of a moment in the driver's work. Each file there is a fault, each line in it a
// moment, after which may come a colon and a text:
//
//	hang      the call never ends
//	die       the process ends
//	fail      the call fails, with the text
//	throttle  it fails as providers do that are asked too often; in a file without lines: always
//
// The moments are flags, check, create (before the machine is there), created (after), done (at the end of Create), state,
// address, remove, start and stop.
func (d *driver) fault(moment string) error {
	if d.control == "" {
		return nil
	}
	if _, on := d.switched("hang", moment); on {
		select {}
	}
	if _, on := d.switched("die", moment); on {
		os.Exit(5)
	}
	if text, on := d.switched("throttle", moment); on {
		if text == "" {
			text = "limit of 3600 requests per hour reached (rate_limit_exceeded)"
		}
		return errors.New(text)
	}
	if text, on := d.switched("fail", moment); on {
		if text == "" {
			text = "lab: told to fail"
		}
		return errors.New(text)
	}
	return nil
}

func (d *driver) switched(file, moment string) (text string, on bool) {
	data, err := os.ReadFile(filepath.Join(d.control, file))
	if err != nil {
		return "", false
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return "", file == "throttle" || moment == "create"
	}
	for line := range strings.Lines(string(data)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == moment {
			return strings.TrimSpace(text), true
		}
	}
	return "", false
}

// before is what happens in Create before the machine is there.
func (d *driver) before() error {
	if err := d.fault("create"); err != nil {
		return err
	}
	if d.wanted.longLine {
		log.Info(strings.Repeat("long ", 40<<10))
		log.Debug(strings.Repeat("long ", 40<<10))
	}
	if d.wanted.hang {
		select {}
	}
	log.Infof("creating machine %s", d.MachineName)
	time.Sleep(time.Duration(d.wanted.delay) * time.Second)
	if !d.wanted.late {
		return d.failure()
	}
	return nil
}

// after is what happens in Create once it is.
func (d *driver) after() error {
	if d.wanted.die {
		os.Exit(4)
	}
	if d.wanted.late {
		if err := d.failure(); err != nil {
			return err
		}
	}
	return d.fault("done")
}

func (d *driver) failure() error {
	if rand.IntN(100) < d.wanted.failPercent {
		return errors.New(d.wanted.failText)
	}
	return nil
}
