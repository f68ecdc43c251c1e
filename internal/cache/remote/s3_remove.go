package remote

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// listed is how many objects are named in one answer.
const listed = 500

// RemovePrefix removes all objects below a prefix and returns how many that were. Only whole path elements match: "a" stands
// for "a/b", not for "ab/c". An empty prefix, which would be everything, is an error.
func (s *S3) RemovePrefix(ctx context.Context, prefix string) (int, error) {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return 0, errors.New("a prefix is needed: the whole bucket is not removed")
	}
	prefix += "/"
	region := s.bucketRegion(ctx)
	creds, err := s.base.Retrieve(ctx)
	if err != nil {
		return 0, fmt.Errorf("get credentials for S3: %w", err)
	}
	sc := scope{creds: creds, region: region}
	removed := 0
	for {
		keys, err := s.list(ctx, sc, prefix)
		if err != nil || len(keys) == 0 {
			return removed, err
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				return removed, fmt.Errorf("list the bucket %s: the server names %q, which is not below %s", s.options.Bucket, key, prefix)
			}
			if _, err := s.call(ctx, sc, http.MethodDelete, s.objectURL(key, region), nil); err != nil {
				return removed, fmt.Errorf("remove %s from the bucket %s: %w", key, s.options.Bucket, err)
			}
			removed++
		}
	}
}

// list names the first objects below a prefix.
func (s *S3) list(ctx context.Context, sc scope, prefix string) ([]string, error) {
	target := s.options.Endpoint.bucketURL(s.options.Bucket, sc.region)
	target.RawQuery = strings.ReplaceAll(url.Values{"list-type": {"2"}, "max-keys": {fmt.Sprint(listed)}, "prefix": {prefix}}.Encode(), "+", "%20")
	body, err := s.call(ctx, sc, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("list the bucket %s: %w", s.options.Bucket, err)
	}
	var answer struct {
		Contents []struct {
			Key string `xml:"Key"`
		} `xml:"Contents"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the list of the bucket %s: %w", s.options.Bucket, err)
	}
	var keys []string
	for _, c := range answer.Contents {
		keys = append(keys, c.Key)
	}
	return keys, nil
}
