package backend

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Identity names one life of one database on one server, whatever address or
// pooler leads there. What is known of one says nothing of another:
//
//   - A promotion changes the timeline, and may lose commits that entries have seen.
//   - A clone, such as a volume's snapshot or a base backup that was started by itself,
//     has the system identifier and the timeline of its original. No two servers that
//     are alive began at the same time.
//   - ALTER DATABASE … RENAME leaves the OID and gives the name to another database.
//
// The price is that a restart of PostgreSQL begins cold. See docs/decisions/server-identity.md (D74, D75).
type Identity struct {
	System   string // pg_control_system().system_identifier
	Timeline string // "" of a standby
	Database string // OID
	Name     string // of the database
	Started  string // pg_postmaster_start_time(), in seconds since 1970
}

// String returns the identity as one text that no other identity has, without
// blanks.
func (id Identity) String() string {
	id.Name = url.QueryEscape(id.Name)
	return id.Text()
}

// Text is what IdentitySQL gives on that server.
func (id Identity) Text() string {
	return strings.Join([]string{id.System, id.Timeline, id.Started, id.Name, id.Database}, "/")
}

// Families are names that the database shares with what it was, or another was,
// before a promotion, a restart or a change of names.
func (id Identity) Families() []string {
	return []string{"name " + id.System + "/" + url.QueryEscape(id.Name), "database " + id.System + "/" + id.Database}
}

// What PostgreSQL says of itself.
const (
	systemSQL   = "(SELECT system_identifier FROM pg_catalog.pg_control_system())::pg_catalog.text"
	TimelineSQL = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN ''" +
		" ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END"
	DatabaseSQL = "(SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())::pg_catalog.text"
	nameSQL     = "pg_catalog.current_database()::pg_catalog.text"
	StartedSQL  = "extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text"

	// IdentitySQL is an SQL expression that gives Identity.Text.
	IdentitySQL = "pg_catalog.concat_ws('/', " + systemSQL + ", " + TimelineSQL + ", " + StartedSQL + ", " + nameSQL + ", " + DatabaseSQL + ")"

	QuestionOfOne     = "SELECT CASE WHEN " + IdentitySQL // how those begin that Only makes
	QuestionOfSession = "SELECT " + systemSQL             // and the one of Learn
)

// Only makes of a question, a SELECT of one value, one that is answered by the
// database of this identity alone: of any other nothing is evaluated, so that an error
// too is an answer of this one. A pooler may lead every transaction elsewhere, so a check
// in a statement before would prove nothing.
func (id Identity) Only(question string) string {
	return QuestionOfOne + " OPERATOR(pg_catalog.=) " + Literal(id.Text()) +
		" THEN pg_catalog.concat('=', (" + question + ")) ELSE '' END"
}

// Ask asks a question, see Only, over a connection that may have come to another
// server: then the error is an Elsewhere. NULL is answered as "".
func (id Identity) Ask(ctx context.Context, in Conn, question string) (string, error) {
	answer, err := in.Ask(ctx, id.Only(question))
	if err != nil {
		return "", err
	}
	if answer, ok := strings.CutPrefix(answer, "="); ok {
		return answer, nil
	}
	return "", Elsewhere{ID: id}
}

// WithIdentity makes of a question one whose answer says beside where it was asked.
func WithIdentity(question string) string {
	return "SELECT pg_catalog.concat(" + IdentitySQL + ", pg_catalog.chr(10), (" + question + "))"
}

// CutIdentity takes the answer to a question of WithIdentity apart. It has one line itself.
func CutIdentity(answer string) (where, rest string) {
	i := strings.LastIndexByte(answer, '\n')
	return answer[:max(i, 0)], answer[i+1:]
}

// IsStandby reports that where, which IdentitySQL has given, is a standby.
func IsStandby(where string) bool {
	_, rest, _ := strings.Cut(where, "/")
	return strings.HasPrefix(rest, "/")
}

// Elsewhere is the error of a question that another database got than the one
// that it is about.
type Elsewhere struct{ ID Identity }

func (e Elsewhere) Error() string {
	return fmt.Sprintf("cachedpg: PostgreSQL is not %s any more", e.ID)
}

// OID is a literal of type oid.
func OID(n uint32) string { return "'" + strconv.FormatUint(uint64(n), 10) + "'::pg_catalog.oid" }

// Literal is a literal that means the same under either standard_conforming_strings.
func Literal(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// Related reports that one of the two may be what has become of the other.
// Databases of one server with different names are not, nor are servers without
// anything in common: a connector may reach several on purpose.
func (id Identity) Related(other Identity) bool {
	return id != other && (id.Name == other.Name && id.Name != "" || id.System == other.System && id.Database == other.Database)
}
