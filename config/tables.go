package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

const (
	ruleJSON      = "must be JSON, in the form of the file"
	maxEntries    = 1000 // of a list or table
	maxEntryBytes = 256  // of a key of a table
)

// isTableList reports whether a key is a list of tables, each with the fields of a struct.
func isTableList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && t != serversType
}

// entryFields returns the names that a table of the key's list may have, or nil if it is no such list.
func (k *Key) entryFields() []string {
	t := reflect.TypeFor[Config]().FieldByIndex(k.index).Type
	switch {
	case t == serversType:
		return serverFields
	case isTableList(t):
		return fieldNames(t.Elem())
	}
	return nil
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("toml"), ",")
		names = append(names, name)
	}
	return names
}

// jsonValue decodes one JSON value into the types that TOML has; nil for an empty text or null.
func jsonValue(text string) (any, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the value")
	}
	return tomlValue(v), nil
}

// tomlValue turns numbers of JSON into those of TOML, also inside lists and tables.
func tomlValue(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = tomlValue(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = tomlValue(v[name])
		}
	}
	return v
}

// setPairs sets a table of strings, whose keys are free.
func (k *Key) setPairs(f reflect.Value, table map[string]any) Faults {
	if len(table) > maxEntries {
		return Faults{{Key: k.Name, Value: fmt.Sprint(len(table), " entries"), Rule: fmt.Sprintf("must have at most %d entries", maxEntries)}}
	}
	var faults Faults
	pairs := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		text, ok := table[name].(string)
		switch {
		case !ok:
			faults = append(faults, Fault{Key: pairKey(k.Name, name), Value: k.shown(table[name]), Rule: "must be a string, not " + tomlType(table[name])})
		case name == "" || len(name) > maxEntryBytes || !printable(name):
			faults = append(faults, Fault{Key: k.Name, Value: clip(name), Rule: fmt.Sprintf("must have keys of 1 to %d characters from ' ' to '~'", maxEntryBytes)})
		default:
			pairs[name] = text
		}
	}
	if len(pairs) == 0 {
		pairs = nil // as without the key
	}
	f.Set(reflect.ValueOf(pairs))
	return faults
}

// pairKey names one entry of a table whose keys are free.
func pairKey(key, name string) string { return fmt.Sprintf("%s[%q]", key, clip(name)) }

func printable(s string) bool {
	for _, b := range []byte(s) {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// setTables sets a list of tables. Unknown names in them are left to a warning.
func (k *Key) setTables(f reflect.Value, list []any) Faults {
	if len(list) > maxEntries {
		return Faults{{Key: k.Name, Value: fmt.Sprint(len(list), " entries"), Rule: fmt.Sprintf("must have at most %d entries", maxEntries)}}
	}
	var faults Faults
	out := reflect.Zero(f.Type())
	for i, entry := range list {
		key := fmt.Sprintf("%s[%d]", k.Name, i)
		table, ok := entry.(map[string]any)
		if !ok {
			faults = append(faults, Fault{Key: key, Value: k.shown(entry), Rule: "must be a table, not " + tomlType(entry)})
			continue
		}
		v := reflect.New(f.Type().Elem()).Elem()
		faults = append(faults, k.setFields(v, key, table)...)
		out = reflect.Append(out, v)
	}
	f.Set(out)
	return faults
}

func (k *Key) setFields(v reflect.Value, key string, table map[string]any) Faults {
	var faults Faults
	names := fieldNames(v.Type())
	seen := map[int]bool{}
	for _, raw := range slices.Sorted(maps.Keys(table)) {
		i := slices.Index(names, strings.ToLower(raw))
		if i < 0 {
			continue
		}
		name := key + "." + names[i]
		if seen[i] {
			faults = append(faults, Fault{Key: name, Value: clip(raw), Rule: "is given twice, in different letter case"})
			continue
		}
		seen[i] = true
		f, value := v.Field(i), table[raw]
		want := ""
		switch f.Kind() {
		case reflect.String:
			if s, ok := value.(string); ok {
				f.SetString(s)
			} else {
				want = "a string"
			}
		case reflect.Int:
			if n, ok := value.(int64); ok && !f.OverflowInt(n) {
				f.SetInt(n)
			} else {
				want = "an integer"
			}
		case reflect.Bool:
			if b, ok := value.(bool); ok {
				f.SetBool(b)
			} else {
				want = "true or false"
			}
		case reflect.Slice:
			if texts, ok := textList(value); ok {
				f.Set(reflect.ValueOf(texts))
			} else {
				want = "a list of strings"
			}
		}
		if want != "" {
			faults = append(faults, Fault{Key: name, Value: k.shown(value), Rule: "must be " + want + ", not " + tomlType(value)})
		}
	}
	return faults
}

// textList returns a list of strings as such.
func textList(v any) ([]string, bool) {
	list, ok := v.([]any)
	texts := make([]string, len(list))
	for i, entry := range list {
		text, isText := entry.(string)
		texts[i], ok = text, ok && isText
	}
	return texts, ok
}
