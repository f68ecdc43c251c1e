package site

import (
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

// The tables of a site file. Their tags are those of package config: they are what the file is read by, and what says where
// a misplaced key belongs.

// fileTable is a whole file. In it, NAME stands for the name of a runner or shard.
type fileTable struct {
	Runners         runnerTable    `toml:"runners.NAME"`
	Name            string         `toml:"name" about:"Name of the site: the beginning of its runners' descriptions, and the name of what is kept of them."`
	Hostname        string         `toml:"hostname" about:"Name of the GitLab server, which is reached by HTTPS."`
	URL             string         `toml:"url" about:"Address of the GitLab server, in place of hostname."`
	TLSCAFile       string         `toml:"tls_ca_file" about:"File of certificates of authorities that are trusted besides the system's; relative to this file."`
	ManagementToken tranter.Secret `toml:"management_token" about:"Token of a user that manages the runners and sees the jobs."`
	Project         string         `toml:"project"`
	Projects        []string       `toml:"projects"`
	Group           string         `toml:"group"`
	Groups          []string       `toml:"groups"`
	Instance        bool           `toml:"instance"`
	Include         []string       `toml:"include"`
	Poll            pollTable      `toml:"poll"`
	Launch          launchTable    `toml:"launch"`
	Executor        executorTable  `toml:"executor"`
	Runner          config.Runner  `toml:"runner"`
	Batch           config.Batch   `toml:"batch"`
	Manager         config.Config  `toml:"manager"`
}

// topTable is what stands at the top of a file, without the sections that are read for each runner.
type topTable struct {
	Name            string         `toml:"name"`
	Hostname        string         `toml:"hostname"`
	URL             string         `toml:"url"`
	TLSCAFile       string         `toml:"tls_ca_file"`
	ManagementToken tranter.Secret `toml:"management_token"`
	Project         string         `toml:"project"`
	Projects        []string       `toml:"projects"`
	Group           string         `toml:"group"`
	Groups          []string       `toml:"groups"`
	Instance        bool           `toml:"instance"`
	Include         []string       `toml:"include"`
	Poll            pollTable      `toml:"poll"`
}

// pollTable is [poll].
type pollTable struct {
	Interval time.Duration `toml:"interval" unit:"s" default:"30" min:"1"`
	Projects []string      `toml:"projects"`
	Groups   []string      `toml:"groups"`
}

// runnerTable is [runners.NAME], [shards.NAME] and [defaults]: what is of one runner, without the sections in it.
type runnerTable struct {
	Shard           string                `toml:"shard"`
	Tags            []string              `toml:"tags"`
	LaunchPriority  config.Optional[int]  `toml:"launch_priority" min:"0"`
	ConfigVariables map[string]string     `toml:"config_variables"`
	Project         string                `toml:"project"`
	Projects        []string              `toml:"projects"`
	Group           string                `toml:"group"`
	Groups          []string              `toml:"groups"`
	Instance        bool                  `toml:"instance"`
	Description     string                `toml:"description"`
	Paused          config.Optional[bool] `toml:"paused"`
	Locked          config.Optional[bool] `toml:"locked"`
	RunUntagged     config.Optional[bool] `toml:"run_untagged"`
	AccessLevel     string                `toml:"access_level" enum:"not_protected,ref_protected"`
	MaximumTimeout  time.Duration         `toml:"maximum_timeout" min:"0"`
	MaintenanceNote string                `toml:"maintenance_note"`
}

// launchTable is [launch].
type launchTable struct {
	Executable string        `toml:"executable"`
	Args       []string      `toml:"args"`
	Workdir    string        `toml:"workdir"`
	Stdin      string        `toml:"stdin"`
	Timeout    time.Duration `toml:"timeout" unit:"s" min:"0"`
	GroupSize  int           `toml:"group_size" default:"1" min:"1"`
}

// executorTable is [executor].
type executorTable struct {
	BuildsDir           string           `toml:"builds_dir"`
	ImageDir            string           `toml:"image_dir"`
	ImageCacheDir       string           `toml:"image_cache_dir"`
	ImageTmpDir         string           `toml:"image_tmp_dir"`
	PullPolicy          config.OneOrMany `toml:"pull_policy" enum:"always,if-not-present,never"`
	ApptainerExecutable string           `toml:"apptainer_executable"`
	GPUAMD              any              `toml:"gpu_amd"`
	GPUNvidia           any              `toml:"gpu_nvidia"`
	Mount               []string         `toml:"mount"`
	Description         string           `toml:"description"`
}
