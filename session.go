package cachedpg

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	encodingjson "encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// formatVersion goes into every key: results stored by a version that encodes
// them differently are never found. So does the start of the server: with it the
// libraries change that order texts.
const formatVersion = 3

// session is what a result depends on outside its text, arguments and tables,
// as one connection had it when it was asked. It is immutable but for plans
// and shared by all connections in the same state.
type session struct {
	id      identity
	standby bool

	// commits, limit and schemas are of the connection that has learned it: they are in no key.
	commits     commitMode
	limit       time.Duration // PostgreSQL ends a statement after it, or after waiting so long for a lock; 0 is never
	schemas     catalog.Schemas
	level       isolation // of the transaction that it was asked in
	temporary   bool      // there is a schema for temporaries
	temporaries *keying.Temporaries

	state         string   // sessionState; "" of one that was never asked for, see derive
	values        []string // of settingValues
	path          []string // current_schemas(true), without temporary objects
	pathKey       string
	isolation     string // default_transaction_isolation
	readCommitted bool   // what that is
	placed        bool   // search_path says where temporary objects are looked for
	reading

	// digests goes into keys, one per pgx.QueryExecMode: the mode decides how
	// arguments are typed and in which format values come back.
	digests [pgx.QueryExecModeSimpleProtocol + 1][32]byte

	plans  atomic.Pointer[planSet]
	queued atomic.Pointer[encodingjson.RawMessage] // see queuedSettings
}

// sessionState is an expression that differs when settings of the session do. stateOf makes the same of their texts:
// for a new connection PostgreSQL would take as long for it as for a quarter of the question.
var sessionState = "pg_catalog.md5(pg_catalog.concat_ws(pg_catalog.chr(10), pg_catalog.current_schemas(false)::pg_catalog.text[]::pg_catalog.text," +
	" pg_catalog.current_setting('default_transaction_isolation'), " + settingValues + "::pg_catalog.text))"

func stateOf(schemas, isolation, values []byte) string {
	sum := md5.Sum(bytes.Join([][]byte{schemas, isolation, values}, []byte{10}))
	return hex.EncodeToString(sum[:])
}

// settingValues is the array of what goes into keys as it is.
var settingValues = "ARRAY[pg_catalog.current_database()::pg_catalog.text, session_user::pg_catalog.text, current_user::pg_catalog.text," +
	" pg_catalog.current_setting('search_path'), pg_catalog.current_setting('server_version_num')" +
	func() (calls string) {
		for _, s := range keying.Settings {
			calls += ", coalesce(pg_catalog.current_setting('" + s + "', true), '')"
		}
		return calls
	}() + "]"

var sessionQuery = questionOfSession + `, ` + timelineSQL + `, ` + databaseSQL + `, ` + nameSQL + `, ` + startedSQL + `,
 pg_catalog.pg_backend_pid()::pg_catalog.int8,
 pg_catalog.current_schemas(true)::pg_catalog.text[],
 pg_catalog.current_setting('default_transaction_isolation'),
 pg_catalog.current_setting('standard_conforming_strings'),
 pg_catalog.current_setting('synchronous_commit'),
 ` + limitsSQL + `,
 pg_catalog.current_schemas(false)::pg_catalog.text[]::pg_catalog.text, ` + settingValues + `, ` + catalog.SchemasSQL + `, pg_catalog.current_setting('transaction_isolation'),
 pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid`

// Where the answer has what stateOf is made of.
const (
	columnIsolation = 7
	columnSchemas   = 11
	columnValues    = 12
)

// temporariesQuery is asked of a session that has a temporary schema, by itself: it needs the tables
// of the catalog, on which somebody may hold a lock.
const temporariesQuery = "SELECT " + keying.TemporariesSQL

// readSession reads the state of the session that conn is in from the answer to
// sessionQuery. That takes one round trip and no prepared statement, so that it works behind
// a pooler too. pid is the backend's, which behind a pooler is not the one that
// pgx was told.
func readSession(conn *pgx.Conn, result *pgconn.Result) (s *session, pid uint32, err error) {
	s = &session{}
	var level, standardText, synchronous, limits string
	for i, dest := range []any{&s.id.system, &s.id.timeline, &s.id.database, &s.id.name, &s.id.started, &pid, &s.path, &s.isolation, &standardText, &synchronous, &limits,
		&s.state, &s.values, &s.schemas, &level, &s.temporary} {
		if result.Err == nil {
			result.Err = conn.TypeMap().Scan(result.FieldDescriptions[i].DataTypeOID, pgx.TextFormatCode, result.Rows[0][i], dest)
		}
	}
	if result.Err != nil {
		return nil, 0, result.Err
	}
	s.state = stateOf(result.Rows[0][columnSchemas], result.Rows[0][columnIsolation], result.Rows[0][columnValues])
	s.standby = s.id.timeline == ""
	s.readCommitted = isolationOf(s.isolation) == isolationReadCommitted
	s.level = isolationOf(level)
	s.reading = newReading(standardText == "on", s.setting("client_encoding"), conn.PgConn().ParameterStatus("server_encoding"))
	s.commits, s.limit = commitModeOf(synchronous), shortest(limits)
	s.path = slices.DeleteFunc(s.path, parser.IsTemporary)
	s.seal()
	return s, pid, nil
}

