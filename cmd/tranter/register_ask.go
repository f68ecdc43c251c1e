package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

// asker asks questions, one line each.
type asker struct {
	in    io.Reader
	lines *bufio.Reader
	out   io.Writer
}

func newAsker(s streams) *asker { return &asker{in: s.in, lines: bufio.NewReader(s.in), out: s.out} }

// question is asked until its answer is accepted. An empty answer means the preset.
type question struct {
	text   string
	preset string
	secret bool                      // neither preset nor answer is shown
	accept func(answer string) error // nil: any answer that is not empty
	empty  bool                      // an empty answer is an answer
}

func (a *asker) ask(q question) (string, error) {
	for {
		fmt.Fprint(a.out, q.text)
		switch {
		case q.preset != "" && q.secret:
			fmt.Fprint(a.out, " [as given]")
		case q.preset != "":
			fmt.Fprintf(a.out, " [%s]", q.preset)
		}
		fmt.Fprint(a.out, ": ")
		answer, err := a.answer(q.secret)
		if err != nil {
			return "", err
		}
		if answer == "" {
			answer = q.preset
		}
		switch {
		case answer == "" && q.empty:
			return "", nil
		case answer == "":
			fmt.Fprintln(a.out, "An answer is needed.")
		case q.accept == nil:
			return answer, nil
		default:
			err := q.accept(answer)
			if err == nil {
				return answer, nil
			}
			fmt.Fprintf(a.out, "%v.\n", err)
		}
	}
}

// answer reads a line. What is typed on a terminal as a secret does not show up there.
func (a *asker) answer(secret bool) (string, error) {
	f, isFile := a.in.(*os.File)
	if secret && isFile && term.IsTerminal(int(f.Fd())) && a.lines.Buffered() == 0 {
		text, err := readHidden(f)
		fmt.Fprintln(a.out)
		return strings.TrimSpace(text), err
	}
	line, err := a.lines.ReadString('\n')
	line = strings.TrimSpace(line)
	if err == io.EOF && line != "" {
		err = nil
	}
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		fmt.Fprintln(a.out) // nobody has typed the end of the line
	}
	if errors.Is(err, io.EOF) {
		return "", errors.New("the input ended before all questions were answered: answer them, or give flags and --non-interactive")
	}
	return line, err
}

// readHidden reads a line of a terminal without showing it, and leaves the terminal as it was even when it is
// interrupted.
func readHidden(f *os.File) (string, error) {
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return "", err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, stopSignals()...)
	defer signal.Stop(interrupted)
	type reading struct {
		text []byte
		err  error
	}
	read := make(chan reading, 1)
	go func() {
		text, err := term.ReadPassword(int(f.Fd()))
		read <- reading{text, err}
	}()
	select {
	case got := <-read:
		return string(got.text), got.err
	case <-interrupted: // nothing ends the reading of a terminal but the end of the process, which follows
		return "", errors.Join(errors.New("interrupted"), term.Restore(int(f.Fd()), before))
	}
}

// ask asks for what registering needs (contract 12.4). What flags and template say is the answer to an empty line.
func (r *registration) ask(values map[string][]string) error {
	known, err := r.merged(values)
	if err != nil {
		return err
	}
	a := newAsker(r.s)
	address, err := a.ask(question{text: "Address of the GitLab server, such as https://gitlab.com", preset: sectionText(known, "url"), accept: serverAddress})
	if err != nil {
		return err
	}
	values["url"] = []string{address}
	if err := r.askToken(a, values); err != nil {
		return err
	}
	name := sectionText(known, "name")
	if name == "" {
		name = hostName()
	}
	if name, err = a.ask(question{text: "Name of the runner", preset: name}); err != nil {
		return err
	}
	values["name"] = []string{name}
	if r.registrationToken != "" {
		if r.server.tags, err = a.ask(question{text: "Tags of the runner, separated by commas", preset: r.server.tags, empty: true}); err != nil {
			return err
		}
		if r.server.note, err = a.ask(question{text: "Note for those who look after the runner", preset: r.server.note, empty: true}); err != nil {
			return err
		}
	}
	executor, err := a.ask(question{text: "Executor: " + strings.Join(executorNames(), ", "), preset: sectionText(known, "executor"), accept: executorBuilt})
	if err != nil {
		return err
	}
	values["executor"] = []string{executor}
	if executor != "docker" {
		return nil
	}
	docker, _ := known.Get("docker").(config.Section)
	image, err := a.ask(question{text: "Image of jobs that name none, such as debian:stable-slim", preset: sectionText(docker, "image")})
	if err != nil {
		return err
	}
	values["docker-image"] = []string{image}
	return nil
}

// askToken asks for the token, whose form tells its kind.
func (r *registration) askToken(a *asker, values map[string][]string) error {
	preset := r.registrationToken.Reveal()
	for _, flag := range []string{"token", "token-file"} {
		if v := values[flag]; len(v) > 0 {
			preset = v[0]
		}
	}
	answer, err := a.ask(question{text: "Token of the runner (glrt-...), or a registration token", preset: preset, secret: true})
	if err != nil || answer == preset {
		return err
	}
	delete(values, "token")
	delete(values, "token-file")
	r.registrationToken = tranter.Secret(answer)
	if createdToken(r.registrationToken) {
		r.takeAsToken(values, r.registrationToken)
	}
	return nil
}

// serverAddress accepts the address of a server.
func serverAddress(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("this is no address of a server: write it with http:// or https://")
	}
	return nil
}
