package backend

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// FormatVersion goes into every key: results stored by a version that encodes
// them differently are never found. So does the start of the server: with it the
// libraries change that order texts.
const FormatVersion = 3

// Session is what a result depends on outside its text, arguments and tables,
// as one connection had it when it was asked. Once it is sealed nobody changes it.
type Session struct {
	ID      Identity
	Standby bool

	// Commits, Limit and Schemas are of the connection that has learned it: they are in no key.
	Commits     CommitMode
	Limit       time.Duration // PostgreSQL ends a statement after it, or after waiting so long for a lock; 0 is never
	Schemas     catalog.Schemas
	Level       Isolation // of the transaction that it was asked in
	temporary   bool      // there is a schema for temporaries
	Temporaries *keying.Temporaries

	State         string   // StateSQL; "" of one that was never asked for, but derived
	Values        []string // of settingValues, see ValueUser
	Path          []string // current_schemas(true), without temporary objects
	PathKey       string   // of Path, for keys of plans
	Isolation     string   // default_transaction_isolation
	ReadCommitted bool     // what that is
	Unchecked     bool     // foreign keys are not: session_replication_role is replica
	Placed        bool     // search_path says where temporary objects are looked for
	Reading

	// Digests goes into keys, one per pgx.QueryExecMode: the mode decides how
	// arguments are typed and in which format values come back.
	Digests [pgx.QueryExecModeSimpleProtocol + 1][32]byte
}

// StateSQL is an expression that differs when settings of the session do. stateOf makes the same of their texts:
// for a new connection PostgreSQL would take as long for it as for a quarter of the question.
var StateSQL = "pg_catalog.md5(pg_catalog.concat_ws(pg_catalog.chr(10), pg_catalog.current_schemas(false)::pg_catalog.text[]::pg_catalog.text," +
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

var sessionQuery = QuestionOfSession + `, ` + TimelineSQL + `, ` + DatabaseSQL + `, ` + nameSQL + `, ` + StartedSQL + `,
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
func readSession(conn *pgx.Conn, result *pgconn.Result) (s *Session, pid uint32, err error) {
	s = &Session{}
	var level, standardText, synchronous, limits string
	for i, dest := range []any{&s.ID.System, &s.ID.Timeline, &s.ID.Database, &s.ID.Name, &s.ID.Started, &pid, &s.Path, &s.Isolation, &standardText, &synchronous, &limits,
		&s.State, &s.Values, &s.Schemas, &level, &s.temporary} {
		if result.Err == nil {
			result.Err = conn.TypeMap().Scan(result.FieldDescriptions[i].DataTypeOID, pgx.TextFormatCode, result.Rows[0][i], dest)
		}
	}
	if result.Err != nil {
		return nil, 0, result.Err
	}
	s.State = stateOf(result.Rows[0][columnSchemas], result.Rows[0][columnIsolation], result.Rows[0][columnValues])
	s.Standby = s.ID.Timeline == ""
	s.ReadCommitted = IsolationOf(s.Isolation) == IsolationReadCommitted
	s.Unchecked = s.setting("session_replication_role") == "replica"
	s.Level = IsolationOf(level)
	s.Reading = NewReading(standardText == "on", s.setting("client_encoding"), conn.PgConn().ParameterStatus("server_encoding"))
	s.Commits, s.Limit = CommitModeOf(synchronous), shortest(limits)
	s.Path = slices.DeleteFunc(s.Path, parser.IsTemporary)
	s.Seal()
	return s, pid, nil
}

// Seal fixes what follows from the path and the values.
func (s *Session) Seal() {
	s.PathKey = strings.Join(s.Path, "\x00")
	s.Placed = len(s.Values) > ValuePath && PlacesTemporaries(s.Values[ValuePath])
	b := []byte{FormatVersion}
	for _, v := range slices.Concat([]string{s.ID.Text(), s.PathKey, s.Isolation}, s.Values) {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	for mode := range s.Digests {
		s.Digests[mode] = sha256.Sum256(append(b, byte(mode)))
	}
}

// Same reports that keys made in s and in other mean the same.
func (s *Session) Same(other *Session) bool { return s == other || s.Digests[0] == other.Digests[0] }

// setting is the value of one of keying.Settings.
func (s *Session) setting(name string) string {
	if i := slices.Index(keying.Settings, name); i >= 0 && FirstSetting+i < len(s.Values) {
		return s.Values[FirstSetting+i]
	}
	return ""
}

// Where Values has what.
const (
	ValueUser    = 2 // current_user, which SET ROLE changes
	ValuePath    = 3 // search_path
	FirstSetting = 5 // of keying.Settings, in their order
)

// PlacesTemporaries reports that a search_path may name the schema of temporary objects, which is
// the first otherwise.
func PlacesTemporaries(path string) bool {
	return strings.Contains(strings.ToLower(path), "pg_temp")
}

// Isolation is the isolation level of a transaction, as far as it matters to what may be cached.
type Isolation uint8

const (
	IsolationUnknown Isolation = iota
	IsolationReadCommitted
	IsolationSnapshot // REPEATABLE READ or SERIALIZABLE
)

// IsolationOf reads the setting.
func IsolationOf(level string) Isolation {
	if level == "read committed" || level == "read uncommitted" {
		return IsolationReadCommitted
	}
	return IsolationSnapshot
}

// limitsSQL is an expression with what ends a statement, in PostgreSQL's words.
const limitsSQL = "pg_catalog.concat_ws(' ', pg_catalog.current_setting('statement_timeout'), pg_catalog.current_setting('lock_timeout')," +
	" pg_catalog.current_setting('transaction_timeout', true))"

// shortest reads it: the shortest of the limits that there are, 0 if there is none.
func shortest(limits string) (shortest time.Duration) {
	for limit := range strings.FieldsSeq(limits) {
		d, err := time.ParseDuration(strings.Replace(limit, "min", "m", 1))
		if days, ok := strings.CutSuffix(limit, "d"); ok { // of 24 hours
			d, err = time.ParseDuration(days + "h")
			d *= 24
		}
		if err == nil && d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return shortest
}
