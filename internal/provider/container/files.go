package container

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ownFiles are the files of the image that are no programs of Debian's: configuration, and what makes a machine of it.
//
//go:embed machine
var ownFiles embed.FS

// MissingError says which programs of this machine the image of machines lacks.
type MissingError struct {
	Programs []string
	Packages []string // of Debian, that bring them
}

func (e *MissingError) Error() string {
	verb := "is"
	if len(e.Programs) > 1 {
		verb = "are"
	}
	return fmt.Sprintf("the image of machines is made from programs of this machine, and %s %s missing: install the Debian packages %s (apt-get install %s), or set image to one that has all",
		strings.Join(e.Programs, ", "), verb, strings.Join(e.Packages, ", "), strings.Join(e.Packages, " "))
}

// program is one that a machine needs.
type program struct {
	name     string
	from     string // the Debian package
	optional bool
	names    []string // it is called by these too
	path     string   // where it is if it is not in PATH
}

func programs() []program {
	return []program{
		{name: "dockerd", from: "docker.io"},
		{name: "docker-proxy", from: "docker.io"},
		{name: "docker", from: "docker-cli", optional: true},
		{name: "containerd", from: "containerd"},
		{name: "containerd-shim-runc-v2", from: "containerd"},
		{name: "runc", from: "runc"},
		{name: "docker-init", from: "tini"},
		{name: "sshd", from: "openssh-server"},
		{name: "ssh-keygen", from: "openssh-client"},
		{name: "sftp-server", from: "openssh-sftp-server", optional: true, path: "/usr/lib/openssh/sftp-server"},
		{name: "bash", from: "bash", names: []string{"sh"}},
		{name: "ip", from: "iproute2"},
		{name: "ss", from: "iproute2"},
		{name: "xtables-nft-multi", from: "iptables", names: []string{
			"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
			"iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore",
		}},
		{name: "busybox", from: "busybox-static"},
	}
}

// machineFiles returns all files of the image, in the order in which they are written.
func machineFiles() ([]file, error) {
	c := collector{seen: map[string]bool{}}
	c.skeleton()
	if err := c.own(); err != nil {
		return nil, fmt.Errorf("read the files of machines: %w", err)
	}
	if err := c.programs(); err != nil {
		return nil, err
	}
	for _, optional := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/protocols"} {
		_ = c.copy(strings.TrimPrefix(optional, "/"), optional, 0o644)
	}
	return c.files, nil
}

// collector gathers the files of an image.
type collector struct {
	files   []file
	seen    map[string]bool // names in the image
	missing MissingError
}

func (c *collector) add(f file) {
	if !c.seen[f.name] {
		c.seen[f.name] = true
		c.files = append(c.files, f)
	}
}

// copy adds a file of this machine.
func (c *collector) copy(name, from string, mode int64) error {
	info, err := os.Stat(from)
	if err == nil {
		c.add(file{name: name, mode: mode, from: from, size: info.Size()})
	}
	return err
}

// skeleton adds the directories and links that a Linux system has.
func (c *collector) skeleton() {
	for _, name := range []string{
		"dev", "etc", "etc/docker", "etc/ssh", "etc/ssl", "etc/ssl/certs", "home", "media", "mnt", "opt", "proc", "run", "srv", "sys",
		"usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/lib/openssh", "usr/local", "usr/local/bin", "usr/local/sbin",
		"var", "var/lib", "var/lib/docker", "var/log",
	} {
		c.add(file{name: name + "/", mode: 0o755})
	}
	for _, name := range []string{"root", "root/.ssh"} {
		c.add(file{name: name + "/", mode: 0o700})
	}
	for _, name := range []string{"tmp", "var/tmp"} {
		c.add(file{name: name + "/", mode: 0o1777})
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		c.add(file{name: name, link: "usr/" + name})
	}
	c.add(file{name: "var/run", link: "/run"})
	c.add(file{name: "etc/mtab", link: "/proc/self/mounts"})
	for _, name := range []string{"poweroff", "halt", "reboot"} {
		c.add(file{name: "usr/sbin/" + name, link: "shutdown"})
	}
	c.add(file{name: "usr/sbin/nologin", link: "../bin/busybox"})
}

// own adds the files that are embedded in this program.
func (c *collector) own() error {
	return fs.WalkDir(ownFiles, "machine", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := ownFiles.ReadFile(name)
		mode := int64(0o644)
		switch {
		case path.Base(path.Dir(name)) == "sbin":
			mode = 0o755
		case path.Base(name) == "shadow":
			mode = 0o600
		}
		c.add(file{name: strings.TrimPrefix(name, "machine/"), mode: mode, data: data})
		return err
	})
}

