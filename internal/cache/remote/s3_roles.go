package remote

import (
	"cmp"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// S3Roles says which roles are assumed (runner contract, section 7.8).
type S3Roles struct {
	ARN         string // for both directions
	UploadARN   string // for uploads, in place of ARN
	Concurrency int    // requests at the same time; 0: 5, negative: no limit
	NoCaching   bool
}

const (
	defaultRoleRequests = 5
	maxRoleCredentials  = 1000
	roleDuration        = time.Hour      // what every role grants
	maxRoleDuration     = 12 * time.Hour // what a role can be set to grant
)

// roles gets the credentials of roles, each for one object and one direction.
type roles struct {
	s3     *S3
	opts   S3Roles
	places chan struct{} // nil: no limit

	mu    sync.Mutex
	short map[string]bool // roles that grant no more than roleDuration
	known map[roleKey]*list.Element
	order *list.List // of *roleEntry, the one used last in front
}

type roleKey struct {
	role, object string
	upload       bool
}

type roleEntry struct {
	key   roleKey
	creds aws.Credentials
}

func newRoles(s *S3, o S3Roles) *roles {
	r := &roles{s3: s, opts: o, short: map[string]bool{}, known: map[roleKey]*list.Element{}, order: list.New()}
	if n := cmp.Or(o.Concurrency, defaultRoleRequests); n > 0 {
		r.places = make(chan struct{}, n)
	}
	return r
}

// credentials returns those of the role for an object, or those of the runner if there is no role.
func (r *roles) credentials(ctx context.Context, object string, upload bool, until time.Time) (aws.Credentials, error) {
	role := r.opts.ARN
	if upload && r.opts.UploadARN != "" {
		role = r.opts.UploadARN
	}
	if role == "" {
		return r.s3.base.Retrieve(ctx)
	}
	key := roleKey{role, object, upload}
	if creds, ok := r.cached(key, until); ok {
		return creds, nil
	}
	if r.places != nil {
		select {
		case r.places <- struct{}{}:
			defer func() { <-r.places }()
		case <-ctx.Done():
			return aws.Credentials{}, fmt.Errorf("wait to assume the role: %w", context.Cause(ctx))
		}
	}
	creds, err := r.assume(ctx, key, until)
	if err != nil {
		return aws.Credentials{}, err
	}
	r.keep(key, creds)
	return creds, nil
}

// cached returns credentials that still hold for the job's time, which here is at least a minute and at most 55.
func (r *roles) cached(key roleKey, until time.Time) (aws.Credentials, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.known[key]
	if at == nil {
		return aws.Credentials{}, false
	}
	creds := at.Value.(*roleEntry).creds
	now := r.s3.options.Now()
	if creds.Expires.Sub(now) < min(max(until.Sub(now), time.Minute), 55*time.Minute) {
		return aws.Credentials{}, false
	}
	r.order.MoveToFront(at)
	return creds, true
}

func (r *roles) keep(key roleKey, creds aws.Credentials) {
	if r.opts.NoCaching {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := r.known[key]; at != nil {
		r.order.Remove(at)
	}
	r.known[key] = r.order.PushFront(&roleEntry{key, creds})
	if r.order.Len() > maxRoleCredentials {
		last := r.order.Back()
		delete(r.known, r.order.Remove(last).(*roleEntry).key)
	}
}

// assume asks for a role's credentials for an hour, or for as long as a longer job may take if the role allows that: the
// requests are signed at its start, and hold no longer than the credentials.
func (r *roles) assume(ctx context.Context, key roleKey, until time.Time) (aws.Credentials, error) {
	policy, err := r.policy(key)
	if err != nil {
		return aws.Credentials{}, err
	}
	base, err := r.s3.base.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	ask := assumeRole{role: key.role, session: "tranter-cache", policy: policy, duration: roleDuration}
	r.mu.Lock()
	short := r.short[key.role]
	r.mu.Unlock()
	if longer := (until.Sub(r.s3.options.Now()) + time.Minute - 1).Truncate(time.Minute); longer > roleDuration && !short {
		ask.duration = min(longer, maxRoleDuration)
	}
	creds, err := r.s3.sts.assume(ctx, base, ask)
	if refused, ok := errors.AsType[*callError](err); ok && refused.status == http.StatusBadRequest && ask.duration > roleDuration {
		ask.duration = roleDuration
		if creds, err = r.s3.sts.assume(ctx, base, ask); err == nil {
			r.mu.Lock()
			r.short[key.role] = true
			r.mu.Unlock()
		}
	}
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("assume the role %s: %w", key.role, err)
	}
	return creds, nil
}

type statement struct {
	Effect   string
	Action   []string
	Resource string
}

// policy allows what the credentials are for, and nothing else.
func (r *roles) policy(key roleKey) (string, error) {
	partition := "aws"
	if f := strings.SplitN(key.role, ":", 3); len(f) == 3 {
		partition = f[1]
	}
	// In a policy these three are patterns; an object's name may have them.
	literal := strings.NewReplacer("$", "${$}", "*", "${*}", "?", "${?}").Replace(key.object)
	actions := []string{"s3:GetObject"}
	kms := []string{"kms:Decrypt"}
	if key.upload {
		actions = []string{"s3:PutObject", "s3:AbortMultipartUpload"}
		kms = []string{"kms:Decrypt", "kms:GenerateDataKey"}
	}
	statements := []statement{{"Allow", actions, "arn:" + partition + ":s3:::" + r.s3.options.Bucket + "/" + literal}}
	if e := r.s3.options.Encryption; e.kms() && e.Key != "" {
		statements = append(statements, statement{"Allow", kms, e.Key})
	}
	text, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", statements})
	if err != nil {
		return "", fmt.Errorf("write the policy of a role: %w", err)
	}
	return string(text), nil
}
