package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A ticket is "rtcdwt_", an id, "_" and a secret. The id may be logged, the secret may not. It is longer
// than a key or a token can be, so that none is ever taken for another.
const (
	ticketPrefix      = "rtcdwt_"
	ticketIDBytes     = 16
	ticketIDChars     = 26 // base32 of ticketIDBytes
	ticketSecretBytes = 32
	ticketSecretChars = 43 // base64 of ticketSecretBytes
	ticketChars       = len(ticketPrefix) + ticketIDChars + 1 + ticketSecretChars

	// DefaultTicketTTL is how long a ticket can be used.
	DefaultTicketTTL = time.Minute
	// maxTicketTTL bounds Config.TicketTTL.
	maxTicketTTL        = time.Hour
	maxTicketsPerClient = 64
	maxTickets          = 16_384
)

var ticketIDEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// A Binding says who may use a ticket beside having it.
type Binding struct {
	// Addr is the address that it is for: all of its /64 if it is IPv6. The zero value, or a
	// Config.TicketBind without "addr", is any.
	Addr netip.Addr
	// CertSHA256 is of the certificate that has to be presented, the zero value if it does not matter.
	CertSHA256 [sha256.Size]byte
}

// tickets holds the tickets that were not used yet, by id. Of a secret it has the SHA-256 alone.
type tickets struct {
	mu       sync.Mutex // guards the fields below
	byID     map[ticketID]ticketEntry
	byClient map[string][]ticketID // in the order they were made, and so of their expiry
}

type ticketID [ticketIDBytes]byte

type ticketEntry struct {
	sum      [sha256.Size]byte
	clientID string
	epoch    uint64
	expires  time.Time
	network  netip.Prefix // zero: any
	cert     [sha256.Size]byte
}

func newTickets() *tickets {
	return &tickets{byID: make(map[ticketID]ticketEntry), byClient: make(map[string][]ticketID)}
}

// parseTicket takes a ticket apart.
func parseTicket(ticket string) (id ticketID, secret string, err error) {
	if len(ticket) != ticketChars || !strings.HasPrefix(ticket, ticketPrefix) {
		return ticketID{}, "", ErrTicketInvalid
	}
	name, secret := ticket[len(ticketPrefix):][:ticketIDChars], ticket[ticketChars-ticketSecretChars:]
	if ticket[len(ticketPrefix)+ticketIDChars] != '_' {
		return ticketID{}, "", ErrTicketInvalid
	}
	b, err := ticketIDEncoding.DecodeString(name)
	// 26 characters hold 130 bits: those beyond the id are 0, or one ticket would have several forms.
	if err != nil || len(b) != ticketIDBytes || ticketIDEncoding.EncodeToString(b) != name {
		return ticketID{}, "", ErrTicketInvalid
	}
	return ticketID(b), secret, nil
}

// issue returns a new ticket for what e says but its sum.
func (t *tickets) issue(e ticketEntry, now time.Time) (string, error) {
	id := ticketID(random(ticketIDBytes))
	secret := base64.RawURLEncoding.EncodeToString(random(ticketSecretBytes))
	e.sum = sha256.Sum256([]byte(secret))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(e.clientID, now)
	unused := t.byClient[e.clientID]
	switch {
	case len(unused) >= maxTicketsPerClient:
		wait := t.byID[unused[0]].expires.Sub(now)
		return "", &LimitError{Limit: "tickets_per_client", RetryAfter: max(wait, time.Second)}
	case len(t.byID) >= maxTickets:
		return "", &LimitError{Limit: "tickets", RetryAfter: sweepInterval}
	}
	t.byID[id] = e
	t.byClient[e.clientID] = append(unused, id)
	return ticketPrefix + ticketIDEncoding.EncodeToString(id[:]) + "_" + secret, nil
}

// take uses a ticket up, and returns what it says if it is alive. Of several calls at once one gets it. A
// wrong secret uses nothing up: the id is no secret.
func (t *tickets) take(ticket string, now time.Time) (ticketEntry, error) {
	id, secret, err := parseTicket(ticket)
	if err != nil {
		return ticketEntry{}, err
	}
	sum := sha256.Sum256([]byte(secret))
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.byID[id]
	if subtle.ConstantTimeCompare(sum[:], e.sum[:]) != 1 || !ok {
		return ticketEntry{}, ErrTicketInvalid
	}
	t.drop(id)
	if !now.Before(e.expires) {
		return ticketEntry{}, ErrTicketInvalid
	}
	return e, nil
}

// drop removes a ticket. The caller holds mu.
func (t *tickets) drop(id ticketID) {
	clientID := t.byID[id].clientID
	delete(t.byID, id)
	unused := t.byClient[clientID]
	for i := range unused {
		if unused[i] == id {
			unused = append(unused[:i], unused[i+1:]...)
			break
		}
	}
	if len(unused) == 0 {
		delete(t.byClient, clientID)
		return
	}
	t.byClient[clientID] = unused
}

// expire removes what has expired of a client. The caller holds mu.
func (t *tickets) expire(clientID string, now time.Time) {
	for {
		unused := t.byClient[clientID]
		if len(unused) == 0 || now.Before(t.byID[unused[0]].expires) {
			return
		}
		t.drop(unused[0])
	}
}

func (t *tickets) revokeClient(clientID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range t.byClient[clientID] {
		delete(t.byID, id)
	}
	delete(t.byClient, clientID)
}

func (t *tickets) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for clientID := range t.byClient {
		t.expire(clientID, now)
	}
}
