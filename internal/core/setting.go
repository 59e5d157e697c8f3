package core

import (
	"errors"
	"slices"
	"strings"
	"time"
	"weak"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// Programs SET something for each request: the search_path or the role of a tenant, the
// time zone of a user. To ask after each of them what the session is now would cost more
// than the cache saves. A setting that is in no key costs nothing (keying.Plan.Session). Of the
// others the state that follows is put together from what is known:
//
//	the value   of the text, as PostgreSQL wrote it when it was asked the first time;
//	            what it has reported by itself, of some settings; what RESET gave before
//	the path    of a search_path and a role, as long as the catalog is the same
//
// What is not known is asked once, before the next statement that needs it. The end
// of a transaction undoes what SET LOCAL has done, a rollback everything:
//
//	BEGIN                     began   kept   now
//	SET LOCAL TimeZone = 'a'  s       s      s(a)
//	SET TimeZone = 'b'        s       s(b)   s(b)
//	COMMIT                                   kept
//	ROLLBACK                                 began
//
// Whatever may do more than change one setting makes the state unknown: code that is not
// seen, ROLLBACK TO, several statements in one text, a pooler that may lead elsewhere.

// stance is what is known of the settings of a connection's session, and of its temporary objects.
type stance struct {
	session     *planning.Session // nil if nothing is
	view        *space.View       // see state
	commits     backend.CommitMode
	limit       time.Duration // see patience
	temporaries *keying.Temporaries
}

// change is one statement that changes one setting, or all of them to their defaults, or temporary objects.
type change struct {
	keying.Setting
	temporary *keying.TemporaryChange // nil if it changes settings
	key       store.Key               // of the text with its values, in before
	before    stance
	keeps     bool // COMMIT keeps what it leaves
}

// stance is nothing where the next statement may run in another session, and where
// the session was asked for too long ago.
func (c *Conn) stance() stance {
	if !c.known.current() || time.Since(c.asked) > patience.Setting || len(c.known.session.Values) <= backend.FirstSetting || c.known.session.Placed || c.pid == 0 || c.misread {
		return stance{}
	}
	return stance{c.known.session, c.known.view, c.commits, c.limit, c.known.temporaries}
}

// stand records what the settings are.
func (c *Conn) stand(s stance) {
	if c.forget(); s.session != nil {
		c.known.session, c.known.view, c.known.temporaries, c.commits = s.session, s.view, s.temporaries, s.commits
	}
}

// changedBy returns what q does to the settings, nil if that is not known.
func (s stance) changedBy(q *call, tx *txState) *change {
	if s.session == nil || !q.ours {
		return nil
	}
	if t := q.text.Plan.Temporary; t != nil {
		return &change{temporary: t, before: s}
	}
	if q.text.Plan.Sets == nil {
		return nil
	}
	for i := range q.values {
		if _, ok := q.values[i].Value.(string); !ok {
			return nil // NULL is the default
		}
	}
	ch := &change{Setting: *q.text.Plan.Sets, before: s}
	ch.key, _, _ = q.text.Plan.Key(&s.session.Digests[0], q.keyingValues(), nil)
	ch.keeps = tx != nil && !ch.Local && !tx.asks && (!tx.session || tx.kept == s)
	return ch
}

// changed records what the statements have done to the settings. err is their own.
func (c *Conn) changed(s *sideEffects, err error) {
	tx, ch := c.tx, s.change
	if !s.session && (tx == nil || !tx.session || !s.undoes && !s.asks) {
		return
	}
	c.forget()
	if tx != nil && s.undoes && !s.stays {
		tx.began = stance{} // another transaction may be open than the one that began there
	}
	switch {
	case ch == nil:
		if tx != nil {
			tx.kept = stance{}
		}
	case err != nil:
		if tx == nil && !c.inner.Closed() && errors.As(err, new(*pgconn.PgError)) {
			c.stand(ch.before)
		}
	default:
		after := c.after(ch)
		if tx != nil && !ch.Local {
			tx.keep(c.d, ch, after, tx.asks)
		}
		if c.stand(after); after.session == nil {
			c.unsettled = ch
		}
	}
}

// keep records what COMMIT leaves of a change that is not undone by it.
func (t *txSettings) keep(d *DB, ch *change, after stance, asks bool) {
	if ch.temporary != nil && after.session != nil {
		_, t.kept.temporaries, _ = ch.temporary.After(ch.before.temporaries, t.kept.temporaries)
		return
	}
	switch i, ok := valueOf(ch.Name); {
	case ch.keeps:
		t.kept = after
	case t.kept.session == nil || after.session == nil || !ok || asks || ch.Name == "datestyle" || t.kept.view != after.view:
		t.kept = stance{}
	default: // to the same value
		t.kept.session = d.derive(t.kept.session, t.kept.view, i, after.session.Values[i])
	}
}

// leave ends what is known of the transaction, which is over.
func (c *Conn) leave() {
	tx := c.tx
	c.tx = nil
	if tx.durability {
		c.commits = backend.CommitUnknown
	}
	if tx.session {
		c.since.temporaries = nil // some may be there again
	}
	switch {
	case !tx.session:
	case tx.end == endCommitted:
		c.stand(tx.kept)
	case tx.end == endRolledBack:
		c.stand(tx.began)
	default:
		c.forget()
	}
}

// after returns what a change has left, which is nothing where that has to be asked.
func (c *Conn) after(ch *change) stance {
	s := ch.before
	switch {
	case ch.temporary != nil && ch.temporary.UntilCommit && c.tx == nil: // that was at once
		return s
	case ch.temporary != nil:
		now, _, ok := ch.temporary.After(s.temporaries, nil)
		if !ok {
			return stance{}
		}
		s.temporaries = now
		return s
	case ch.Local && c.tx == nil: // PostgreSQL warns, and does nothing
		return s
	case ch.Name == "":
		if home := c.home.session; home == nil || c.home.view != s.view || !ch.Discard && !slices.Equal(home.Values[:backend.ValuePath], s.session.Values[:backend.ValuePath]) {
			return stance{}
		}
		c.limit = c.home.limit
		home := c.home
		if home.temporaries = s.temporaries; ch.Discard {
			home.temporaries = nil
		}
		return home
	case ch.Name == "synchronous_commit" && c.tx != nil:
		s.commits = backend.CommitUnknown
		return s
	}
	i, ok := valueOf(ch.Name)
	if !ok {
		return stance{}
	}
	value, ok := c.given(ch, i)
	if !ok {
		return stance{}
	}
	s.session = c.d.derive(s.session, s.view, i, value)
	return s
}

// given returns the value that the change has given its setting.
func (c *Conn) given(ch *change, i int) (value string, ok bool) {
	home := c.home.session
	switch name := reported[ch.Name]; {
	case name != "" && c.reports && c.parameter(name) != "":
		return c.parameter(name), true
	case !ch.Default:
		return c.d.given.Get(givenKey{ch.key, weak.Make(ch.before.view)})
	case i == backend.ValueUser: // whoever SET SESSION AUTHORIZATION has made the session's
		if home == nil || !slices.Equal(home.Values[:backend.ValueUser], ch.before.session.Values[:backend.ValueUser]) {
			return "", false
		}
		return home.Values[i], true
	case home != nil:
		return home.Values[i], true
	}
	value, ok = c.defaults[ch.Name]
	return value, ok
}

// settled records what the session was found to be. ch has led there, nil if that is not known.
func (c *Conn) settled(ch *change) {
	now := c.stance()
	if now.session == nil {
		c.home, c.defaults = stance{}, nil
		return
	}
	d := c.d
	d.paths.Keep(pathOf(now.session, now.view), now.session.Path, 1)
	switch i, ok := valueOf(chName(ch)); {
	case ch == nil || !ok && !ch.Discard:
		c.home, c.defaults = stance{}, nil // whatever has come between may have loaded the configuration again
		if c.pristine && c.tx == nil && !d.eager {
			c.home = now
		}
	case ch.Discard:
		c.home = now
	case ch.before.view == now.view && now.session.Same(&d.derive(ch.before.session, now.view, i, now.session.Values[i]).Session):
		if !ch.Default {
			d.given.Keep(givenKey{ch.key, weak.Make(now.view)}, now.session.Values[i], 1)
		} else {
			if c.defaults == nil {
				c.defaults = make(map[string]string)
			}
			c.defaults[ch.Name] = now.session.Values[i]
		}
	}
	if ch != nil && ch.keeps && c.tx != nil && c.tx.kept.session == nil && !c.tx.asks {
		c.tx.kept = now
	}
}

func chName(ch *change) string {
	if ch == nil {
		return ""
	}
	return ch.Name
}

// valueOf says where a setting is among a session's values, if nothing but its value and the
// effective search_path follows from it.
func valueOf(name string) (i int, ok bool) {
	switch name {
	case "search_path":
		return backend.ValuePath, true
	case "role":
		return backend.ValueUser, true
	case "client_encoding", "standard_conforming_strings", "backslash_quote": // by which texts are read
		return 0, false
	}
	i = slices.IndexFunc(keying.Settings, func(s string) bool { return strings.EqualFold(s, name) })
	return backend.FirstSetting + i, i >= 0
}

// reported are settings of which PostgreSQL tells by itself what they are after a statement,
// by their names in lower case. Of search_path it does so from version 18 on.
var reported = map[string]string{"timezone": "TimeZone", "datestyle": "DateStyle", "intervalstyle": "IntervalStyle", "search_path": "search_path"}

func (c *Conn) parameter(name string) string {
	if in, ok := c.inner.(backend.Wire); ok {
		return in.Parameter(name)
	}
	return ""
}

// agrees reports that the session is what PostgreSQL tells by itself, such as after it has
// loaded its configuration again.
func (c *Conn) agrees() bool {
	return !c.reports || c.known.session == nil || c.reportsAs(c.known.session)
}

// reportsAs reports that what PostgreSQL tells by itself is what the session has.
func (c *Conn) reportsAs(s *planning.Session) bool {
	if len(s.Values) <= backend.FirstSetting {
		return true
	}
	for _, r := range reportedValues {
		if value := c.parameter(r.name); value != "" && value != s.Values[r.at] {
			return false
		}
	}
	return true
}

var reportedValues = func() (values []struct {
	name string
	at   int
}) {
	for lower, name := range reported {
		i, _ := valueOf(lower)
		values = append(values, struct {
			name string
			at   int
		}{name, i})
	}
	return values
}()

// derivation is a session in which one value is changed.
type derivation struct {
	from  *planning.Session
	view  weak.Pointer[space.View]
	at    int
	value string
}

// A key names a view and does not keep it: a catalog may be large, and there are thousands of keys.

// givenKey is what the value follows from that a text gives a setting: the name of a
// configuration for text search is looked up.
type givenKey struct {
	text store.Key // see change
	view weak.Pointer[space.View]
}

// pathKey is what the effective search_path follows from, as long as the catalog is the same.
type pathKey struct {
	id         backend.Identity
	view       weak.Pointer[space.View]
	user, path string
}

func pathOf(s *planning.Session, v *space.View) pathKey {
	return pathKey{s.ID, weak.Make(v), s.Values[backend.ValueUser], s.Values[backend.ValuePath]}
}

const (
	maxGiven   = 4096 // texts of SET, with their values
	maxDerived = 4096
)

// derive returns the session that differs from one in a value alone and in what
// follows from it, nil if that is not known. Both are shared.
func (d *DB) derive(from *planning.Session, v *space.View, at int, value string) *planning.Session {
	if from.Values[at] == value {
		return from
	}
	key := derivation{from, weak.Make(v), at, value}
	s, ok := d.derived.Get(key)
	if !ok {
		s = &planning.Session{Session: backend.Session{ID: from.ID, Standby: from.Standby, Values: slices.Clone(from.Values), Path: from.Path,
			Isolation: from.Isolation, ReadCommitted: from.ReadCommitted, Reading: from.Reading}}
		s.Values[at] = value
		if at == backend.ValueUser || at == backend.ValuePath {
			if backend.PlacesTemporaries(s.Values[backend.ValuePath]) {
				return nil
			}
			if s.Path, ok = d.paths.Get(pathOf(s, v)); !ok {
				return nil
			}
		}
		s.Seal()
		s = d.derived.Keep(key, s, 1)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shareLocked(s)
}

// sharedLocked is shareLocked of a session that PostgreSQL was asked for.
func (d *DB) sharedLocked(t *backend.Session) *planning.Session {
	if known := d.sessions[t.Digests[0]]; known != nil && (known.State != "" || t.State == "") {
		return known
	}
	return d.shareLocked(&planning.Session{Session: *t})
}

// shareLocked returns the copy of the session that all connections share.
func (d *DB) shareLocked(s *planning.Session) *planning.Session {
	switch known := d.sessions[s.Digests[0]]; {
	case known == nil && len(d.sessions) >= maxSessions:
		planning.DropOne(d.sessions)
	case known == nil, known.State == "" && s.State != "":
	default:
		return known
	}
	d.sessions[s.Digests[0]] = s
	return s
}
