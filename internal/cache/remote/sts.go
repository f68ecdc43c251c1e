package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// sts asks Amazon's Security Token Service for credentials. It has the two calls that are needed here; the service's own
// library would add a tenth to the start of the program, which is the agent of each job too.
type sts struct {
	http     caller
	endpoint string // empty: that of the region
	region   func(context.Context) string
	now      func() time.Time
}

type assumeRole struct {
	role, session, policy, externalID string
	webToken                          string // the identity, in place of credentials
	duration                          time.Duration
}

type stsCredentials struct {
	AccessKeyId     string //nolint:revive // the names in the document
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time
}

// assume returns a role's credentials. base signs the request, unless there is a web token.
func (s *sts) assume(ctx context.Context, base aws.Credentials, a assumeRole) (aws.Credentials, error) {
	form := url.Values{
		"Version": {"2011-06-15"}, "Action": {"AssumeRole"}, "RoleArn": {a.role}, "RoleSessionName": {a.session},
		"DurationSeconds": {strconv.Itoa(int(a.duration / time.Second))},
	}
	for k, v := range map[string]string{"Policy": a.policy, "ExternalId": a.externalID, "WebIdentityToken": a.webToken} {
		if v != "" {
			form.Set(k, v)
		}
	}
	if a.webToken != "" {
		form.Set("Action", "AssumeRoleWithWebIdentity")
	}
	region := s.region(ctx)
	endpoint := s.endpoint
	if endpoint == "" {
		endpoint = "https://sts." + region + "." + awsDomain(region)
	}
	text := form.Encode()
	sum := sha256.Sum256([]byte(text))
	body, err := s.http.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(endpoint, "/")+"/", strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("make a request to STS: %w", err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if a.webToken != "" {
			return req, nil
		}
		return req, v4.NewSigner().SignHTTP(ctx, base, req, hex.EncodeToString(sum[:]), "sts", region, s.now())
	})
	if err != nil {
		return aws.Credentials{}, err
	}
	return parseCredentials(body)
}

func parseCredentials(body []byte) (aws.Credentials, error) {
	var answer struct {
		Role stsResult `xml:"AssumeRoleResult"`
		Web  stsResult `xml:"AssumeRoleWithWebIdentityResult"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return aws.Credentials{}, fmt.Errorf("read the answer of STS: %w", err)
	}
	c := answer.Role.Credentials
	if c.AccessKeyId == "" {
		c = answer.Web.Credentials
	}
	if c.AccessKeyId == "" || c.SecretAccessKey == "" {
		return aws.Credentials{}, errors.New("the answer of STS has no credentials")
	}
	return aws.Credentials{
		AccessKeyID: c.AccessKeyId, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Source: "STS", CanExpire: true, Expires: c.Expiration,
	}, nil
}

type stsResult struct{ Credentials stsCredentials }