// seal fixes what follows from the path and the values.
func (s *session) seal() {
	s.pathKey = strings.Join(s.path, "\x00")
	s.placed = len(s.values) > valuePath && placesTemporaries(s.values[valuePath])
	b := []byte{formatVersion}
	for _, v := range slices.Concat([]string{s.id.text(), s.pathKey, s.isolation}, s.values) {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	for mode := range s.digests {
		s.digests[mode] = sha256.Sum256(append(b, byte(mode)))
	}
}

// setting is the value of one of keying.Settings.
func (s *session) setting(name string) string {
	if i := slices.Index(keying.Settings, name); i >= 0 && firstSetting+i < len(s.values) {
		return s.values[firstSetting+i]
	}
	return ""
}

// same reports whether keys made in s and in other mean the same.
func (s *session) same(other *session) bool {
	return s == other || s.digests[0] == other.digests[0]
}

// state is where a connection stands: a session, the space of its database,
// and the catalog in use when the session was learned, or one with the same schemas. The
// effective search_path depends on which schemas exist, so that one with others wants it learned again.
type state struct {
	session     *session // nil when not known, because a statement may have changed it
	space       *space   // nil when nothing may be cached there
	view        *view
	schemas     catalog.Schemas
	temporaries *keying.Temporaries // known if session is
}

// fits reports that a session that was learned with these schemas is what it was with the catalog v.
func (st *state) fits(v *view) bool {
	schemas := st.schemas
	if st.view != nil {
		schemas = st.view.snapshot.Schemas() // a SET may have led to it since, which was looked up with that
	}
	return st.session != nil && st.temporaries == nil && schemas != "" && schemas == v.snapshot.Schemas()
}

// current reports that nothing has happened since the state was learned.
func (st *state) current() bool {
	return st != nil && st.session != nil && (st.space == nil || st.view != nil && st.space.view.Load() == st.view)
}

// state returns what is known of the session that will run a statement; it
// asks PostgreSQL for what is not. An error is one of dialling.
func (c *Conn) state(ctx context.Context) (*state, error) {
	if c.inner == nil {
		if known := c.d.known.Load(); known.current() && known.space.before.Load().warm.Load() { // else it is asked, see isWarm
			return known, nil
		}
	} else if c.joinLate(); c.known.current() && !c.promoted() && c.agrees() && c.since.holds(c.known.view) {
		return &c.known, nil
	}
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if c.inner.txStatus() != 'I' && c.tx != nil {
		return c.stateInTx(ctx), nil
	}
	if c.known.session == nil || c.moved() || !c.agrees() {
		_ = c.learn(ctx) // unknown stays unknown
	}
	sp := c.known.space
	if sp == nil || c.known.session == nil {
		c.renew(ctx, nil)
		return &c.known, nil
	}
	v := sp.view.Load()
	if v == nil {
		v = sp.loads.await(ctx, nil, c.d.readPatience)
	}
	switch {
	case v == nil || c.known.view == v || c.known.space != sp:
	case c.known.fits(v):
		c.known.view = v
		c.settled(nil) // as if it had been asked
		c.publish()
	default:
		_ = c.learn(ctx)
	}
	c.renew(ctx, v)
	return &c.known, nil
}

// stateInTx is state in the caller's transaction. Nothing is asked in it before the caller has
// run a statement there that fixes its snapshot, and its isolation level with it: a question would do that.
//
//	caller                                  driver
//	BEGIN
//	SET TRANSACTION ISOLATION LEVEL …
//	                                        (SELECT …)
//	                                        (25001: must be called before any query)
//
// So what there is to ask is asked before the transaction begins. If the catalog is replaced while it
// lasts, its writes are planned with the one of before, which its commit finds out,
// and its reads ask PostgreSQL.
func (c *Conn) stateInTx(ctx context.Context) *state {
	if c.known.session == nil || !c.agrees() {
		_ = c.learn(ctx)
	}
	if !c.mustNotAsk() && c.known.view != nil {
		c.renew(ctx, c.known.view) // what was prepared before is of the catalog before
	}
	return &c.known
}

// standbyFor is how long it is believed, where PostgreSQL does not tell by
// itself, that a server is still a standby.
const standbyFor = 2 * time.Second

// promoted reports that the connection was to a standby which may not be one any
// more. PostgreSQL tells by itself after the first statement that it answers since.
func (c *Conn) promoted() bool {
	s := c.known.session
	return s != nil && s.standby && (c.inStandby() == "off" || time.Since(c.asked) > standbyFor)
}

// inStandby is "on" if the server was a standby when it had answered last, "off"
// if not, or "" where nobody tells.
func (c *Conn) inStandby() string {
	if in, ok := c.inner.(interface{ parameter(name string) string }); ok && c.pid != 0 {
		return in.parameter("in_hot_standby")
	}
	return ""
}

// drifts reports that a statement on the connection may reach another server, or a standby that
// is none any more, than what is known of it says.
func (c *Conn) drifts() bool {
	return c.located && (c.pid == 0 || c.known.session != nil && c.known.session.standby)
}

// joinLate lets a DB that caches nothing join the space of those who do, as
// soon as there is one: its writes concern them.
func (c *Conn) joinLate() {
	if c.d.config.Store != storeOff || c.known.session == nil || c.known.space != nil {
		return
	}
	if _, sp, err := c.d.adopt(c.known.session, sighting{}); err == nil && sp != nil {
		sp.enter()
		c.known.space, c.known.view = sp, nil
	}
}

// learn asks for the session's state. Without an answer it is unknown: reads
// bypass, and writes invalidate everything in the space that was known before.
func (c *Conn) learn(ctx context.Context) error {
	expected := c.known.space
	again := expected != nil && expected.superseded.Load()
	if expected == nil {
		expected = c.d.space()
	}
	var before *view
	if expected != nil {
		before = expected.view.Load()
	}
	change := c.unsettled
	c.known.session = nil
	if !c.mustNotAsk() { // else it is settled when it may be asked, unless another statement changes the settings before
		c.unsettled = nil
	}
	if c.known.space == nil && expected != nil {
		c.known.space = expected
		expected.enter()
	}
	switch status := c.inner.txStatus(); {
	case status == 'E':
		return nil // PostgreSQL answers nothing there
	case time.Since(c.refused) < refusedFor, c.tx != nil && c.tx.refused:
		return nil // it is not asked at every statement
	case c.mustNotAsk():
		return nil
	}
	if c.tx != nil && c.tx.asks {
		c.tx.session = true // its code may have set what its end undoes
	}
	var configured uint64
	if expected != nil {
		configured = expected.configured.Load() // before the question
	}
	s, pid, err := c.inner.learn(ctx)
	c.d.problems.note(workSession, err)
	if err != nil {
		c.since.session = unknownSession // for what is prepared from now on
		if errors.As(err, new(*pgconn.PgError)) {
			c.unlearned()
		}
		return err
	}
	c.located, c.refused, c.asked = true, time.Time{}, time.Now()
	if c.pid = 0; pid == c.inner.backend() {
		c.pid = pid
	}
	c.commits, c.configured = s.commits, configured
	if c.inner.txStatus() == 'I' { // else it was asked under other limits
		c.limit = s.limit
	}
	session, sp, err := c.d.adopt(s, sighting{direct: c.pid != 0, again: again && s.id == expected.key.identity})
	if err != nil {
		_ = c.inner.Close()
		return err
	}
	if sp != nil {
		c.d.isHome(s.id, c.inner)
	}
	c.known.session, c.reports = session, c.reportsAs(session)
	c.misread = c.misread || !session.standardText
	if sp != nil && sp != expected { // of a space that was not known before the question
		c.configured = 0
	}
	if sp != c.known.space {
		if sp != nil {
			sp.enter()
		}
		if c.known.space != nil {
			c.known.space.leave()
		}
		c.known.space = sp
	}
	if sp != nil && s.commits == commitAsync {
		sp.asynchronous.Store(true)
	}
	if c.known.view = before; sp != expected {
		c.known.view = nil
	}
	c.known.schemas = s.schemas
	c.known.temporaries, c.foundIn = s.temporaries, c.tx
	if c.tx != nil {
		c.tx.isolation = s.level
	}
	c.settled(change)
	c.publish()
	return nil
}

// unlearned takes in that PostgreSQL does not tell: the role of the session for a while, one that was set in the
// transaction for as long as that lasts.
func (c *Conn) unlearned() {
	if c.tx != nil && c.tx.session {
		c.tx.refused = true
		return
	}
	c.refused = time.Now()
}

// publish has new connections begin with what is known of this one, if it tells how
// they do.
func (c *Conn) publish() {
	sp := c.known.space
	switch {
	case c.tx != nil || !c.pristine || c.misread || sp == nil:
	case c.isNew(sp) && (!c.d.eager || c.d.places == nil):
		known := c.known
		c.d.known.Store(&known)
		c.d.limit.Store(int64(c.limit))
	case c.placed:
		c.d.lend(c.link)
	}
}

// isNew reports that a connection dialled now would begin as this one did:
// ALTER ROLE and ALTER DATABASE change the settings of new sessions alone, and
// they change the catalog.
func (c *Conn) isNew(sp *space) bool {
	v := sp.view.Load()
	switch {
	case c.dialled.space != sp: // nobody knew which it would be
		c.dialled.space, c.dialled.view, c.dialled.generation = sp, v, sp.gens.Current()
	case c.dialled.view == nil:
		c.dialled.view = v
	}
	return c.dialled.view == v && c.dialled.generation == sp.gens.Current()
}
