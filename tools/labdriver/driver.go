package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/machine/libmachine/drivers"
	"github.com/docker/machine/libmachine/log"
	"github.com/docker/machine/libmachine/mcnflag"
	"github.com/docker/machine/libmachine/state"
	"golang.org/x/crypto/ssh"
)

// driver is one machine. As with real drivers, what only Create needs is not in the JSON.
type driver struct {
	*drivers.BaseDriver
	Token        string // a secret in the state, as real drivers have
	Image        string
	Network      string
	ContainerID  string
	Local        bool   // the machine is the host itself
	WrongAddress string // that it claims
	RemoveByID   bool   // forget machines whose id is not known, as several drivers do
	LateAnswer   int    // seconds before each answer on the machine

	control string
	wanted  settings
}

// settings are what only Create needs.
type settings struct {
	delay, size, failPercent          int
	failText, userData, command       string
	hang, die, longLine, late, idLate bool
	tags                              []string
}

func (d *driver) DriverName() string { return "lab" }

func (d *driver) GetCreateFlags() []mcnflag.Flag {
	return []mcnflag.Flag{
		mcnflag.StringFlag{Name: "lab-token", Usage: "any text; it is required", EnvVar: "LAB_TOKEN"},
		mcnflag.StringFlag{Name: "lab-image", Usage: "image of the machines", EnvVar: "LAB_IMAGE"},
		mcnflag.StringFlag{Name: "lab-network", Usage: "network of the machines", Value: "bridge"},
		mcnflag.StringFlag{Name: "lab-command", Usage: "command for a shell, in place of the image's own"},
		mcnflag.StringFlag{Name: "lab-user-data", Usage: "file with a script that the machine runs when it boots"},
		mcnflag.StringSliceFlag{Name: "lab-tag", Usage: "NAME=VALUE, a label of the machine", EnvVar: "LAB_TAGS"},
		mcnflag.IntFlag{Name: "lab-size", Usage: "number of processors", Value: 0},
		mcnflag.IntFlag{Name: "lab-create-delay", Usage: "seconds that creation takes at least"},
		mcnflag.IntFlag{Name: "lab-fail", Usage: "per cent of creations that fail"},
		mcnflag.StringFlag{Name: "lab-fail-text", Usage: "what they say", Value: "lab: the server could not be created"},
		mcnflag.BoolFlag{Name: "lab-fail-late", Usage: "they fail once the machine is there"},
		mcnflag.BoolFlag{Name: "lab-hang", Usage: "creation never ends"},
		mcnflag.BoolFlag{Name: "lab-die-during-create", Usage: "the driver's process ends when the machine is there"},
		mcnflag.IntFlag{Name: "lab-late-answer", Usage: "seconds before each answer on the machine"},
		mcnflag.BoolFlag{Name: "lab-long-line", Usage: "print lines of 200 KiB while creating"},
		mcnflag.BoolFlag{Name: "lab-id-late", Usage: "tell the machine's id when creation ends, not before"},
		mcnflag.BoolFlag{Name: "lab-remove-by-id", Usage: "remove nothing, with success, while the id is not known"},
		mcnflag.StringFlag{Name: "lab-wrong-address", Usage: "address that the machine is said to have"},
		mcnflag.BoolFlag{Name: "lab-local-engine", Usage: "the machine is this host: nothing is created"},
		mcnflag.StringFlag{Name: "lab-ssh-user", Usage: "user to log in as", Value: "root"},
		mcnflag.IntFlag{Name: "lab-ssh-port", Usage: "port to log in at", Value: drivers.DefaultSSHPort},
		mcnflag.StringFlag{Name: "lab-ssh-key", Usage: "file with the key to log in with; empty: one is made"},
	}
}

func (d *driver) SetConfigFromFlags(o drivers.DriverOptions) error {
	if err := d.fault("flags"); err != nil {
		return err
	}
	d.SetSwarmConfigFromFlags(o)
	d.Token, d.Image, d.Network = o.String("lab-token"), o.String("lab-image"), o.String("lab-network")
	d.Local, d.WrongAddress, d.RemoveByID = o.Bool("lab-local-engine"), o.String("lab-wrong-address"), o.Bool("lab-remove-by-id")
	d.SSHUser, d.SSHPort, d.SSHKeyPath = o.String("lab-ssh-user"), o.Int("lab-ssh-port"), o.String("lab-ssh-key")
	d.LateAnswer = o.Int("lab-late-answer")
	d.wanted = settings{
		delay: o.Int("lab-create-delay"), size: o.Int("lab-size"), failPercent: o.Int("lab-fail"), failText: o.String("lab-fail-text"),
		userData: o.String("lab-user-data"), command: o.String("lab-command"), hang: o.Bool("lab-hang"), die: o.Bool("lab-die-during-create"),
		longLine: o.Bool("lab-long-line"), late: o.Bool("lab-fail-late"), idLate: o.Bool("lab-id-late"), tags: o.StringSlice("lab-tag"),
	}
	if d.Token == "" {
		return errors.New("lab driver requires the --lab-token option")
	}
	if d.Image == "" && !d.Local {
		return errors.New("lab driver requires the --lab-image option")
	}
	log.Debugf("logging in with token %s", d.Token)
	return nil
}

