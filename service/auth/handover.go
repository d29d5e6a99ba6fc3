package auth

import "time"

// State is what a Service knows of keys and tokens that were right, for the process that takes over
// from this one. No key and no token is in it, but who has it can try keys quickly: it is as secret as
// the memory of the process.
type State struct {
	Secret []byte       // of the credentials
	Keys   []keyState   `json:",omitempty"`
	Tokens []tokenState `json:",omitempty"`
}

// keyState is a key that was verified lately.
type keyState struct {
	Credential []byte
	Client     string
	Epoch      uint64
	Left       time.Duration // until it is forgotten
}

// tokenState is a token.
type tokenState struct {
	Sum    []byte // SHA-256
	Client string
	Epoch  uint64
	Left   time.Duration // until it expires
}

// Export returns what the Service knows.
func (s *Service) Export() State {
	now := time.Now()
	return State{Secret: s.verified.secret, Keys: s.verified.export(now), Tokens: s.tokens.export(now)}
}

// Import makes a new Service, which has not verified anything yet, know what another one over the same store
// knew. What is malformed is left out: whom it stands for proves their key anew. Times go on from where they
// were at Export, and none is longer than it would be here.
func (s *Service) Import(st State) {
	if len(st.Secret) != len(s.verified.secret) {
		return
	}
	now := time.Now()
	s.verified.take(st.Secret, st.Keys, now)
	s.tokens.take(st.Tokens, now, s.tokenLifetime)
}

func (v *verifiedKeys) export(now time.Time) (keys []keyState) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c, e := range v.entries {
		left := e.expires.Sub(now)
		if e.held > 0 {
			left = verifiedLifetime
		}
		if left > 0 {
			keys = append(keys, keyState{Credential: c[:], Client: e.id, Epoch: e.epoch, Left: left})
		}
	}
	return keys
}

// take adds keys, and their secret. Nobody else may use v meanwhile, or have used it.
func (v *verifiedKeys) take(secret []byte, keys []keyState, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secret = secret
	for _, k := range keys {
		if len(k.Credential) != len(credential{}) || len(v.entries) >= maxVerified {
			continue
		}
		v.entries[credential(k.Credential)] = &verifiedKey{
			id: k.Client, epoch: k.Epoch, expires: now.Add(min(k.Left, verifiedLifetime)),
		}
	}
}

func (t *tokens) export(now time.Time) (all []tokenState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sum, e := range t.bySum {
		if left := e.expires.Sub(now); left > 0 {
			all = append(all, tokenState{Sum: sum[:], Client: e.clientID, Epoch: e.epoch, Left: left})
		}
	}
	return all
}

// take adds tokens, which live for most at the longest.
func (t *tokens) take(all []tokenState, now time.Time, most time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, st := range all {
		if len(st.Sum) != len(tokenSum{}) || len(t.bySum) >= maxTokens {
			continue
		}
		t.replace(t.byClient[st.Client], tokenSum(st.Sum), tokenEntry{
			clientID: st.Client, epoch: st.Epoch, expires: now.Add(min(st.Left, most)),
		})
	}
}