// programs adds all programs, and what they need to start.
func (c *collector) programs() error {
	for _, p := range programs() {
		if err := c.program(p); err != nil {
			return err
		}
	}
	if len(c.missing.Programs) > 0 {
		slices.Sort(c.missing.Packages)
		c.missing.Packages = slices.Compact(c.missing.Packages)
		return &c.missing
	}
	return c.plugins()
}

func (c *collector) program(p program) error {
	found, err := p.find()
	if err != nil {
		if !p.optional {
			c.missing.Programs = append(c.missing.Programs, p.name)
			c.missing.Packages = append(c.missing.Packages, p.from)
		}
		return nil
	}
	dir := "usr/bin"
	switch {
	case p.path != "":
		dir = path.Dir(strings.TrimPrefix(p.path, "/"))
	case path.Base(path.Dir(found)) == "sbin":
		dir = "usr/sbin"
	}
	if err := c.copy(dir+"/"+p.name, found, 0o755); err != nil {
		return fmt.Errorf("read %s for the image of machines: %w", p.name, err)
	}
	for _, name := range p.names {
		c.add(file{name: dir + "/" + name, link: p.name})
	}
	libraries, err := needs(found)
	if err != nil {
		return fmt.Errorf("find out what %s needs, for the image of machines: %w", p.name, err)
	}
	if p.name != "busybox" {
		return c.libraries(libraries)
	}
	if len(libraries) > 0 { // it would do, but has other commands
		c.missing.Programs = append(c.missing.Programs, p.name+" (one that needs no libraries)")
		c.missing.Packages = append(c.missing.Packages, p.from)
		return nil
	}
	return c.commands(found)
}

// find returns where this machine has the program. An ordinary user's PATH may lack what is for administrators.
func (p program) find() (string, error) {
	if p.path != "" {
		_, err := os.Stat(p.path)
		return p.path, err
	}
	found, err := exec.LookPath(p.name)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec/docker", "/usr/lib/docker"} {
		if err == nil {
			break
		}
		found, err = exec.LookPath(filepath.Join(dir, p.name))
	}
	return found, err
}

func (c *collector) libraries(found []library) error {
	for _, l := range found {
		c.parents(path.Dir(l.name))
		if err := c.copy(l.name, l.path, 0o755); err != nil {
			return fmt.Errorf("read a library for the image of machines: %w", err)
		}
	}
	return nil
}

// commands links the commands of busybox to it, but for those that the image has from elsewhere, and those that would make
// a package manager, an init or a server appear to be there.
func (c *collector) commands(busybox string) error {
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its commands: %w", busybox, err)
	}
	unwanted := []string{
		"busybox", "ash", "dpkg", "dpkg-deb", "rpm", "rpm2cpio", "init", "linuxrc", "run-init", "switch_root", "httpd", "telnetd",
		"syslogd", "klogd", "acpid", "crond", "udhcpd", "getty", "login", "su", "svc", "svok",
	}
	for name := range strings.FieldsSeq(string(out)) {
		if !slices.Contains(unwanted, name) && !c.seen["usr/sbin/"+name] && !strings.Contains(name, "/") {
			c.add(file{name: "usr/bin/" + name, link: "busybox"})
		}
	}
	return nil
}

// plugins adds the parts that iptables and the C library load while they run.
func (c *collector) plugins() error {
	for _, dir := range libraryDirs() {
		found, err := filepath.Glob(filepath.Join(dir, "xtables", "*.so"))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			continue
		}
		slices.Sort(found)
		target := imagePath(dir) + "/xtables"
		c.parents(target)
		for _, plugin := range found {
			if err := c.copy(target+"/"+filepath.Base(plugin), plugin, 0o644); err != nil {
				return fmt.Errorf("read a part of iptables: %w", err)
			}
			if more, err := needs(plugin); err == nil { // one that lacks a library is one that nobody needs
				if err := c.libraries(more); err != nil {
					return err
				}
			}
		}
		break
	}
	for _, name := range []string{"libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2"} {
		if l, ok := findLibrary(name); ok {
			if err := c.libraries([]library{l}); err != nil {
				return err
			}
		}
	}
	return nil
}

// parents adds the directories above and of name.
func (c *collector) parents(name string) {
	if name == "." || c.seen[name+"/"] {
		return
	}
	c.parents(path.Dir(name))
	c.add(file{name: name + "/", mode: 0o755})
}