func (d *driver) PreCreateCheck() error {
	if err := d.fault("check"); err != nil {
		return err
	}
	if d.Token == "wrong" {
		return errors.New("unable to authenticate (unauthorized)")
	}
	if d.Local {
		return nil
	}
	return imageExists(d.Image)
}

func (d *driver) Create() error {
	if err := d.before(); err != nil {
		return err
	}
	if err := d.makeKey(); err != nil {
		return err
	}
	if d.Local {
		d.ContainerID = "local-" + d.MachineName
		if err := os.WriteFile(d.marker(), nil, 0o600); err != nil {
			return err
		}
		d.IPAddress = "127.0.0.1"
		return d.after()
	}
	id, err := d.createContainer()
	if err != nil {
		return err
	}
	if !d.wanted.idLate {
		d.ContainerID = id
	}
	if d.wanted.die {
		os.Exit(4)
	}
	if err := d.fault("created"); err != nil {
		return err
	}
	if err := d.boot(id); err != nil {
		return err
	}
	if d.IPAddress, err = addressOf(id); err != nil {
		return err
	}
	d.ContainerID = id
	return d.after()
}

// boot starts the container with what it is to have.
func (d *driver) boot(id string) error {
	public, err := os.ReadFile(d.GetSSHKeyPath() + ".pub")
	if err != nil {
		return err
	}
	files := map[string][]byte{"root/.ssh/authorized_keys": public}
	if d.wanted.userData != "" {
		if files["root/user-data"], err = os.ReadFile(d.wanted.userData); err != nil {
			return err
		}
	}
	if err := putFiles(id, files); err != nil {
		return err
	}
	if err := engine("POST", "/containers/"+id+"/start", nil, nil); err != nil {
		return err
	}
	if d.wanted.userData == "" {
		return nil
	}
	return execute(id, "chmod +x /root/user-data; exec /root/user-data > /root/user-data.log 2>&1")
}

// makeKey makes the key of the machine's login, unless one is given.
func (d *driver) makeKey() error {
	path := d.GetSSHKeyPath()
	if path != d.ResolveStorePath("id_rsa") {
		return nil
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, d.MachineName)
	if err != nil {
		return err
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(line), 0o600)
}

// marker is the file that stands for the machine when that is the host itself.
func (d *driver) marker() string {
	return filepath.Join(d.StorePath, "machines", d.MachineName, "local")
}

func (d *driver) GetState() (state.State, error) {
	if err := d.fault("state"); err != nil {
		return state.Error, err
	}
	d.wait()
	if d.Local {
		if _, err := os.Stat(d.marker()); err != nil {
			return state.None, fmt.Errorf("machine %s not found", d.MachineName)
		}
		return state.Running, nil
	}
	if d.ContainerID == "" && d.RemoveByID {
		return state.None, errors.New("the machine's id is not set: machine not found")
	}
	c, err := inspect(d.target())
	if err != nil {
		return state.None, err
	}
	switch c.State.Status {
	case "running":
		return state.Running, nil
	case "paused":
		return state.Paused, nil
	case "created", "restarting":
		return state.Starting, nil
	case "removing":
		return state.Stopping, nil
	}
	return state.Stopped, nil
}

// target is how the machine is asked for: by its name while its id is not known.
func (d *driver) target() string {
	if d.ContainerID == "" {
		return d.MachineName
	}
	return d.ContainerID
}

func (d *driver) wait() { time.Sleep(time.Duration(d.LateAnswer) * time.Second) }

func (d *driver) GetIP() (string, error) {
	if err := d.fault("address"); err != nil {
		return "", err
	}
	d.wait()
	if d.WrongAddress != "" {
		return d.WrongAddress, nil
	}
	return d.BaseDriver.GetIP()
}

func (d *driver) GetSSHHostname() (string, error) { return d.GetIP() }

func (d *driver) GetURL() (string, error) {
	ip, err := d.GetIP()
	if err != nil {
		return "", err
	}
	return "tcp://" + net.JoinHostPort(ip, "2376"), nil
}

func (d *driver) Remove() error {
	if err := d.fault("remove"); err != nil {
		return err
	}
	if d.Local {
		return os.Remove(d.marker())
	}
	if d.ContainerID == "" && d.RemoveByID {
		log.Warn("no id is known: nothing is removed")
		return nil
	}
	return engine("DELETE", "/containers/"+d.target()+"?force=1&v=1", nil, nil)
}

func (d *driver) Start() error {
	if err := d.fault("start"); err != nil {
		return err
	}
	if err := engine("POST", "/containers/"+d.target()+"/start", nil, nil); err != nil {
		return err
	}
	ip, err := addressOf(d.target())
	d.IPAddress = ip
	return err
}

func (d *driver) Stop() error {
	if err := d.fault("stop"); err != nil {
		return err
	}
	d.IPAddress = ""
	return engine("POST", "/containers/"+d.target()+"/stop?t=1", nil, nil)
}

func (d *driver) Restart() error { return errors.Join(d.Stop(), d.Start()) }

func (d *driver) Kill() error { return engine("POST", "/containers/"+d.target()+"/kill", nil, nil) }

func (d *driver) labels() map[string]string {
	labels := map[string]string{"io.tranter.lab": "1", "io.tranter.lab.machine": d.MachineName}
	for _, t := range d.wanted.tags {
		name, value, _ := strings.Cut(t, "=")
		labels[name] = value
	}
	return labels
}
