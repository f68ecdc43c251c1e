package plugin

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// prefix begins the name of each driver's program (docker-machine, section 1.1).
const prefix = "docker-machine-driver-"

// Program is the program of a driver.
type Program struct {
	Name string // of the driver
	Path string
}

// Find looks for the program of a driver, which is given by its name or by the path of its program. A driver that is built into
// docker-machine is served by that, or by rancher-machine, if one is installed.
func Find(driver string, environment []string) (Program, error) {
	if strings.ContainsRune(driver, '/') || strings.ContainsRune(driver, filepath.Separator) {
		path, err := exec.LookPath(driver)
		if err != nil {
			return Program{}, fmt.Errorf("the driver's program %s can't be run: %w", driver, err)
		}
		return Program{Name: Name(path), Path: path}, nil
	}
	if !validName(driver) {
		return Program{}, fmt.Errorf("%q can't be a driver's name: it has letters, digits, dashes, dots and underscores only", driver)
	}
	dirs := searchPath(environment)
	if path, ok := look(dirs, prefix+driver); ok {
		return Program{Name: driver, Path: path}, nil
	}
	if !slices.Contains(core(), driver) {
		return Program{}, fmt.Errorf("driver %s is not installed: no program %s%s in PATH (%s); give its path where it lies elsewhere",
			driver, prefix, driver, strings.Join(dirs, string(filepath.ListSeparator)))
	}
	for _, host := range []string{"docker-machine", "rancher-machine"} {
		if path, ok := look(dirs, host); ok {
			return Program{Name: driver, Path: path}, nil
		}
	}
	return Program{}, fmt.Errorf("driver %s is built into docker-machine, and neither that nor rancher-machine nor a program %s%s is in PATH (%s)",
		driver, prefix, driver, strings.Join(dirs, string(filepath.ListSeparator)))
}

// Name returns the name of a driver that may be given by the path of its program.
func Name(driver string) string {
	name := strings.TrimPrefix(filepath.Base(driver), prefix)
	if runtime.GOOS == "windows" {
		name = strings.TrimSuffix(name, ".exe")
	}
	return name
}

// core returns the drivers that are built into docker-machine.
func core() []string {
	return []string{
		"amazonec2", "azure", "digitalocean", "exoscale", "generic", "google", "hyperv", "none", "openstack", "rackspace",
		"softlayer", "virtualbox", "vmwarefusion", "vmwarevcloudair", "vmwarevsphere",
	}
}

func validName(name string) bool {
	return name != "" && name[0] != '-' && name[0] != '.' && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}

// searchPath returns the folders of PATH, as the last that sets it has it.
func searchPath(environment []string) []string {
	for _, e := range slices.Backward(environment) {
		name, value, _ := strings.Cut(e, "=")
		if name == "PATH" || runtime.GOOS == "windows" && strings.EqualFold(name, "PATH") {
			return filepath.SplitList(value)
		}
	}
	return nil
}

func look(dirs []string, program string) (string, bool) {
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			continue // what lies where we happen to stand is not installed
		}
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, true
		}
	}
	return "", false
}
