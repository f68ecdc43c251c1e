package machinetest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// login opens an SSH connection to a machine, as soon as it can be.
func login(t *testing.T, m *Machine) *ssh.Client {
	t.Helper()
	m.Wait(m.Login.Port)
	data, err := os.ReadFile(m.Login.Identity)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", net.JoinHostPort(m.Login.Host, "22"), &ssh.ClientConfig{
		User: m.Login.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: callLimit,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// over runs a command over SSH and returns what it said.
func over(t *testing.T, c *ssh.Client, command string) string {
	t.Helper()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	out, err := session.CombinedOutput(command)
	if err != nil {
		t.Logf("%s: %v", command, err)
	}
	return string(out)
}

func TestAMachineBootsAndIsGoneAfterwards(t *testing.T) {
	api := enginetest.Client(t, enginetest.Host(t))
	Image(t)
	var id string
	t.Run("machine", func(t *testing.T) {
		start := time.Now()
		m := Start(t, Options{Files: map[string]string{"/opt/x/y": "content"}, UserData: "#!/bin/sh\ncat /opt/x/y; hostname >/opt/x/z\n"})
		id = m.ID
		c := login(t, m)
		up := time.Since(start)
		m.WaitEngine()
		t.Logf("SSH after %v, the engine after %v", up, time.Since(start))
		if got := over(t, c, "cat /opt/x/z; . /etc/os-release; echo $ID; docker ps -q; echo $PATH"); got != m.Name+"\ndebian\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" {
			t.Errorf("%q", got)
		}
		socket, err := c.Dial("unix", "/var/run/docker.sock")
		if err != nil {
			t.Fatal(err)
		}
		socket.Close()
		m.Exec("tar -C / -c usr/bin/busybox | docker import - box")
		got := m.Exec("docker run --rm box /usr/bin/busybox cat /proc/self/cgroup")
		if !strings.Contains(got, "/"+m.ID+"/engine/") && !strings.HasPrefix(got, "0::/") {
			t.Errorf("a container on the machine is not below it: %s", got)
		}
		if log := m.Log(); !strings.Contains(log, "Accepted publickey") || !strings.Contains(log, "API listen on /var/run/docker.sock") || !strings.Contains(log, "user-data.log:\ncontent") {
			t.Errorf("the log lacks something: %s", log)
		}
	})
	if _, err := api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{}); err == nil {
		t.Error("the machine is left")
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*/docker/" + id); err != nil || len(left) > 0 {
		t.Errorf("control groups are left: %v, error %v", left, err)
	}
}

func TestAMachineIsSwitchedOffAndStartsAnewByItself(t *testing.T) {
	t.Parallel()
	m := Start(t, Options{Image: Bare(t)})
	over(t, login(t, m), "shutdown +5; shutdown +10; ps | grep -q '[s]leep 600' && touch /planned; shutdown -c; ps | grep -q '[s]leep 600' || touch /calm; touch /run/before; reboot")
	m.until("the new start", func() error { return m.check("[ ! -e /run/before ]") })
	if got := m.Exec("ls /calm /planned"); got != "/calm\n/planned\n" {
		t.Errorf("%q", got)
	}
	over(t, login(t, m), "poweroff")
	m.WaitOff()
	m.PowerOn()
	over(t, login(t, m), "shutdown -h now")
	m.WaitOff()
	if _, _, err := m.exec("true"); err == nil {
		t.Error("a command runs on a machine that is off")
	}
}

func TestTheEngineOfAMachineIsStartedAgain(t *testing.T) {
	t.Parallel()
	m := Start(t, Options{})
	m.WaitEngine()
	m.Exec("cp /run/docker.pid /before; kill -9 $(cat /before)")
	m.until("another dockerd", func() error { return m.check("[ -e /run/docker.pid ] && ! cmp -s /before /run/docker.pid") })
	m.WaitEngine()
	m.Exec("service docker status && service docker stop && ! service docker status && ! docker version && service docker start")
	m.WaitEngine()
	m.Stop()
	if log := m.Log(); !strings.HasSuffix(log, "Daemon shutdown complete\"\n") && !strings.Contains(log[len(log)/2:], "stopping event stream following graceful shutdown") {
		t.Errorf("the engine was not ended in peace: %s", log)
	}
	m.PowerOn()
	m.Exec(`cd /etc/docker && touch ca.pem server.pem server-key.pem && echo '{"tlsverify": true}' >daemon.json && service docker restart`)
	m.until("dockerd to miss what the configuration lacks", func() error { return m.check("grep 'Could not load X509' /var/log/docker.log") })
}

func TestAMachineIsFrozenAndCutOff(t *testing.T) {
	t.Parallel()
	m := Start(t, Options{Image: Bare(t), Memory: 1 << 30})
	m.Wait(22)
	address := m.Address
	m.Disconnect()
	if conn, err := net.DialTimeout("tcp", address+":22", 200*time.Millisecond); err == nil {
		conn.Close()
		t.Error("it is reached though it is cut off")
	}
	m.Reconnect()
	m.Wait(22)
	if m.look(); m.Address != address {
		t.Errorf("its address was %s and is %s", address, m.Address)
	}
	m.Pause()
	conn, err := net.Dial("tcp", address+":22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of a frozen machine", n)
	}
	m.Unpause()
	conn.SetReadDeadline(time.Now().Add(callLimit))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	m.Kill()
	if m.Running() {
		t.Error("it runs though it was killed")
	}
}

func TestTheDriverOfTheTestsIsBuilt(t *testing.T) {
	t.Parallel()
	if info, err := os.Stat(filepath.Join(Driver(t), "docker-machine-driver-lab")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("%v, error %v", info, err)
	}
}
