package notice

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"
)

// alibaba is Alibaba Cloud's server. Machines may be set to want tokens, as on AWS; a token is taken where there is one.
type alibaba struct {
	*client
	token string
	renew time.Time
}

const (
	alibabaToken = "/latest/api/token"
	alibabaID    = "/latest/meta-data/instance-id"
	alibabaSpot  = "/latest/meta-data/instance/spot/termination-time"

	alibabaEvery = 30 * time.Second // a spot machine has five minutes
)

func (l *alibaba) every() time.Duration { return alibabaEvery }

func (l *alibaba) here(ctx context.Context) (bool, error) {
	a, err := l.get(ctx, alibabaID)
	return err == nil && a.status == http.StatusOK && bytes.HasPrefix(a.body, []byte("i-")) && word(a.body), err
}

func (l *alibaba) get(ctx context.Context, path string) (answer, error) {
	if now := time.Now(); now.After(l.renew) {
		t, err := l.client.ask(ctx, question{
			method: http.MethodPut, path: alibabaToken,
			header: "X-aliyun-ecs-metadata-token-ttl-seconds", value: "21600",
		})
		if err != nil {
			return answer{}, err
		}
		if l.token = ""; t.status == http.StatusOK && word(t.body) {
			l.token = string(t.body)
		}
		l.renew = now.Add(tokenLife / 2)
	}
	q := question{path: path}
	if l.token != "" {
		q.header, q.value = "X-aliyun-ecs-metadata-token", l.token
	}
	a, err := l.client.ask(ctx, q)
	if a.status == http.StatusUnauthorized || a.status == http.StatusForbidden {
		l.renew = time.Time{} // the next question fetches a new one
	}
	return a, err
}

func (l *alibaba) ask(ctx context.Context) (Notice, bool, error) {
	a, err := l.get(ctx, alibabaSpot)
	switch {
	case err != nil:
		return Notice{}, false, err
	case a.status == http.StatusNotFound:
		return Notice{}, false, nil
	case a.status != http.StatusOK:
		return Notice{}, false, unexpected(alibabaSpot, a.status)
	}
	return parseAlibaba(a.body)
}

func parseAlibaba(body []byte) (Notice, bool, error) {
	at, err := time.Parse(time.RFC3339, string(bytes.TrimSpace(body)))
	if err != nil {
		return Notice{}, false, errors.New("understand the spot machine's notice: it is no time")
	}
	return Notice{Reason: "the cloud takes the spot machine back", At: at}, true, nil
}
