package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Key names one setting.
type Key struct {
	Name    string // in the file, with its tables: "api.http.listen_address"
	Env     string // in the environment
	Default string // as it would be written in the environment
	Secret  bool   // the value is never printed

	index []int // of the field in Config
}

const (
	keyUDPSockets  = "rtc.udp_sockets_count"
	keyICEServers  = "rtc.ice_servers"
	keyVideoCodecs = "rtc.video_codecs"
	socketsPerCPU  = 100
	maxTextPrinted = 200 // bytes of an operator's value that a fault repeats
)

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	portsType    = reflect.TypeFor[PortOverride]()
	serversType  = reflect.TypeFor[[]ICEServer]()
	namesType    = reflect.TypeFor[[]string]()
	pairsType    = reflect.TypeFor[map[string]string]()
)

// registry is what the tags of Config say: all keys in order, the same by name, by variable, and
// the names of all tables.
type registry struct {
	keys   []Key
	byName map[string]*Key
	byEnv  map[string]*Key
	tables map[string]bool
}

var known = sync.OnceValue(func() *registry {
	r := &registry{byName: map[string]*Key{}, byEnv: map[string]*Key{}, tables: map[string]bool{}}
	r.walk(reflect.TypeFor[Config](), "", nil)
	for i := range r.keys {
		k := &r.keys[i]
		r.byName[k.Name] = k
		r.byEnv[k.Env] = k
	}
	return r
})

func (r *registry) walk(t reflect.Type, prefix string, index []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		name := prefix + tag
		at := append(append([]int(nil), index...), i)
		if f.Type.Kind() == reflect.Struct {
			r.tables[name] = true
			r.walk(f.Type, name+".", at)
			continue
		}
		r.keys = append(r.keys, Key{
			Name:    name,
			Env:     f.Tag.Get("env"),
			Default: f.Tag.Get("default"),
			Secret:  f.Type == secretType || f.Type == serversType || holdsSecret(f.Type),
			index:   at,
		})
	}
}

// holdsSecret reports whether entries of a list of tables have secrets.
func holdsSecret(t reflect.Type) bool {
	if !isTableList(t) {
		return false
	}
	for i := range t.Elem().NumField() {
		if t.Elem().Field(i).Type == secretType {
			return true
		}
	}
	return false
}

// Keys returns every setting in the order of the sample file.
func Keys() []Key { return append([]Key(nil), known().keys...) }

func (k *Key) field(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().FieldByIndex(k.index) }

// shown returns a value as a fault may repeat it.
func (k *Key) shown(v any) string {
	if k.Secret {
		return redacted
	}
	if date, ok := v.(time.Time); ok {
		v = date.Format("2006-01-02T15:04:05") // without the zone, which a local date does not have
	}
	return clip(fmt.Sprint(v))
}

func clip(s string) string {
	if len(s) <= maxTextPrinted {
		return s
	}
	return strings.ToValidUTF8(s[:maxTextPrinted], "") + "..."
}

func defaults(cpus int) Config {
	var c Config
	for _, k := range known().keys {
		text := k.Default
		if k.Name == keyUDPSockets {
			text = strconv.Itoa(socketsPerCPU * cpus)
		}
		if fault := k.setText(&c, text); fault != nil {
			panic(fmt.Sprintf("config: default of %s: %s", k.Name, fault[0].Rule))
		}
	}
	return c
}

// setText sets the key from the text of an environment variable.
func (k *Key) setText(c *Config, text string) Faults {
	f := k.field(c)
	bad := func(rule string) Faults { return Faults{{Key: k.Name, Value: k.shown(text), Rule: rule}} }
	switch {
	case f.Type() == serversType:
		servers, faults := serversFromJSON(text)
		if faults != nil {
			return faults
		}
		f.Set(reflect.ValueOf(servers))
	case f.Type() == namesType:
		f.Set(reflect.ValueOf(splitNames(text)))
	case f.Type() == pairsType, isTableList(f.Type()):
		v, err := jsonValue(text)
		if err != nil {
			return bad(ruleJSON)
		}
		if v != nil {
			return k.setTOML(c, v)
		}
		f.SetZero()
	case f.Type() == durationType:
		d, err := time.ParseDuration(text)
		if err != nil {
			return bad(ruleDuration)
		}
		f.SetInt(int64(d))
	case f.Kind() == reflect.String:
		f.SetString(text)
	case f.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return bad("must be one of 1 t T TRUE true True 0 f F FALSE false False")
		}
		f.SetBool(b)
	case f.Kind() == reflect.Int:
		n, err := strconv.ParseInt(text, 0, strconv.IntSize)
		if err != nil {
			return bad("must be a whole number")
		}
		f.SetInt(n)
	}
	return nil
}

// splitNames returns the entries of a comma list, without the spaces around them; "[]" is an empty
// one.
func splitNames(text string) []string {
	if text = strings.TrimSpace(text); text == "" || text == "[]" {
		return []string{}
	}
	names := strings.Split(text, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names
}

const ruleDuration = `must be a duration such as "24h", "90m" or "1h30m"`

// setTOML sets the key from a decoded TOML value.
func (k *Key) setTOML(c *Config, v any) Faults {
	f := k.field(c)
	wrong := func(want string) Faults {
		return Faults{{Key: k.Name, Value: k.shown(v), Rule: fmt.Sprintf("must be %s, not %s", want, tomlType(v))}}
	}
	switch {
	case f.Type() == serversType:
		list, ok := anyList(v)
		if !ok {
			return wrong("a list")
		}
		servers, faults := serversFromList(list)
		if faults != nil {
			return faults
		}
		f.Set(reflect.ValueOf(servers))
	case f.Type() == namesType:
		list, ok := anyList(v)
		if !ok {
			return wrong("a list")
		}
		names := make([]string, 0, len(list))
		for i, entry := range list {
			name, ok := entry.(string)
			if !ok {
				return Faults{{Key: fmt.Sprintf("%s[%d]", k.Name, i), Value: k.shown(entry), Rule: "must be a string, not " + tomlType(entry)}}
			}
			names = append(names, name)
		}
		f.Set(reflect.ValueOf(names))
	case f.Type() == pairsType:
		table, ok := v.(map[string]any)
		if !ok {
			return wrong("a table")
		}
		return k.setPairs(f, table)
	case isTableList(f.Type()):
		list, ok := anyList(v)
		if !ok {
			return wrong("a list of tables")
		}
		return k.setTables(f, list)
	case f.Type() == durationType:
		s, ok := v.(string)
		if !ok {
			return wrong("a string")
		}
		return k.setText(c, s)
	case f.Type() == portsType:
		switch v := v.(type) {
		case string:
			f.SetString(v)
		case int64:
			f.SetString(strconv.FormatInt(v, 10))
		default:
			return wrong("a string or an integer")
		}
	case f.Kind() == reflect.String:
		s, ok := v.(string)
		if !ok {
			return wrong("a string")
		}
		f.SetString(s)
	case f.Kind() == reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			return wrong("true or false")
		}
		f.SetBool(b)
	case f.Kind() == reflect.Int:
		n, ok := v.(int64)
		if !ok {
			return wrong("an integer")
		}
		if f.OverflowInt(n) {
			return Faults{{Key: k.Name, Value: k.shown(v), Rule: "is too large"}}
		}
		f.SetInt(n)
	}
	return nil
}

func tomlType(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	default:
		return "a list"
	}
}

// anyList returns v as a list; arrays of tables come as a type of their own.
func anyList(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case []map[string]any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return list, true
	}
	return nil, false
}
