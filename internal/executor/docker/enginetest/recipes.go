package enginetest

import (
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// recipe says what an image is made of.
type recipe struct {
	base    string    // "busybox", "" (nothing) or a file system of packages
	files   []entry   // on top of it
	run     runConfig // how a container runs it
	foreign bool      // for another architecture
	from    packages  // of the base "packages"
}

// runConfig is the part of an image's configuration that says how it runs. Its names are those of the image format.
type runConfig struct {
	User         string              `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
}

const (
	path        = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userID      = 1000
	passwd      = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group       = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"
	servicePort = "8080/tcp"
)

func ports(names ...string) map[string]struct{} {
	set := map[string]struct{}{}
	for _, name := range names {
		set[name] = struct{}{}
	}
	return set
}

func program(name, content string) entry { return entry{name: name, mode: 0o755, data: content} }

// recipes returns every test image by name. See the comments for what each is good for.
func recipes() map[string]recipe {
	all := map[string]recipe{
		// A small shell and its tools, no bash, no git; root, and a user 1000 called "user".
		"busybox": {base: "busybox", run: runConfig{Cmd: []string{"sh"}}},
		// A program and nothing else: /bin/true, /bin/sleep, /bin/echo.
		"noshell": {base: "", run: runConfig{Cmd: []string{"/bin/true"}}},
		"user":    {base: "busybox", run: runConfig{User: "1000", Cmd: []string{"sh"}, WorkingDir: "/home/user"}},
		"named":   {base: "busybox", run: runConfig{User: "user:user", Cmd: []string{"sh"}}},
		// It has a file system of a foreign processor and a shell that cannot run here.
		"arm64": {foreign: true, run: runConfig{Cmd: []string{"sh"}}, files: []entry{{name: "bin/", mode: 0o755}, program("bin/sh", foreignProgram())}},
		// Environment, working directory and an anonymous volume of the image's own.
		"settings": {
			base: "busybox", run: runConfig{Env: []string{"FROM_IMAGE=yes"}, WorkingDir: "/srv/image", Volumes: ports("/data"), Cmd: []string{"sh"}},
			files: []entry{{name: "data/", mode: 0o755}, {name: "data/seed", mode: 0o644, data: "seed\n"}},
		},
	}
	maps.Copy(all, entrypoints())
	maps.Copy(all, services())
	maps.Copy(all, large())
	return all
}

// entrypoints are images whose ENTRYPOINT does something before, or instead of, the command that it is given.
func entrypoints() map[string]recipe {
	script := func(body string) recipe {
		return recipe{base: "busybox", files: []entry{program("entrypoint", "#!/bin/sh\n"+body)}, run: runConfig{Entrypoint: []string{"/entrypoint"}, Cmd: []string{"sh"}}}
	}
	all := map[string]recipe{
		"entrypoint-exec":  script("export FOO=bar\necho 'hello from the entrypoint'\nexec \"$@\"\n"),
		"entrypoint-stuck": script("echo 'waiting for ever'\nexec sleep 1000000\n"),
		"entrypoint-exit":  script("echo 'no licence' >&2\nexit 3\n"),
		"entrypoint-child": script("\"$@\"\nstatus=$?\necho \"the command has ended: $status\"\nexit $status\n"),
		"entrypoint-su":    script("exec su -m -s /bin/sh user -c 'exec \"$0\" \"$@\"' \"$@\"\n"),
		"entrypoint-env":   script("[ -n \"$WANTED\" ] || { echo 'WANTED is not set' >&2; exit 4; }\nexport GOT=\"$WANTED\"\nexec \"$@\"\n"),
		"entrypoint-shc":   {base: "busybox", run: runConfig{Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"sh"}}},
		"entrypoint-gone":  {base: "busybox", run: runConfig{Entrypoint: []string{"/no/such/program"}}},
	}
	all["entrypoint"] = all["entrypoint-exec"]
	user := script("export FOO=bar\nexec \"$@\"\n")
	user.run.User = "1000"
	all["entrypoint-user"] = user
	return all
}

// services are images that listen on a port, or fail to. The reply on port 8080 is "hello $GREETING".
func services() map[string]recipe {
	const serve = "#!/bin/sh\n[ -z \"$DELAY\" ] || sleep \"$DELAY\"\nmkdir -p /tmp/www\n" +
		"echo \"hello ${GREETING:-nobody}\" >/tmp/www/index.html\necho \"serving on ${PORT:-8080}\"\nexec httpd -f -p \"${PORT:-8080}\" -h /tmp/www\n"
	service := func(r runConfig, script string) recipe {
		r.Cmd = []string{"/serve"}
		return recipe{base: "busybox", run: r, files: []entry{program("serve", script)}}
	}
	exposed := runConfig{ExposedPorts: ports(servicePort)}
	return map[string]recipe{
		"ports":           service(exposed, serve),
		"service-slow":    service(runConfig{ExposedPorts: ports(servicePort), Env: []string{"DELAY=3"}}, serve),
		"service-broken":  service(exposed, "#!/bin/sh\necho 'the database is corrupt' >&2\nexit 7\n"),
		"service-deaf":    service(exposed, "#!/bin/sh\necho 'started, but not listening'\nexec sleep 1000000\n"),
		"service-several": service(runConfig{ExposedPorts: ports(servicePort, "9090/tcp", "53/udp")}, serve),
		"service-chatty":  service(exposed, "#!/bin/sh\nfor i in $(seq 1 500); do echo \"line $i of the service\"; done\nexec httpd -f -p 8080 -h /tmp\n"),
		"noports":         service(runConfig{}, serve),
	}
}

// large are images of Debian packages.
func large() map[string]recipe {
	of := func(p packages, r runConfig, files ...entry) recipe {
		return recipe{base: "packages", from: p, run: r, files: files}
	}
	account := []entry{
		{name: "etc/passwd", mode: 0o644, data: passwd},
		{name: "etc/group", mode: 0o644, data: group},
		{name: "home/user/", mode: 0o755, owner: userID},
	}
	engine := runConfig{
		Env: []string{"DOCKER_TLS_CERTDIR=/certs"}, Entrypoint: []string{"dockerd-entrypoint"},
		ExposedPorts: ports("2375/tcp", "2376/tcp"), Volumes: ports("/var/lib/docker"),
	}
	return map[string]recipe{
		"helper":    of(debian(), runConfig{Cmd: []string{"/bin/bash"}}),
		"debian":    of(debian(), runConfig{Cmd: []string{"bash"}}, account...),
		"dind":      of(dockerEngine(), engine, append(engineTools(), program("usr/local/bin/dockerd-entrypoint", engineEntrypoint))...),
		"dockercli": of(dockerEngine(), runConfig{Cmd: []string{"sh"}}, engineTools()...),
		"mirror": of(dockerRegistry(), runConfig{
			Entrypoint: []string{"/entrypoint.sh"}, Cmd: []string{"/etc/docker/registry/config.yml"},
			ExposedPorts: ports("5000/tcp"), Volumes: ports("/var/lib/registry"),
		}, append(shellTools(), program("entrypoint.sh", registryEntrypoint),
			entry{name: "etc/docker/registry/config.yml", mode: 0o644, data: registryConfig})...),
	}
}

// shellTools are the commands of busybox for images of packages that have no shell of their own.
func shellTools() []entry {
	var all []entry
	for name := range strings.FieldsSeq("sh cat echo env grep hostname id ln ls mkdir mount ps rm sed sleep test true umount wget chmod cp mv head tail date") {
		all = append(all, entry{name: "usr/local/bin/" + name, link: "/bin/busybox"})
	}
	return append(all, entry{name: "usr/bin/sh", link: "/bin/busybox"})
}

func engineTools() []entry {
	links := map[string]string{
		"docker-init": "/usr/bin/tini-static", "iptables": "/usr/sbin/xtables-nft-multi", "ip6tables": "/usr/sbin/xtables-nft-multi",
		"iptables-save": "/usr/sbin/xtables-nft-multi", "iptables-restore": "/usr/sbin/xtables-nft-multi",
	}
	all := shellTools()
	for name, target := range links {
		all = append(all, entry{name: "usr/local/sbin/" + name, link: target})
	}
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.name, b.name) }) // maps have no order, images do
	return all
}

// busyboxFiles is the content of the "busybox" image: the machine's own static busybox.
func busyboxFiles(t testing.TB) []entry {
	t.Helper()
	binary := staticBusybox(t)
	out, err := exec.CommandContext(t.Context(), "busybox", "--list").Output()
	if err != nil {
		t.Fatalf("list what busybox can do: %v", err)
	}
	files := []entry{
		{name: "bin/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "home/", mode: 0o755},
		{name: "root/", mode: 0o700},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "var/", mode: 0o755},
		{name: "home/user/", mode: 0o755, owner: userID},
		{name: "tmp/", mode: 0o1777},
		{name: "var/tmp/", mode: 0o1777},
		{name: "etc/passwd", mode: 0o644, data: passwd},
		{name: "etc/group", mode: 0o644, data: group},
		program("bin/busybox", binary),
		{name: "usr/bin/env", link: "/bin/busybox"},
	}
	for name := range strings.FieldsSeq(string(out)) {
		if name != "busybox" {
			files = append(files, entry{name: "bin/" + name, link: "busybox"})
		}
	}
	return files
}

// noshellFiles is busybox under names that make it run no shell.
func noshellFiles(t testing.TB) []entry {
	t.Helper()
	return []entry{
		{name: "bin/", mode: 0o755}, program("bin/true", staticBusybox(t)), {name: "bin/sleep", link: "true"}, {name: "bin/echo", link: "true"},
	}
}

func staticBusybox(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("busybox is missing: run tools/setup test: %v", err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Fatalf("%s needs libraries; the tests need Debian's busybox-static", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// foreignProgram is the header of a 64-bit ARM program: enough for a kernel of another kind to refuse it.
func foreignProgram() string {
	header := make([]byte, 64)
	copy(header, elf.ELFMAG)
	header[elf.EI_CLASS], header[elf.EI_DATA], header[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	binary.LittleEndian.PutUint16(header[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(header[18:], uint16(elf.EM_AARCH64))
	binary.LittleEndian.PutUint32(header[20:], uint32(elf.EV_CURRENT))
	binary.LittleEndian.PutUint16(header[52:], 64)
	return string(header)
}
