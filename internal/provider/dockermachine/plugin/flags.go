package plugin

import "encoding/gob"

// Flag is an option that a driver knows. Default has the type that its values have: string, int, bool or []string.
type Flag struct {
	Name, Usage, EnvVar string
	Default             any
}

// The types that travel (docker-machine, section 1.5). The names of their fields are part of the protocol.
type (
	stringFlag struct{ Name, Usage, EnvVar, Value string }
	intFlag    struct {
		Name, Usage, EnvVar string
		Value               int
	}
	sliceFlag struct {
		Name, Usage, EnvVar string
		Value               []string
	}
	boolFlag struct{ Name, Usage, EnvVar string }
	rpcFlags struct{ Values map[string]any }
)

// register gives the types the names that they have on the wire. To do so again changes nothing.
func register() {
	gob.RegisterName("*mcnflag.StringFlag", (*stringFlag)(nil))
	gob.RegisterName("*mcnflag.IntFlag", (*intFlag)(nil))
	gob.RegisterName("*mcnflag.StringSliceFlag", (*sliceFlag)(nil))
	gob.RegisterName("*mcnflag.BoolFlag", (*boolFlag)(nil))
	gob.RegisterName("*rpcdriver.RPCFlags", (*rpcFlags)(nil))
}

func flagOf(v any) (Flag, bool) {
	switch f := v.(type) {
	case *stringFlag:
		return Flag{f.Name, f.Usage, f.EnvVar, f.Value}, true
	case *intFlag:
		return Flag{f.Name, f.Usage, f.EnvVar, f.Value}, true
	case *sliceFlag:
		return Flag{f.Name, f.Usage, f.EnvVar, f.Value}, true
	case *boolFlag:
		return Flag{f.Name, f.Usage, f.EnvVar, false}, true
	}
	return Flag{}, false
}
