package backend

import (
	"strconv"
	"strings"
)

// CommitMode is what is known of synchronous_commit when a transaction commits.
// What is not known counts as CommitAsync.
type CommitMode uint8

const (
	CommitUnknown  CommitMode = iota
	CommitAsync               // off
	CommitSync                // any other: on this server's own disk when it is visible
	CommitDoubtful            // as CommitSync, unless code that is not seen has changed it
)

// CommitModeOf reads the setting; "" is one that is not known.
func CommitModeOf(setting string) CommitMode {
	switch setting {
	case "off":
		return CommitAsync
	case "":
		return CommitUnknown
	}
	return CommitSync
}

// PinnedSQL is an SQL expression: synchronous_commit, which stays as it is until
// the transaction ends, whatever becomes of the server's configuration.
const PinnedSQL = "pg_catalog.set_config('synchronous_commit', pg_catalog.current_setting('synchronous_commit'), true)"

// HurriesSQL is an SQL expression that is true if PostgreSQL might end the transaction for being idle while the store is told of
// what it has written.
const HurriesSQL = "(pg_catalog.current_setting('idle_in_transaction_session_timeout') OPERATOR(pg_catalog.<>) '0'" +
	" AND pg_catalog.current_setting('idle_in_transaction_session_timeout')::interval OPERATOR(pg_catalog.<) '10s'::interval)"

// PinnedCommitSQL is PinnedSQL, and sees to it that PostgreSQL does not.
const PinnedCommitSQL = "pg_catalog.concat(" + PinnedSQL + "," +
	" CASE WHEN " + HurriesSQL +
	" THEN pg_catalog.substr(pg_catalog.set_config('idle_in_transaction_session_timeout', '10s', true), 1, 0) END)"

// ConfigurationSQL is an SQL expression that says how this session commits, and
// whether there are roles or databases with a setting of their own: a pooler may give a
// client sessions of both kinds.
const ConfigurationSQL = "pg_catalog.concat_ws(' ', pg_catalog.pg_backend_pid(), pg_catalog.current_setting('synchronous_commit')," +
	" (SELECT pg_catalog.count(*) FROM pg_catalog.pg_db_role_setting" +
	" WHERE pg_catalog.strpos(pg_catalog.array_to_string(setconfig, ' '), 'synchronous_commit=') OPERATOR(pg_catalog.>) 0))"

// Configuration is what ConfigurationSQL has given.
type Configuration struct {
	Mode   CommitMode
	Direct bool // the session is always the same
	Apart  bool // some role or database has a setting of its own
}

// ParseConfiguration reads an answer over a connection with that PID. It is zero if it cannot be read.
func ParseConfiguration(answer string, pid uint32) (c Configuration) {
	field := strings.Fields(answer)
	if len(field) != 3 {
		return c
	}
	return Configuration{Direct: field[0] == strconv.FormatUint(uint64(pid), 10), Mode: CommitModeOf(field[1]), Apart: field[2] != "0"}
}
