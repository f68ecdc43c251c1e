package config

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Custom is [runners.custom] (contract 10.1, 10.5).
type Custom struct {
	ConfigExec          string        `toml:"config_exec" flag:"config-exec" about:"Program that prints settings of a job as JSON."`
	ConfigArgs          []string      `toml:"config_args" flag:"config-args" env:"-" about:"First arguments of config_exec."`
	ConfigExecTimeout   time.Duration `toml:"config_exec_timeout" flag:"config-exec-timeout" unit:"s" default:"3600" zero:"below" about:"Longest run of config_exec."`
	PrepareExec         string        `toml:"prepare_exec" flag:"prepare-exec" about:"Program that prepares the environment."`
	PrepareArgs         []string      `toml:"prepare_args" flag:"prepare-args" env:"-" about:"First arguments of prepare_exec."`
	PrepareExecTimeout  time.Duration `toml:"prepare_exec_timeout" flag:"prepare-exec-timeout" unit:"s" default:"3600" zero:"below" about:"Longest run of prepare_exec."`
	RunExec             string        `toml:"run_exec" flag:"run-exec" example:"run_exec = \"/opt/driver/run.sh\"" about:"Program that runs each script of a job; required."`
	RunArgs             []string      `toml:"run_args" flag:"run-args" env:"-" about:"First arguments of run_exec."`
	CleanupExec         string        `toml:"cleanup_exec" flag:"cleanup-exec" about:"Program that removes the environment."`
	CleanupArgs         []string      `toml:"cleanup_args" flag:"cleanup-args" env:"-" about:"First arguments of cleanup_exec."`
	CleanupExecTimeout  time.Duration `toml:"cleanup_exec_timeout" flag:"cleanup-exec-timeout" unit:"s" default:"3600" zero:"below" about:"Longest run of cleanup_exec."`
	GracefulKillTimeout time.Duration `toml:"graceful_kill_timeout" flag:"graceful-kill-timeout" unit:"s" default:"600" zero:"below" about:"Time between asking a program to end and killing it."`
	ForceKillTimeout    time.Duration `toml:"force_kill_timeout" flag:"force-kill-timeout" unit:"s" default:"10" zero:"below" about:"Time that a killed program gets to be gone."`
}

// SSH is [runners.ssh].
type SSH struct {
	User             string         `toml:"user" flag:"user" about:"User to log in as."`
	Password         tranter.Secret `toml:"password" flag:"password" about:"Password of the user."`
	Host             string         `toml:"host" flag:"host" about:"Host to connect to."`
	Port             string         `toml:"port" flag:"port" default:"22" number:"ok" about:"Port, as a string."`
	IdentityFile     string         `toml:"identity_file" flag:"identity-file" about:"File of the private key."`
	NoStrictHostKeys bool           `toml:"disable_strict_host_key_checking" flag:"disable-strict-host-key-checking" env:"DISABLE_STRICT_HOST_KEY_CHECKING" about:"Accept any host key."`
	KnownHostsFile   string         `toml:"known_hosts_file" flag:"known-hosts-file" env:"KNOWN_HOSTS_FILE" about:"File of known host keys; ~/.ssh/known_hosts unless given."`
}

// Parallels is [runners.parallels].
type Parallels struct {
	BaseName         string   `toml:"base_name" flag:"base-name" about:"Virtual machine that is cloned for jobs."`
	TemplateName     string   `toml:"template_name" flag:"template-name" about:"Template from which clones are made."`
	DisableSnapshots bool     `toml:"disable_snapshots" flag:"disable-snapshots" about:"Make a new clone for each job."`
	TimeServer       string   `toml:"time_server" flag:"time-server" about:"Server from which the machine's clock is set."`
	AllowedImages    []string `toml:"allowed_images" flag:"allowed-images" about:"Patterns of machines that jobs may name as image."`
}

// VirtualBox is [runners.virtualbox].
type VirtualBox struct {
	BaseName         string   `toml:"base_name" flag:"base-name" about:"Virtual machine that is cloned for jobs."`
	BaseSnapshot     string   `toml:"base_snapshot" flag:"base-snapshot" about:"Snapshot from which clones are made."`
	BaseFolder       string   `toml:"base_folder" flag:"base-folder" about:"Folder of the clones."`
	DisableSnapshots bool     `toml:"disable_snapshots" flag:"disable-snapshots" about:"Make a new clone for each job."`
	AllowedImages    []string `toml:"allowed_images" flag:"allowed-images" about:"Patterns of machines that jobs may name as image."`
	StartType        string   `toml:"start_type" flag:"start-type" default:"headless" zero:"default" enum:"headless,gui,sdl,separate" about:"How the machine is started: headless, gui, sdl, separate."`
}
