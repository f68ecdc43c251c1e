// Command agent is the static program that containers of the tests get.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/tranter-ci/tranter/internal/agent"
)

func main() {
	if len(os.Args) != 4 || os.Args[1] != "agent" || os.Args[2] != "run" {
		fmt.Fprintln(os.Stderr, "usage: agent agent run DIR")
		os.Exit(2)
	}
	if err := agent.Run(context.Background(), os.Args[3], agent.Work{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
