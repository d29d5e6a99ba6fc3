package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxSecretBytes   = 4 << 10
	secretFileSuffix = "_file"
	othersMayRead    = 0o044 // permission bits
)

// A secretFile is a secret that may stand in a file of its own.
type secretFile struct {
	key     string // of the secret, such as "api.security.admin_secret_key"
	fileKey string // of the file's path
	path    string
	secret  *Secret
}

// secretFiles returns all secrets of the configuration that have a key for a file.
func (c *Config) secretFiles() []secretFile {
	var files []secretFile
	for _, k := range known().keys {
		file := known().byName[k.Name+secretFileSuffix]
		if file == nil || !k.Secret {
			continue
		}
		files = append(files, secretFile{k.Name, file.Name, file.field(c).String(), k.field(c).Addr().Interface().(*Secret)})
	}
	for i := range c.RTC.ICEServers {
		s := &c.RTC.ICEServers[i]
		at := fmt.Sprintf("%s[%d].credential", keyICEServers, i)
		files = append(files, secretFile{at, at + secretFileSuffix, s.CredentialFile, &s.Credential})
	}
	return append(files, c.webhookSecrets()...)
}

// withoutFileSecrets returns a copy without the secrets that were read from files of their own.
func (c Config) withoutFileSecrets() Config {
	c.RTC.ICEServers = append([]ICEServer(nil), c.RTC.ICEServers...)
	c.Webhooks = append([]Webhook(nil), c.Webhooks...)
	for _, f := range c.secretFiles() {
		if f.path != "" {
			*f.secret = ""
		}
	}
	return c
}

// readSecretFiles fills in the secrets that stand in files. A secret whose file is no good is not
// judged further.
func (l *loading) readSecretFiles() {
	for _, f := range l.config.secretFiles() {
		base, _, _ := strings.Cut(f.fileKey, "[")
		if f.path == "" || len(l.faults[base]) > 0 {
			continue
		}
		fault := func(rule string) {
			l.faults[base] = append(l.faults[base], Fault{Key: f.fileKey, Value: clip(f.path), Rule: rule, Source: l.report.Source(base)})
			if key, _, entry := strings.Cut(f.key, "["); !entry && l.faults[key] == nil {
				l.faults[key] = Faults{}
			}
		}
		if *f.secret != "" {
			fault("must not be set together with " + f.key)
			continue
		}
		secret, err := readSecret(f.path)
		if err != nil {
			fault("must be a readable file with a secret: " + err.Error())
			continue
		}
		*f.secret = secret
	}
}

// readSecret returns the text of a file without the white space around it.
func readSecret(path string) (Secret, error) {
	data, err := readRegular(path, maxSecretBytes)
	text := strings.TrimSpace(string(data))
	switch {
	case err != nil:
	case text == "":
		err = errors.New("it is empty")
	case len(text) > maxSecretBytes || !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		err = errors.New("it is not UTF-8 text")
	}
	if err != nil {
		return "", err
	}
	return Secret(text), nil
}

// secretStands notes a secret that stands in the configuration file itself.
func (l *loading) secretStands(key *Key) {
	if !key.Secret {
		return
	}
	f := key.field(&l.config)
	if f.Type() == secretType && f.String() != "" {
		l.inFile = append(l.inFile, key.Name)
	}
	if f.Type() == serversType {
		for _, s := range f.Interface().([]ICEServer) {
			if s.Credential != "" {
				l.inFile = append(l.inFile, key.Name)
				return
			}
		}
	}
	if hooks, ok := f.Interface().([]Webhook); ok && slices.ContainsFunc(hooks, func(w Webhook) bool { return w.Secret != "" || w.OldSecret != "" }) {
		l.inFile = append(l.inFile, key.Name)
	}
}

// judgeFile finds secrets in a configuration file that others may read.
func (l *loading) judgeFile(k *checking) {
	if l.mode&othersMayRead == 0 {
		return
	}
	for _, name := range l.inFile {
		k.weakness(name, redacted, fmt.Sprintf("stands in %s, which others may read (%s)", quoted(clip(l.report.Path)), modeText(l.mode)))
	}
}

// checkFileModes finds files of secrets and private keys that others may read.
func (k *checking) checkFileModes() {
	look := func(key, path string) {
		if info, err := os.Stat(path); err == nil && info.Mode()&othersMayRead != 0 {
			k.weakFile(key, path, info.Mode())
		}
	}
	for _, f := range k.secretFiles() {
		if f.path != "" {
			look(f.fileKey, f.path)
		}
	}
	if t := k.API.HTTP.TLS; k.usesTLS() && t.CertKey != "" {
		look("api.http.tls.cert_key", t.CertKey)
	}
	if k.AuditOn() {
		for i, s := range k.Audit.Sinks {
			if s.CertKey != "" {
				look(fmt.Sprintf("%s[%d].cert_key", keyAuditSink, i), s.CertKey)
			}
		}
	}
}

func (k *checking) weakFile(key, path string, mode fs.FileMode) {
	k.weak = append(k.weak, Fault{Key: key, Value: clip(path), Rule: "is a file that others may read (" + modeText(mode) + ")"})
}

func modeText(mode fs.FileMode) string { return fmt.Sprintf("mode %04o, should be 0600", mode.Perm()) }

// hideSecrets replaces every secret of the configuration by its placeholder.
func (c *Config) hideSecrets() {
	for _, k := range known().keys {
		if f := k.field(c); f.Type() == secretType {
			f.Set(reflect.ValueOf(Secret(f.Interface().(Secret).String())))
		}
	}
}
