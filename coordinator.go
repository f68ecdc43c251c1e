package tranter

import (
	"context"
	"errors"
	"io"
	"time"
)

// JobRef names a job to its coordinator.
type JobRef struct {
	ID    int64  `json:"id"`
	Token Secret `json:"token"`
	Debug bool   `json:"debug,omitempty"` // the log may hold secrets: CI_DEBUG_TRACE or CI_DEBUG_SERVICES is on
}

// Coordinator is where jobs come from and results go, for one runner. All methods are safe for concurrent use and end
// when their context does. Retries of passing faults happen inside.
type Coordinator interface {
	// Request asks for one job. No job is (nil, nil). ErrForbidden means that the token is not valid (any more), an
	// UnavailableError that the coordinator wants to be left alone for a while.
	Request(ctx context.Context, r Request) (*Job, error)
	// Append sends log bytes that start at offset. The answer names the offset to go on from, which may lie before
	// or after the end of what was sent: the coordinator's count holds.
	Append(ctx context.Context, job JobRef, offset int64, log []byte) (Answer, error)
	// Update reports the job's state. It may be repeated.
	Update(ctx context.Context, job JobRef, u Update) (Answer, error)
	// Upload sends an artifact. Body is called for each try and gives the whole artifact each time; a try may be sent
	// nothing else, so that the bytes need not be those of the one before.
	Upload(ctx context.Context, job JobRef, a ArtifactUpload) error
	// Download streams the artifacts archive of job; its Token is the one to present.
	Download(ctx context.Context, job JobRef) (io.ReadCloser, error)
}

// Request is what a runner tells when it asks for a job.
type Request struct {
	Executor string
	Shell    string
	Features Features
	Labels   map[string]string
	GPUs     string
	// NoHold asks for an answer at once where a coordinator would hold the request until there is a job: other
	// runners wait for the place that the request takes.
	NoHold bool
	// Access is how the coordinator can reach a terminal of the job that it hands out; nil: there is none.
	Access *Access
	// Unclaimed is called with a job that arrived after ctx had ended; nil: Request reports it failed by itself.
	Unclaimed func(*Job)
}

// Features is what a runner promises to handle (runner contract, section 1.5): set a field only for what works.
type Features struct {
	Variables               bool `json:"variables"`
	Image                   bool `json:"image"`
	Services                bool `json:"services"`
	Artifacts               bool `json:"artifacts"`
	Cache                   bool `json:"cache"`
	FallbackCacheKeys       bool `json:"fallback_cache_keys"`
	Shared                  bool `json:"shared"`
	UploadMultipleArtifacts bool `json:"upload_multiple_artifacts"`
	UploadRawArtifacts      bool `json:"upload_raw_artifacts"`
	Session                 bool `json:"session"`
	Terminal                bool `json:"terminal"`
	Refspecs                bool `json:"refspecs"`
	Masking                 bool `json:"masking"`
	Proxy                   bool `json:"proxy"`
	RawVariables            bool `json:"raw_variables"`
	ArtifactsExclude        bool `json:"artifacts_exclude"`
	MultiBuildSteps         bool `json:"multi_build_steps"`
	TraceReset              bool `json:"trace_reset"`
	TraceChecksum           bool `json:"trace_checksum"`
	TraceSize               bool `json:"trace_size"`
	VaultSecrets            bool `json:"vault_secrets"`
	Cancelable              bool `json:"cancelable"`
	ReturnExitCode          bool `json:"return_exit_code"`
	ServiceVariables        bool `json:"service_variables"`
	ServiceMultipleAliases  bool `json:"service_multiple_aliases"`
	ImageExecutorOpts       bool `json:"image_executor_opts"`
	ServiceExecutorOpts     bool `json:"service_executor_opts"`
	CancelGracefully        bool `json:"cancel_gracefully"`
	NativeStepsIntegration  bool `json:"native_steps_integration"`
	TwoPhaseJobCommit       bool `json:"two_phase_job_commit"`
	JobInputs               bool `json:"job_inputs"`
}

// Update is a report of a job's state. Checksum is "crc32:" and 8 hex digits over the log; empty: not known yet.
type Update struct {
	State    JobState
	Reason   FailureReason
	ExitCode int
	Checksum string
	LogBytes int64
}

// Stop says whether a coordinator wants a job to end.
type Stop int

// The ways in which a coordinator ends a job.
const (
	StopNone   Stop = iota
	StopCancel      // gracefully: after_script still runs
	StopAbort       // at once: the job is no longer ours
)

// Verdict is what a coordinator makes of a call about a job.
type Verdict int

// The verdicts.
const (
	Accepted Verdict = iota
	NotYet           // ask again (status 202 to a final update)
	Resend           // the log did not arrive whole: send it again from offset 0 (status 412)
	Gone             // the job is not ours any more
)

// Answer is a coordinator's answer to Append and Update.
type Answer struct {
	Verdict  Verdict
	Next     int64 // Append: the offset to go on from
	Stop     Stop
	Interval time.Duration // how long to wait before the next report; 0: unchanged
}

// ArtifactUpload is one artifact on its way to the coordinator. The strings are passed through.
type ArtifactUpload struct {
	Filename string
	Type     string
	Format   string // empty: zip, and not sent
	ExpireIn string
	Body     func() (io.ReadCloser, error)
	// Answered is told each answer of the coordinator, with the beginning of its body; nil: nobody wants to know.
	Answered func(status string, header map[string][]string, body []byte)

	Timeout, HeaderTimeout time.Duration // 0: one hour and ten minutes
}

// UnavailableError means that a coordinator can't answer now.
type UnavailableError struct {
	RetryAfter time.Duration // how long it asks to be left alone; 0: it does not say
	Err        error
}

func (e *UnavailableError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Errors that callers of a Coordinator decide on.
var (
	ErrForbidden = errors.New("forbidden: the token is not valid, or the runner was removed")
	ErrNotFound  = errors.New("not found")
	ErrTooLarge  = errors.New("too large: over the server's maximum size")
)
