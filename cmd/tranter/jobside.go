package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// The commands in the files artifacts_*.go and cache_*.go are for the scripts of jobs whose environment has no agent, such
// as those of the custom executor: GitLab Runner's commands of the same names (contract 7.4, 7.6, 8.1, 8.4).

// jobSide is such a command at work: in the project's directory, with the job's variables in its environment.
type jobSide struct {
	env *env.Env
	log *joblog.Log
}

// jobCommand makes a command of a job's scripts. They are for scripts, not for people.
func jobCommand(use, short, example string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: onlyFlags, Hidden: true}
	f := cmd.Flags()
	f.Duration("transfer-meter-frequency", 0, "how often to tell how far it is (0: never)")
	withEnv(f, "transfer-meter-frequency", "TRANSFER_METER_FREQUENCY")
	f.Int("retry", 2, "accepted; failures that may pass are always tried again")
	f.Duration("retry-time", time.Second, "accepted; no effect")
	return cmd
}

// onJobSide makes what a command does of its work: what has failed is told after all that was printed before.
func onJobSide(s streams, work func(ctx context.Context, j *jobSide, flags *pflag.FlagSet) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		job, err := newJobSide(s, cmd.Flags())
		if err != nil {
			return err
		}
		return errors.Join(work(cmd.Context(), job, cmd.Flags()), job.log.Close())
	}
}

// newJobSide begins the work of a command. Its log must be closed.
func newJobSide(s streams, flags *pflag.FlagSet) (*jobSide, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the project's directory: %w", err)
	}
	j := &jobSide{log: joblog.New(s.out, tranter.LogFormat{}, time.Now)}
	j.env = &env.Env{
		Phase: &tranter.Phase{Dirs: tranter.Dirs{Project: dir, Temp: os.TempDir()}},
		Log:   j.log, Environ: os.Environ(), Exec: runCommand,
	}
	if every, err := flags.GetDuration("transfer-meter-frequency"); err == nil && every > 0 {
		j.env.Environ = append(j.env.Environ, "TRANSFER_METER_FREQUENCY="+every.String())
	}
	return j, nil
}

// runCommand runs a program until it ends or ctx does.
func runCommand(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	err := cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// addServerFlags defines the flags that say which job of which server is meant.
func addServerFlags(flags *pflag.FlagSet) {
	flags.String("url", "", "address of GitLab")
	withEnv(flags, "url", "CI_SERVER_URL")
	flags.Int64("id", 0, "id of the job")
	withEnv(flags, "id", "CI_JOB_ID")
	flags.String("token", "", "token of the job; better in the environment, which is in no process list")
	withEnv(flags, "token", "CI_JOB_TOKEN")
}

// server is what addServerFlags' flags and the environment say.
func (j *jobSide) server(flags *pflag.FlagSet) (tranter.Server, tranter.JobRef, error) {
	url, _ := flags.GetString("url")
	id, _ := flags.GetInt64("id")
	token, _ := flags.GetString("token")
	if url == "" || id == 0 || token == "" {
		return tranter.Server{}, tranter.JobRef{}, errors.New("address, job and token are needed: --url, --id and --token, or CI_SERVER_URL, CI_JOB_ID and CI_JOB_TOKEN")
	}
	s := tranter.Server{URL: url, TLSCert: os.Getenv("CI_SERVER_TLS_CERT_FILE"), TLSKey: os.Getenv("CI_SERVER_TLS_KEY_FILE")}
	if file := os.Getenv("CI_SERVER_TLS_CA_FILE"); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return s, tranter.JobRef{}, fmt.Errorf("read CI_SERVER_TLS_CA_FILE: %w", err)
		}
		s.TLSCA = string(data)
	}
	j.env.Phase.JobID, j.env.Phase.JobToken, j.env.Phase.Server = id, tranter.Secret(token), s
	return s, tranter.JobRef{ID: id, Token: tranter.Secret(token)}, nil
}

// addCacheFlags defines the flags that both commands about caches have.
func addCacheFlags(flags *pflag.FlagSet) {
	flags.String("file", "", "archive on this machine; its name is cache.zip")
	flags.String("url", "", "signed address of the archive in the distributed cache")
	flags.Int("timeout", 10, "longest transfer, in minutes")
	withEnv(flags, "timeout", "CACHE_REQUEST_TIMEOUT")
	for _, name := range []string{"gocloud-url", "env-file"} {
		flags.String(name, "", "accepted; no effect: use --url")
	}
}

// cache makes the entry that the flags of a command about caches name.
func (j *jobSide) cache(flags *pflag.FlagSet) (tranter.CacheEntry, error) {
	file, _ := flags.GetString("file")
	if filepath.Base(file) != "cache.zip" {
		return tranter.CacheEntry{}, fmt.Errorf("--file: expected the path of a file called cache.zip, got %q", file)
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(j.env.Phase.Dirs.Project, file)
	}
	dir := filepath.Dir(file)
	j.env.Phase.Dirs.Cache = filepath.Dir(dir)
	if minutes, _ := flags.GetInt("timeout"); minutes > 0 {
		j.env.Environ = append(j.env.Environ, "CACHE_REQUEST_TIMEOUT="+strconv.Itoa(minutes))
	}
	if url, _ := flags.GetString("gocloud-url"); url != "" {
		j.log.Warning("--gocloud-url is not understood: the cache stays on this machine")
	}
	key := filepath.Base(dir)
	return tranter.CacheEntry{Key: key, Objects: []string{key}}, nil
}

// signedHeader reads headers that are written "Name: value".
func signedHeader(lines []string) (map[string]string, error) {
	header := map[string]string{"Content-Type": "application/octet-stream"}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("--header: expected NAME: VALUE, got %q", line)
		}
		for old := range header {
			if strings.EqualFold(old, name) {
				delete(header, old)
			}
		}
		header[name] = strings.TrimSpace(value)
	}
	return header, nil
}
