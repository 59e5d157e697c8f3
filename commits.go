package cachedpg

import (
	"strconv"
	"strings"
)

// commitMode is what is known of synchronous_commit when a transaction commits.
// What is not known counts as commitAsync.
type commitMode uint8

const (
	commitUnknown  commitMode = iota
	commitAsync               // off
	commitSync                // any other: on this server's own disk when it is visible
	commitDoubtful            // as commitSync, unless code that is not seen has changed it
)

func commitModeOf(setting string) commitMode {
	switch setting {
	case "off":
		return commitAsync
	case "":
		return commitUnknown
	}
	return commitSync
}

// pinned is an SQL expression: synchronous_commit, which stays as it is until
// the transaction ends, whatever becomes of the server's configuration.
const pinned = "pg_catalog.set_config('synchronous_commit', pg_catalog.current_setting('synchronous_commit'), true)"

// hurries is one that is true if PostgreSQL might end the transaction for being idle while the store is told of
// what it has written.
const hurries = "(pg_catalog.current_setting('idle_in_transaction_session_timeout') OPERATOR(pg_catalog.<>) '0'" +
	" AND pg_catalog.current_setting('idle_in_transaction_session_timeout')::interval OPERATOR(pg_catalog.<) '10s'::interval)"

// pinnedCommit is pinned, and sees to it that PostgreSQL does not.
const pinnedCommit = "pg_catalog.concat(" + pinned + "," +
	" CASE WHEN " + hurries +
	" THEN pg_catalog.substr(pg_catalog.set_config('idle_in_transaction_session_timeout', '10s', true), 1, 0) END)"

// configurationSQL is an SQL expression that says how this session commits, and
// whether there are roles or databases with a setting of their own: a pooler may give a
// client sessions of both kinds.
const configurationSQL = "pg_catalog.concat_ws(' ', pg_catalog.pg_backend_pid(), pg_catalog.current_setting('synchronous_commit')," +
	" (SELECT pg_catalog.count(*) FROM pg_catalog.pg_db_role_setting" +
	" WHERE pg_catalog.strpos(pg_catalog.array_to_string(setconfig, ' '), 'synchronous_commit=') OPERATOR(pg_catalog.>) 0))"

// configuration is what it has given.
type configuration struct {
	mode   commitMode
	direct bool // the session is always the same
	apart  bool // some role or database has a setting of its own
}

func parseConfiguration(answer string, backend uint32) (c configuration) {
	field := strings.Fields(answer)
	if len(field) != 3 {
		return c
	}
	return configuration{direct: field[0] == strconv.FormatUint(uint64(backend), 10), mode: commitModeOf(field[1]), apart: field[2] != "0"}
}
