package config

import "reflect"

// Optional is a setting whose default somebody else knows, as a rule the executor. The zero value is "not set".
type Optional[T any] struct {
	Value T
	Set   bool
}

// Or returns the value if it is set, and fallback if not.
func (o Optional[T]) Or(fallback T) T {
	if o.Set {
		return o.Value
	}
	return fallback
}

func (Optional[T]) optional() {}

// OneOrMany is a list that may be written as one string.
type OneOrMany []string

// isOptional tells whether typ is an instance of Optional, and of which type.
func isOptional(typ reflect.Type) (reflect.Type, bool) {
	if typ.Kind() != reflect.Struct || !typ.Implements(reflect.TypeFor[interface{ optional() }]()) {
		return nil, false
	}
	value, _ := typ.FieldByName("Value")
	return value.Type, true
}
