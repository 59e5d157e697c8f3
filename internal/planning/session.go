package planning

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// Session is one that all connections in the same state share, with what was made for it.
type Session struct {
	backend.Session

	plans  atomic.Pointer[planSet]
	Queued behind.Settings
}

// Hints are what a caller asks for one query, by context or by comment.
type Hints struct {
	Bypass bool
	TTL    time.Duration
}

// dated reports that the zone and the style of dates may decide what PostgreSQL reads when it
// prepares a text: in a literal of it, or of a function that it calls. Every other setting may
// decide that without any: NULL is compared with by transform_null_equals, and (1/3.0)::text is a
// constant of the extra_float_digits of then.
func dated(scanned parser.Scanned, plan *keying.Plan) bool {
	return scanned.Text == "" || plan.Calls || slices.ContainsFunc(scanned.Literals, func(l parser.Literal) bool { return l.Kind == parser.String })
}

// ReadsLike reports that what is prepared in s is what it would be in other.
func (s *Session) ReadsLike(other *Session, dated bool) bool {
	if len(s.Values) != len(other.Values) || len(s.Values) <= backend.FirstSetting || s.Reading != other.Reading {
		return false
	}
	for i := backend.FirstSetting; i < len(s.Values); i++ {
		if s.Values[i] != other.Values[i] && (dated || i != valueTimeZone && i != valueDateStyle) {
			return false
		}
	}
	return true
}

var (
	valueTimeZone  = backend.FirstSetting + slices.Index(keying.Settings, "TimeZone")
	valueDateStyle = backend.FirstSetting + slices.Index(keying.Settings, "DateStyle")
)

// Unreadable stands in for the session of a connection on which
// standard_conforming_strings was off once: a statement that was prepared then
// means for ever what it meant then.
func (s *Session) Unreadable() *Session {
	return &Session{Session: backend.Session{Path: s.Path, PathKey: s.PathKey, Reading: backend.Reading{Foreign: s.Foreign, Encoded: s.Encoded}}}
}
