package dockermachine

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// The protocol carries errors as text, so that text is all there is to tell their kinds by. What providers' interfaces and
// their drivers say is in the tables below, in lower case; a text that is in none of them is a failure that may pass.
var (
	throttleText = lazy.Regexp(`requestlimitexceeded|request limit exceeded|throttl|rate[ _-]?limit|rate exceeded|` +
		`too[ _]?many[ _]?requests|slow ?down|queries per (minute|second|hour)|requests per (minute|second|hour)|` +
		`read requests per|overlimit|` + status("429"))
	capacityText = lazy.Regexp(`insufficient[ _-]?(instance|host|server|free|reserved)?[ _-]?(capacity|addresses|resources)|` +
		`(no|not enough|out of|lacks?) (free |available |sufficient |spare )?(capacity|stock|resources)|outofstock|sold[ _-]?out|` +
		`limit[ _]?exceeded|limits? (was |is |has been )?(reached|exceeded)|(will|would) exceed|exceed(s|ed|ing)? (your|approved|the (quota|limit))|` +
		`quota|count[ _]?exceeded|maximum number of (instances|servers|machines|vms|droplets|cores|cpus)|maximum monthly fee|spotmaxpricetoolow|price-too-low|` +
		`capacity-(not-available|oversubscribed)|capacity (is )?(not |un)available|at capacity|` +
		`resource[ _]?(pool[ _]?)?(exhausted|unavailable)|enough resources available|(zonal)?allocation ?failed|` +
		`overconstrained|skunotavailable|no valid host|error during placement|placement[ _]error|no hosts? (is |are )?available`)
	rejectedText = lazy.Regexp(`unauthori[sz]ed|unauthenticated|not authori[sz]ed|unable to authenticate|` +
		`(authentication|login) (has )?failed|authentication required|authfailure|invalid_grant|signaturedoesnotmatch|` +
		`invalid[ _-]?(client|token|auth|api|access|credential|key|input|parameter|image|ami|subnet|group|value|argument|endpoint)|` +
		`(is|are) (not valid|invalid|required)|no ?credential ?providers|could not find default credentials|no credentials|` +
		`forbidden|permission denied|access ?(is )?denied|insufficient (authentication|permission|privilege)|optinrequired|` +
		`unknown (image|flag|option|region|zone|size|type|flavor|plan|location)|bad ?request|unprocessable|validation|` +
		`must be (specified|set|provided|given|one of|either)|required (option|setting|flag|parameter)|missing required|` +
		`requires (the|a|an|either|one)|option is required|please (provide|specify)|` +
		`not (be )?found|not_found|notfound|(does not|doesn't|don't) exist|(not |un)supported|flag provided but|` +
		status("40[0134]|422"))
	// passingText is what passes in spite of words from the table of what doesn't.
	passingText = lazy.Regexp(`no such host|connection (refused|reset)|time[ -]?out|timed out|unexpected eof|broken pipe|` +
		`tls handshake|server misbehaving|network is unreachable|no route to host|internal ?(server )?error|bad gateway|` +
		`service unavailable|try again|instanceid\.notfound|` + status("50[0234]"))
	retryAfterText = lazy.Regexp(`retry[ -]?(after|in)[: ]+(\d{1,6}) ?(ms|s|sec|seconds?|m|min|minutes?)?\b`)

	absentText = lazy.Regexp(`not (be )?found|not_found|notfound|(does not|doesn't) exist|no longer exists|` +
		`no such (container|instance|server|machine|droplet|vm|linode)|unknown (instance|server|machine|vm)|` +
		`(already|been) (deleted|removed|terminated)|` + status("404"))
	// otherText is the absence of something else, from which nothing follows for the machine.
	otherText = lazy.Regexp(`no such host|command not found|executable file not found|` +
		`(project|tenant|subscription|region|zone|endpoint|credentials?|key ?pair|key|security group|network|subnet|image|domain|user|` +
		`account|service|method|file|page|route|path|url)s?( with)?( the)?( name| id)?( '[^']*'| "[^"]*"| \S+)? ` +
		`(was |is |could |does |cannot |can't )?(not |n't )?(be )?(found|exist)|keypair\.notfound|group\.notfound`)
)

// status matches the codes of HTTP as drivers and their libraries print them.
func status(codes string) string {
	return `(status|code|error|http[/ .\d]*|got|\[|: |answered )[^\n\d]{0,12}\b(` + codes + `)\b`
}

// classify says what kind of failure an error of a driver is. Errors that are not a driver's stay as they are.
func classify(err error) error {
	said, ok := errors.AsType[*plugin.DriverError](err)
	if !ok || isKind(err) {
		return err
	}
	text := strings.ToLower(said.Text)
	switch {
	case throttleText().MatchString(text):
		return &tranter.ThrottledError{RetryAfter: retryAfter(text), Err: err}
	case capacityText().MatchString(text):
		return fmt.Errorf("%w: %w", tranter.ErrNoCapacity, err)
	case passingText().MatchString(text):
		return err
	case rejectedText().MatchString(text):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	}
	return err
}

// classifyFlags is classify for SetConfigFromFlags: a driver that refuses its options there has hardly asked anybody.
func classifyFlags(err error) error {
	classified := classify(err)
	if _, said := errors.AsType[*plugin.DriverError](err); !said || isKind(classified) || passingText().MatchString(strings.ToLower(err.Error())) {
		return classified
	}
	return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
}

func isKind(err error) bool {
	_, throttled := errors.AsType[*tranter.ThrottledError](err)
	return throttled || errors.Is(err, tranter.ErrNoCapacity) || errors.Is(err, tranter.ErrRejected)
}

// retryAfter returns what a text says on when to ask again; 0 if it doesn't.
func retryAfter(text string) time.Duration {
	found := retryAfterText().FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	n, err := strconv.Atoi(found[2])
	if err != nil {
		return 0
	}
	unit := time.Second
	switch {
	case found[3] == "ms":
		unit = time.Millisecond
	case strings.HasPrefix(found[3], "m"):
		unit = time.Minute
	}
	return time.Duration(n) * unit
}

// absent says that a driver finds no such machine.
func absent(err error) bool {
	return says(err, absentText()) && !says(err, otherText())
}

// absentSomething says that a driver does not find something, be it the machine or what belongs to it.
func absentSomething(err error) bool { return says(err, absentText()) && !says(err, passingText()) }

func says(err error, what *regexp.Regexp) bool {
	said, ok := errors.AsType[*plugin.DriverError](err)
	return ok && what.MatchString(strings.ToLower(said.Text))
}
