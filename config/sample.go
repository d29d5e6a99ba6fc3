package config

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/BurntSushi/toml"
)

//go:embed config.sample.toml
var sample []byte

// Sample returns the sample file: every key, commented out, with its default, unit and variable.
func Sample() []byte { return bytes.Clone(sample) }

// Encode returns the configuration as TOML that loads to an equal one. It holds the secrets; see
// [Config.Redacted]. Of secrets that were read from files of their own it holds the path.
func (c Config) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(c.withoutFileSecrets()); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b.Bytes(), nil
}

// Redacted returns a copy whose secrets are replaced by a placeholder, fit to be shown.
func (c Config) Redacted() Config {
	hide := func(s *Secret) { *s = Secret(s.String()) }
	c.hideSecrets()
	servers := append([]ICEServer(nil), c.RTC.ICEServers...)
	for i := range servers {
		hide(&servers[i].Credential)
		hide(&servers[i].Username)
	}
	c.RTC.ICEServers = servers
	c.Webhooks = append([]Webhook(nil), c.Webhooks...)
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		hide(&w.Secret)
		hide(&w.OldSecret)
	}
	return c
}
