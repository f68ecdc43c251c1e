package provision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
)

// Options of dockerd whose name in daemon.json differs from that on its command line, and those that are lists there.
const (
	renamedOptions = " graph:data-root g:data-root s:storage-driver H:host l:log-level "
	listOptions    = " allow-nondistributable-artifacts:allow-nondistributable-artifacts authorization-plugin:authorization-plugins" +
		" dns:dns dns-opt:dns-opts dns-option:dns-opts dns-search:dns-search exec-opt:exec-opts insecure-registry:insecure-registries" +
		" label:labels node-generic-resource:node-generic-resources registry-mirror:registry-mirrors storage-opt:storage-opts "
	numberOptions = " mtu max-concurrent-downloads max-concurrent-uploads max-download-attempts shutdown-timeout" +
		" network-control-plane-mtu oom-score-adjust default-shm-size-bytes "
	ourOptions = " host hosts tls tlsverify tlscacert tlscert tlskey config-file pidfile "
)

// named returns what a table says of a name: what is after NAME:.
func named(table, name string) (string, bool) {
	_, rest, found := strings.Cut(table, " "+name+":")
	if !found {
		return "", false
	}
	value, _, _ := strings.Cut(rest, " ")
	return value, true
}

func listed(table, name string) bool { return strings.Contains(table, " "+name+" ") }

// daemon returns what is to be in daemon.json, without what TLS needs.
func (e EngineSettings) daemon() (map[string]any, error) {
	d := map[string]any{}
	var errs []error
	for _, option := range e.Options {
		name, value, given := strings.Cut(option, "=")
		name = strings.TrimLeft(name, "-")
		if !given {
			value = "true"
		}
		if err := setOption(d, name, value); err != nil {
			errs = append(errs, err)
		}
	}
	for key, list := range map[string][]string{"registry-mirrors": e.Mirrors, "insecure-registries": e.Insecure, "labels": e.Labels} {
		for _, value := range list {
			appendTo(d, key, value)
		}
	}
	if e.StorageDriver != "" {
		d["storage-driver"] = e.StorageDriver
	}
	return d, errors.Join(errs...)
}

func appendTo(d map[string]any, key, value string) {
	list, _ := d[key].([]any)
	d[key] = append(list, value)
}

// setOption sets what an option of dockerd's command line means in daemon.json. (Both must not be given at once, and the
// command line belongs to the distribution.)
func setOption(d map[string]any, name, value string) error {
	if other, found := named(renamedOptions, name); found {
		name = other
	}
	switch {
	case name == "" || strings.ContainsAny(name, " :\"'"):
		return fmt.Errorf("engine.options has %q, which is not NAME=VALUE", name)
	case listed(ourOptions, name):
		return fmt.Errorf("engine.options has %s, which is set by engine.access: take it out", name)
	}
	if key, found := named(listOptions, name); found {
		appendTo(d, key, value)
		return nil
	}
	switch name {
	case "log-opt", "default-ulimit", "default-address-pool", "add-runtime":
		return setComposed(d, name, value)
	}
	if listed(numberOptions, name) {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("engine.options has %s=%s, which must be a number", name, value)
		}
		d[name] = n
		return nil
	}
	d[name] = value
	if value == "true" || value == "false" {
		d[name] = value == "true"
	}
	return nil
}

// setComposed sets those options whose form in daemon.json is another.
func setComposed(d map[string]any, name, value string) error {
	key, rest, found := strings.Cut(value, "=")
	if !found || key == "" {
		return fmt.Errorf("engine.options has %s=%s, which must be %s=NAME=VALUE", name, value, name)
	}
	switch name {
	case "log-opt":
		into(d, "log-opts")[key] = rest
	case "add-runtime":
		into(d, "runtimes")[key] = map[string]any{"path": rest}
	case "default-ulimit":
		soft, hard, two := strings.Cut(rest, ":")
		if !two {
			hard = soft
		}
		low, err := strconv.ParseInt(soft, 10, 64)
		high, err2 := strconv.ParseInt(hard, 10, 64)
		if err != nil || err2 != nil {
			return fmt.Errorf("engine.options has default-ulimit=%s, which must be NAME=SOFT[:HARD]", value)
		}
		into(d, "default-ulimits")[key] = map[string]any{"Name": key, "Soft": low, "Hard": high}
	case "default-address-pool":
		return setAddressPool(d, value)
	}
	return nil
}

func setAddressPool(d map[string]any, value string) error {
	pool := map[string]any{}
	for part := range strings.SplitSeq(value, ",") {
		switch key, text, _ := strings.Cut(part, "="); key {
		case "base":
			pool["base"] = text
		case "size":
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("engine.options has default-address-pool=%s, whose size must be a number", value)
			}
			pool["size"] = n
		default:
			return fmt.Errorf("engine.options has default-address-pool=%s, which must be base=NETWORK,size=BITS", value)
		}
	}
	list, _ := d["default-address-pools"].([]any)
	d["default-address-pools"] = append(list, pool)
	return nil
}

func into(d map[string]any, key string) map[string]any {
	if m, ok := d[key].(map[string]any); ok {
		return m
	}
	m := map[string]any{}
	d[key] = m
	return m
}

// listen adds what the engine needs to listen for us, where its own command line does not say.
func listen(d map[string]any, socket string, port int) map[string]any {
	all := map[string]any{
		"hosts":     []any{"unix://" + socket, "tcp://0.0.0.0:" + strconv.Itoa(port)},
		"tlsverify": true, "tlscacert": caFile, "tlscert": certFile, "tlskey": keyFile,
	}
	maps.Copy(all, d)
	return all
}

// Where the engine finds its certificates; docker-machine has them there too.
const (
	caFile   = "/etc/docker/ca.pem"
	certFile = "/etc/docker/server.pem"
	keyFile  = "/etc/docker/server-key.pem"
)

// render returns a daemon.json, empty if nothing is wanted.
func render(d map[string]any) (string, error) {
	if len(d) == 0 {
		return "", nil
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	return string(text), nil
}

// merge sets what is wanted in a machine's daemon.json. The answer is one line of JSON, or "same" if all was so already.
// Keys that are not wanted keep their value.
func merge(existing []byte, wanted map[string]any) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(existing))
	decoder.UseNumber()
	var have map[string]any
	if err := decoder.Decode(&have); err != nil || have == nil {
		return "", errors.New("it is not a JSON object")
	}
	if decoder.More() {
		return "", errors.New("it is more than one JSON object")
	}
	text, err := json.Marshal(wanted)
	if err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	decoder = json.NewDecoder(bytes.NewReader(text)) // so that both have the same types
	decoder.UseNumber()
	var want map[string]any
	if err := decoder.Decode(&want); err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	same := true
	for key, value := range want {
		if !reflect.DeepEqual(have[key], value) {
			have[key], same = value, false
		}
	}
	if same {
		return "same", nil
	}
	if text, err = json.Marshal(have); err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	return string(text), nil
}
