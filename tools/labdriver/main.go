// Command docker-machine-driver-lab is a driver of Docker Machine for tests: it is served by the reference plugin server, its
// machines are containers of the local engine, and it can be told to misbehave in the ways in which drivers do.
//
// Options choose the faults of one machine; files in the folder that LAB_CONTROL names switch faults while drivers run
// (faults.go); the variable LAB_START holds those that come before any option is known.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/docker/machine/libmachine/drivers"
	"github.com/docker/machine/libmachine/drivers/plugin"
)

func main() {
	switch start := os.Getenv("LAB_START"); start {
	case "":
	case "exit":
		fmt.Fprintln(os.Stderr, "lab: told to exit")
		os.Exit(3)
	case "silent":
		time.Sleep(time.Hour)
	default:
		fmt.Println(start)
	}
	plugin.RegisterDriver(&driver{BaseDriver: &drivers.BaseDriver{}, control: os.Getenv("LAB_CONTROL")})
}
