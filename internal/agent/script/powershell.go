package script

import (
	"fmt"
	"strings"
)

// powershell returns the text for PowerShell, Windows' own and the portable one. It starts with a byte order mark,
// without which the former takes a file for the machine's code page.
func powershell(s Script) string {
	var b strings.Builder
	b.WriteString("\ufeff$ErrorActionPreference = \"Stop\"\r\n")
	b.WriteString("[Console]::OutputEncoding = New-Object System.Text.UTF8Encoding $false; $OutputEncoding = [Console]::OutputEncoding\r\n")
	if s.Trace {
		b.WriteString("Set-PSDebug -Trace 2\r\n")
	}
	for _, v := range s.Variables {
		if Exportable(v.Key) {
			fmt.Fprintf(&b, "$Env:%s = %s\r\n$%s = $Env:%s\r\n", v.Key, psQuote(v.Value), psVariable(v.Key), v.Key)
		}
	}
	if s.Dir != "" {
		fmt.Fprintf(&b, "Set-Location -LiteralPath %s\r\n", psQuote(s.Dir))
	}
	for i, command := range s.Commands {
		command = strings.TrimSpace(strings.ReplaceAll(command, "\x00", ""))
		s.powershellEcho(&b, i, command)
		b.WriteString("$LASTEXITCODE = 0\r\n")
		b.WriteString(command)
		b.WriteString("\r\nif (!$?) { if ($LASTEXITCODE) { exit $LASTEXITCODE } else { exit 1 } }\r\n")
		if s.ExitChecks {
			b.WriteString("if ($LASTEXITCODE) { exit $LASTEXITCODE }\r\n")
		}
	}
	b.WriteString("exit 0\r\n")
	return b.String()
}

// psVariable keeps a job's variable from replacing one of PowerShell's own, which cannot be assigned.
func psVariable(key string) string {
	switch strings.ToLower(key) {
	case "error", "home", "host", "pid", "pshome", "shellid", "true", "false", "null", "executioncontext", "psversiontable":
		return "CI_" + key
	}
	return key
}

func (s Script) powershellEcho(b *strings.Builder, i int, command string) {
	if !s.Echo {
		return
	}
	first, _, several := strings.Cut(command, "\n")
	switch {
	case several && s.Sections:
		name := fmt.Sprintf("section_%s_%d", s.Section, i)
		now := s.Now().Unix()
		fmt.Fprintf(b, "[Console]::Write(%s)\r\n", psQuote(fmt.Sprintf("section_start:%d:%s[hide_duration=true,collapsed=true]\r\x1b[0K%s$ %s%s\nsection_end:%d:%s\r\x1b[0K", now, name, green, command, reset, now, name)))
	case several:
		fmt.Fprintf(b, "[Console]::WriteLine(%s)\r\n", psQuote(green+"$ "+strings.TrimSpace(first)+" # collapsed multi-line command"+reset))
	default:
		fmt.Fprintf(b, "[Console]::WriteLine(%s)\r\n", psQuote(green+"$ "+command+reset))
	}
}

// psQuote returns s as a literal; PowerShell takes typographic single quotes for plain ones.
func psQuote(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range strings.ReplaceAll(s, "\x00", "") {
		switch r {
		case '\'', '‘', '’', '‚', '‛':
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}
