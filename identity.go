package cachedpg

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

// identity names one life of one database on one server, whatever address or
// pooler leads there. What is known of one says nothing of another:
//
//   - A promotion changes the timeline, and may lose commits that entries have seen.
//   - A clone, such as a volume's snapshot or a base backup that was started by itself,
//     has the system identifier and the timeline of its original. No two servers that
//     are alive began at the same time.
//   - ALTER DATABASE … RENAME leaves the OID and gives the name to another database.
//
// The price is that a restart of PostgreSQL begins cold. See docs/decisions/server-identity.md (D74, D75).
type identity struct {
	system   string // pg_control_system().system_identifier
	timeline string // "" of a standby
	database string // OID
	name     string // of the database
	started  string // pg_postmaster_start_time(), in seconds since 1970
}

// String returns the identity as one text that no other identity has, without
// blanks.
func (id identity) String() string {
	id.name = url.QueryEscape(id.name)
	return id.text()
}

// text is what identityText gives there.
func (id identity) text() string {
	return strings.Join([]string{id.system, id.timeline, id.started, id.name, id.database}, "/")
}

// families are names that the database shares with what it was, or another was,
// before a promotion, a restart or a change of names.
func (id identity) families() []string {
	return []string{"name " + id.system + "/" + url.QueryEscape(id.name), "database " + id.system + "/" + id.database}
}

// What PostgreSQL says of itself.
const (
	systemSQL   = "(SELECT system_identifier FROM pg_catalog.pg_control_system())::pg_catalog.text"
	timelineSQL = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN ''" +
		" ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END"
	databaseSQL = "(SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())::pg_catalog.text"
	nameSQL     = "pg_catalog.current_database()::pg_catalog.text"
	startedSQL  = "extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text"

	// identityText is an SQL expression.
	identityText = "pg_catalog.concat_ws('/', " + systemSQL + ", " + timelineSQL + ", " + startedSQL + ", " + nameSQL + ", " + databaseSQL + ")"

	questionOfOne     = "SELECT CASE WHEN " + identityText // how those begin that only makes
	questionOfSession = "SELECT " + systemSQL              // and sessionQuery
)

// only makes of a question, a SELECT of one value, one that is answered by the
// database of this identity alone: of any other nothing is evaluated, so that an error
// too is an answer of this one. A pooler may lead every transaction elsewhere, so a check
// in a statement before would prove nothing.
func (id identity) only(question string) string {
	return questionOfOne + " OPERATOR(pg_catalog.=) " + quoteText(id.text()) +
		" THEN pg_catalog.concat('=', (" + question + ")) ELSE '' END"
}

// ask asks a question, see only, over a connection that may have come to another
// server: then the error is an elsewhere. NULL is answered as "".
func (id identity) ask(ctx context.Context, in inner, question string) (string, error) {
	answer, err := in.text(ctx, id.only(question))
	if err != nil {
		return "", err
	}
	if answer, ok := strings.CutPrefix(answer, "="); ok {
		return answer, nil
	}
	return "", elsewhere{id}
}

// withIdentity makes of a question one whose answer says beside where it was asked.
func withIdentity(question string) string {
	return "SELECT pg_catalog.concat(" + identityText + ", pg_catalog.chr(10), (" + question + "))"
}

// cutIdentity takes the answer to such a question apart. It has one line itself.
func cutIdentity(answer string) (where, rest string) {
	i := strings.LastIndexByte(answer, '\n')
	return answer[:max(i, 0)], answer[i+1:]
}

// isStandby reports that identityText gives this on a standby.
func isStandby(where string) bool {
	_, rest, _ := strings.Cut(where, "/")
	return strings.HasPrefix(rest, "/")
}

// elsewhere is the error of a question that another database got than the one
// that it is about.
type elsewhere struct{ id identity }

func (e elsewhere) Error() string {
	return fmt.Sprintf("cachedpg: PostgreSQL is not %s any more", e.id)
}

// quoteText is a literal that means the same under either standard_conforming_strings.
func quoteText(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// related reports that one of the two may be what has become of the other.
// Databases of one server with different names are not, nor are servers without
// anything in common: a connector may reach several on purpose.
func (id identity) related(other identity) bool {
	return id != other && (id.name == other.name && id.name != "" || id.system == other.system && id.database == other.database)
}
