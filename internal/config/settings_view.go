package config

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Web is [web].
type Web struct {
	Address       string         `toml:"address" example:"address = \"127.0.0.1:9253\"" about:"Address of the web page; empty: none. Without a host it is on loopback only. The flag --web wins. Read at start only."`
	Token         tranter.Secret `toml:"token" about:"Token that actions on the page, and /debug/pprof, need. Without one the manager makes one, in web-token in the state directory."`
	TokenFile     string         `toml:"token_file" about:"File that holds the token."`
	ReadToken     tranter.Secret `toml:"read_token" about:"Token that reading needs; empty: anybody who reaches the address may read."`
	ReadTokenFile string         `toml:"read_token_file" about:"File that holds the token for reading."`
	CertFile      string         `toml:"cert_file" about:"Certificate for TLS, PEM; read anew when it changes."`
	KeyFile       string         `toml:"key_file" about:"Its key."`
}

// History is [history].
type History struct {
	KeepJobs   time.Duration `toml:"keep_jobs" default:"9600h" min:"0" about:"How long what is known of jobs, machines and their cost is kept after their end; 0: for ever."`
	KeepEvents time.Duration `toml:"keep_events" default:"720h" min:"0" about:"How long events are kept; 0: for ever."`
	KeepLogs   time.Duration `toml:"keep_logs" default:"168h" min:"0" about:"How long the logs of jobs are kept on this host after their end; 0: they are not kept."`
	MaxLogsMiB int           `toml:"max_logs_mib" default:"2048" min:"0" about:"Room for the logs of ended jobs; the oldest go first, and sooner while less than twice min_free_mib of [disk_guard] is free on their disk. 0: they are not kept."`
}

// Cost is [cost].
type Cost struct {
	Currency string       `toml:"currency" default:"EUR" about:"Currency of all prices, as it is shown."`
	Prices   []Price      `toml:"price" about:"Prices: the first one that fits holds. Without one that fits, price_per_hour of [runners.machine] does."`
	Factors  []CostFactor `toml:"factor" about:"Cost factors: how many minutes of a job's time are charged; the first one that fits holds. 1 without one."`
}

// Price is [[cost.price]].
type Price struct {
	Runner    string        `toml:"runner" about:"Name or short token of the runner, with * and ?; empty: any."`
	Set       string        `toml:"set" about:"Option set of the machine, with * and ?; empty: any."`
	PerHour   float64       `toml:"per_hour" min:"0" about:"Price of an hour of a machine."`
	PerSecond float64       `toml:"per_second" min:"0" about:"Price of a second of a machine, in place of per_hour."`
	Minimum   time.Duration `toml:"minimum" min:"0" about:"A machine costs at least as much as for this time."`
	Step      time.Duration `toml:"step" min:"0" about:"A machine is paid in whole multiples of this time; 0: by the second."`
	CPUHour   float64       `toml:"cpu_hour" min:"0" about:"Price of an hour of one processor that a batch job holds."`
	GPUHour   float64       `toml:"gpu_hour" min:"0" about:"Price of an hour of one GPU that a batch job holds."`
}

// CostFactor is [[cost.factor]].
type CostFactor struct {
	Runner     string  `toml:"runner" about:"Name or short token of the runner, with * and ?; empty: any."`
	Visibility string  `toml:"visibility" enum:",private,internal,public" about:"Visibility of the project; empty: any."`
	Factor     float64 `toml:"factor" default:"1" min:"0" about:"Minutes charged for a minute of a job."`
}

// Tracing is [tracing].
type Tracing struct {
	Endpoint    string                    `toml:"endpoint" example:"endpoint = \"http://127.0.0.1:4318\"" about:"Where traces of jobs are sent by OTLP over HTTP; empty: nowhere."`
	Headers     map[string]tranter.Secret `toml:"headers" about:"Headers of each request, such as authorization."`
	ServiceName string                    `toml:"service_name" default:"tranter" about:"Name of the service in the traces."`
	Sample      float64                   `toml:"sample" default:"1" min:"0" about:"Share of the jobs that are traced, 0 to 1."`
	CAFile      string                    `toml:"ca_file" about:"Certificate authorities of the endpoint, PEM; the system's unless given."`
}
