package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// writeManual writes a page of the manual, in section 1, for each command that is documented: "tranter machine ls" is in
// tranter-machine-ls.1. With epoch, SOURCE_DATE_EPOCH in seconds, the pages are the same whenever they are made.
func writeManual(root *cobra.Command, dir, epoch string) error {
	when := time.Now()
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %q is no number of seconds", epoch)
		}
		when = time.Unix(seconds, 0)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var failed error
	walk(root, func(cmd *cobra.Command) {
		if failed != nil || undocumented(cmd) {
			return
		}
		// Whoever makes the pages, they show what root has.
		text := strings.NewReplacer(roff(defaultConfigPath()), roff(rootConfigPath), roff(defaultStateDir()), roff(rootStateDir)).Replace(manualPage(cmd, when.UTC()))
		failed = os.WriteFile(filepath.Join(dir, manualName(cmd)+".1"), []byte(text), 0o644)
	})
	return failed
}

// undocumented says whether a command is none for people to read about.
func undocumented(cmd *cobra.Command) bool {
	return cmd.Hidden || cmd.Name() == "help" || hiddenParent(cmd)
}

func manualName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// roff is a text as it can stand in a page: nothing in it is a request to the formatter.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// manualPage is the page of a command.
func manualPage(cmd *cobra.Command, when time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH \"%s\" \"1\" \"%s\" \"Tranter %s\" \"Tranter\"\n.nh\n.ad l\n", roff(strings.ToUpper(manualName(cmd))), when.Format(time.DateOnly), roff(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manualName(cmd)), roff(cmd.Short))
	use := cmd.UseLine()
	if !cmd.Runnable() {
		use = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(use))
	if cmd.Long != "" {
		fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", strings.ReplaceAll(roff(strings.TrimSpace(cmd.Long)), "\n\n", "\n.PP\n"))
	}
	manualFlags(&b, "OPTIONS", cmd.NonInheritedFlags())
	manualFlags(&b, "OPTIONS OF ALL COMMANDS", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(strings.TrimRight(cmd.Example, "\n")))
	}
	var also []string
	if cmd.HasParent() {
		also = append(also, cmd.Parent().CommandPath())
	}
	for _, child := range cmd.Commands() {
		if !undocumented(child) {
			also = append(also, child.CommandPath())
		}
	}
	for i, name := range also {
		also[i] = ".BR " + roff(strings.ReplaceAll(name, " ", "-")) + " (1)"
	}
	if len(also) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(also, ",\n"))
	}
	return b.String()
}

// manualFlags lists flags.
func manualFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	began := false
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if !began {
			began = true
			fmt.Fprintf(b, ".SH %s\n", title)
		}
		name := `\fB--` + roff(f.Name) + `\fR`
		name = strings.Replace(name, "--", `\-\-`, 1)
		if f.Shorthand != "" {
			name = `\fB\-` + f.Shorthand + `\fR, ` + name
		}
		if value, _ := pflag.UnquoteUsage(f); f.NoOptDefVal == "" && value != "" {
			name += `=\fI` + roff(value) + `\fR`
		}
		_, usage := pflag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", name, roff(usage))
	})
}
