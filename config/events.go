package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	keyWebhook     = "webhook"
	maxWebhooks    = 64
	maxClientBytes = 64 // of a backend's id
	maxURLBytes    = 2048
)

// Events is about the log of what takes place in calls, which backends read and webhooks carry.
type Events struct {
	Dir       string        `toml:"dir" env:"RTCD_EVENTS_DIR" default:""` // "" = in memory alone
	KeepMiB   int           `toml:"keep_mib" env:"RTCD_EVENTS_KEEPMIB" default:"64"`
	TotalMiB  int           `toml:"total_mib" env:"RTCD_EVENTS_TOTALMIB" default:"1024"`
	KeepFor   time.Duration `toml:"keep_for" env:"RTCD_EVENTS_KEEPFOR" default:"168h"`
	MemoryMiB int           `toml:"memory_mib" env:"RTCD_EVENTS_MEMORYMIB" default:"16"`
}

// A Webhook is a receiver of the events of one client.
type Webhook struct {
	Name          string   `toml:"name,omitempty"` // of its series and of how far it got; "" = made from client and URL
	Client        string   `toml:"client"`
	URL           string   `toml:"url"`
	Secret        Secret   `toml:"secret,omitempty"`
	SecretFile    string   `toml:"secret_file,omitempty"`
	OldSecret     Secret   `toml:"old_secret,omitempty"` // signs as well, while the secret is being changed
	OldSecretFile string   `toml:"old_secret_file,omitempty"`
	Events        []string `toml:"events,omitempty"` // types; empty = all
	AllowPrivate  bool     `toml:"allow_private,omitempty"`
}

// Secrets returns those that sign.
func (w Webhook) Secrets() []string {
	var out []string
	for _, s := range []Secret{w.Secret, w.OldSecret} {
		if s != "" {
			out = append(out, s.Reveal())
		}
	}
	return out
}

// webhookSecrets returns the secrets of all webhooks that have a key for a file.
func (c *Config) webhookSecrets() []secretFile {
	var files []secretFile
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		at := fmt.Sprintf("%s[%d].", keyWebhook, i)
		files = append(files,
			secretFile{at + "secret", at + "secret" + secretFileSuffix, w.SecretFile, &w.Secret},
			secretFile{at + "old_secret", at + "old_secret" + secretFileSuffix, w.OldSecretFile, &w.OldSecret})
	}
	return files
}

func (k *checking) checkEvents() {
	const tebi = 1 << 20 // MiB
	e := k.Events
	k.between("events.keep_mib", e.KeepMiB, 1, tebi)
	k.between("events.total_mib", e.TotalMiB, 1, tebi)
	k.between("events.memory_mib", e.MemoryMiB, 1, 1<<16)
	k.duration("events.keep_for", e.KeepFor, time.Minute, 10*365*24*time.Hour)
	if e.Dir != "" {
		k.checkFolder("events.dir", e.Dir)
	}
	if len(k.Webhooks) > maxWebhooks {
		k.faults = append(k.faults, Fault{Key: keyWebhook, Value: fmt.Sprintf("%d entries", len(k.Webhooks)),
			Rule: fmt.Sprintf("must have at most %d entries", maxWebhooks)})
	}
	seen := map[string]bool{}
	for i, w := range k.Webhooks {
		at := fmt.Sprintf("%s[%d]", keyWebhook, i)
		k.checkWebhook(at, w)
		id := "name " + w.Name
		if w.Name == "" {
			id = w.Client + " " + w.URL
		}
		if seen[id] {
			k.entry(at, w.Name, "is there twice: give it a name of its own")
		}
		seen[id] = true
	}
	if len(k.Webhooks) > 0 && e.Dir == "" {
		k.doubt(keyWebhook, "loses what is not delivered when the server ends: set events.dir")
	}
}

func (k *checking) checkWebhook(at string, w Webhook) {
	if w.Name != "" && !roleText.MatchString(w.Name) {
		k.entry(at+".name", w.Name, ruleRole)
	}
	if w.Client == "" || len(w.Client) > maxClientBytes {
		k.entry(at+".client", w.Client, fmt.Sprintf("must be the id of a backend, of 1 to %d bytes", maxClientBytes))
	}
	if rule := webhookURLRule(w); rule != "" {
		// The URL may hold what is meant for the receiver alone.
		k.entry(at+".url", redacted, rule)
	}
	if w.Secret == "" {
		k.entry(at+".secret", "", "must be set, or secret_file")
	}
	for name, s := range map[string]Secret{".secret": w.Secret, ".old_secret": w.OldSecret} {
		if rule := weakSecret(s.Reveal()); s != "" && rule != "" {
			k.weak = append(k.weak, Fault{Key: at + name, Value: redacted, Rule: rule})
		}
	}
	for i, typ := range w.Events {
		if typ == "" || len(typ) > 64 || strings.Trim(typ, "abcdefghijklmnopqrstuvwxyz._") != "" || slices.Contains(w.Events[:i], typ) {
			k.entry(at+".events", typ, "must hold types of events such as call.ended, each once")
		}
	}
	if w.AllowPrivate && k.Mode.Production() {
		k.doubt(at+".allow_private", "is on: events go to addresses inside the network, perhaps in clear")
	}
}

// webhookURLRule says what is wrong with the URL of a webhook, or "".
func webhookURLRule(w Webhook) string {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil || len(w.URL) > maxURLBytes || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return `must be a URL such as "https://app.example.com/rtcd"`
	case u.Scheme == "http" && !w.AllowPrivate:
		return "must be https, unless allow_private is set"
	case u.User != nil || u.Fragment != "":
		return "must have neither credentials nor a fragment: receivers check the signature"
	}
	return ""
}
