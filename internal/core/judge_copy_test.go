package core

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/psql"
)

// The grammar takes STDOUT for STDIN.
var plainCopy = regexp.MustCompile(`(?is)^copy\s+([\w."]+)\s*(?:\(([^)]*)\))?\s*from\s+std(?:in|out)$`)

// copyIn sends the data behind a COPY … FROM STDIN in the way that a program
// has: by pgx's CopyFrom on the connection that was lent out.
func (j *judge) copyIn(st psql.Step) error {
	m := plainCopy.FindStringSubmatch(psql.WithoutComments(st.SQL))
	if m == nil {
		j.tally[nSkipped]++ // a format that pgx does not speak
		return nil
	}
	var table pgx.Identifier
	for _, part := range strings.Split(m[1], ".") {
		table = append(table, identifier(part))
	}
	var columns []string
	for _, c := range strings.Split(m[2], ",") {
		if c = strings.TrimSpace(c); c != "" {
			columns = append(columns, identifier(c))
		}
	}
	var rows [][]any
	for _, line := range st.Data {
		var row []any
		for _, field := range strings.Split(line, "\t") {
			if field == `\N` {
				row = append(row, nil)
				continue
			}
			row = append(row, copyEscapes.Replace(field))
		}
		rows = append(rows, row)
	}
	return j.copyRows(table, columns, rows)
}

// copyRows is COPY … FROM STDIN as a program does it. No columns are all.
func (j *judge) copyRows(table pgx.Identifier, columns []string, rows [][]any) error {
	ctx, cancel := j.context()
	defer cancel()
	inside := j.c.inner.TxStatus() != 'I'
	if !inside {
		j.warm()
	}
	conn, err := j.c.HandOut(ctx)
	if err != nil {
		j.Fatalf("%s: %v", j.where, err)
	}
	if len(columns) == 0 {
		columns = j.columns(conn, table)
	}
	j.tally[nWrites]++
	_, err = conn.CopyFrom(ctx, table, columns, pgx.CopyFromRows(rows))
	if e := j.c.enter(); e != nil {
		j.Fatalf("%s: %v", j.where, e)
	}
	if !inside {
		j.verify()
	}
	return err
}

// columns are those of a table that COPY fills by default.
func (j *judge) columns(conn *pgx.Conn, table pgx.Identifier) (names []string) {
	ctx, cancel := j.context()
	defer cancel()
	rows, err := conn.Query(ctx, `SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1)
		AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum`, pgx.QueryExecModeExec, table.Sanitize())
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		j.Fatalf("%s: %v", j.where, err)
	}
	return names
}

var copyEscapes = strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\r`, "\r")

// identifier is a name as PostgreSQL reads it.
func identifier(s string) string {
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `""`, `"`)
	}
	return strings.ToLower(s)
}
