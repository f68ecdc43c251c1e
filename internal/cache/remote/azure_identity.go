package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	azureResource = "https://storage.azure.com/"
	azureLogin    = "https://login.microsoftonline.com/"
	azureMachine  = "http://169.254.169.254/metadata/identity/oauth2/token"
	// machineTimeout is for a machine's own service, which is not there outside of Azure.
	machineTimeout = 3 * time.Second
	// tokenMargin is how long before its end a token is not used any more.
	tokenMargin = 5 * time.Minute
)

// identity gets tokens for whom the environment names: an application with a secret, a workload identity, or the
// managed identity of the machine, in this order. It is not safe for concurrent use.
type identity struct {
	getenv func(string) string
	read   func(string) ([]byte, error)
	now    func() time.Time
	http   caller

	current string
	ends    time.Time
}

func (i *identity) token(ctx context.Context) (string, error) {
	if i.now().Before(i.ends.Add(-tokenMargin)) {
		return i.current, nil
	}
	body, err := i.ask(ctx)
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"` // a number, or one in quotes
		ExpiresOn   json.RawMessage `json:"expires_on"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return "", errors.New("the answer to the request for a token holds none")
	}
	i.current, i.ends = answer.AccessToken, time.Time{}
	if n, ok := number(answer.ExpiresIn); ok {
		i.ends = i.now().Add(time.Duration(n) * time.Second)
	} else if n, ok := number(answer.ExpiresOn); ok {
		i.ends = time.Unix(n, 0)
	}
	return i.current, nil
}

func number(raw json.RawMessage) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	return n, err == nil
}

func (i *identity) ask(ctx context.Context) ([]byte, error) {
	client, tenant := i.getenv("AZURE_CLIENT_ID"), i.getenv("AZURE_TENANT_ID")
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {client}, "scope": {azureResource + ".default"}}
	if secret := i.getenv("AZURE_CLIENT_SECRET"); secret != "" && client != "" && tenant != "" {
		form.Set("client_secret", secret)
		return i.login(ctx, tenant, form)
	}
	if file := i.getenv("AZURE_FEDERATED_TOKEN_FILE"); file != "" && client != "" && tenant != "" {
		assertion, err := i.read(file)
		if err != nil {
			return nil, fmt.Errorf("read the workload's token: %w", err)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", strings.TrimSpace(string(assertion)))
		return i.login(ctx, tenant, form)
	}
	return i.machine(ctx, client)
}

func (i *identity) login(ctx context.Context, tenant string, form url.Values) ([]byte, error) {
	host := strings.TrimSuffix(cmp.Or(i.getenv("AZURE_AUTHORITY_HOST"), azureLogin), "/")
	text := form.Encode()
	body, err := i.http.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, host+"/"+url.PathEscape(tenant)+"/oauth2/v2.0/token", strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("make the request for a token: %w", err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	})
	if err != nil {
		return nil, fmt.Errorf("log in to Azure: %w", err)
	}
	return body, nil
}

// machine asks the service of the machine, or of the platform that runs this program.
func (i *identity) machine(ctx context.Context, client string) ([]byte, error) {
	query := url.Values{"resource": {azureResource}, "api-version": {"2018-02-01"}}
	endpoint, secret := azureMachine, ""
	if e := i.getenv("IDENTITY_ENDPOINT"); e != "" && i.getenv("IDENTITY_HEADER") != "" {
		endpoint, secret = e, i.getenv("IDENTITY_HEADER")
		query.Set("api-version", "2019-08-01")
	}
	if client != "" {
		query.Set("client_id", client)
	}
	ctx, stop := context.WithTimeout(ctx, machineTimeout)
	defer stop()
	body, err := i.http.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"?"+query.Encode(), nil)
		if err != nil {
			return nil, fmt.Errorf("make the request for a token: %w", err)
		}
		if secret != "" {
			req.Header.Set("X-Identity-Header", secret)
		} else {
			req.Header.Set("Metadata", "true")
		}
		return req, nil
	})
	if err != nil {
		return nil, errors.New("there is no AccountKey, the environment names no identity, and this machine has none")
	}
	return body, nil
}
