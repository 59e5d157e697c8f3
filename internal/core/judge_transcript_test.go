package core

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/psql"
)

// plain runs a text on the session's own pgx connection, past the driver.
// Without a mode it is prepared as pgx does by default; the judge's questions
// must not meet statements that were prepared before a DDL.
func plain(ctx context.Context, c *Conn, query string, args ...any) (names []string, values [][]driver.Value, err error) {
	named := []driver.NamedValue{{Ordinal: 1, Value: pgx.QueryExecModeExec}}
	for i, a := range args {
		named = append(named, driver.NamedValue{Ordinal: i + 2, Value: a})
	}
	rows, err := c.inner.QueryContext(ctx, query, named)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	names = rows.Columns()
	for {
		row := make([]driver.Value, len(names))
		if err := rows.Next(row); err == io.EOF {
			return names, values, nil
		} else if err != nil {
			return names, values, err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = slices.Clone(b)
			}
		}
		values = append(values, row)
	}
}

// ask is plain for a question of the judge's own.
func (j *judge) ask(c *Conn, query string, args ...any) [][]driver.Value {
	j.Helper()
	ctx, cancel := j.context()
	defer cancel()
	_, values, err := plain(ctx, c, query, args...)
	if err != nil {
		j.Fatalf("%s: %v\nin: %s", j.where, err, query)
	}
	return values
}

// command is plain for BEGIN, ROLLBACK and the like.
func (j *judge) command(text string) error {
	ctx, cancel := j.context()
	defer cancel()
	_, err := j.c.inner.ExecContext(ctx, text, []driver.NamedValue{{Ordinal: 1, Value: pgx.QueryExecModeSimpleProtocol}})
	return err
}

// queryer is the driver's connection or the one that it wraps.
type queryer interface {
	driver.QueryerContext
	driver.ExecerContext
}

// spoken is a connection of the driver's in the words of database/sql.
type spoken struct{ *Conn }

func (c spoken) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Query(ctx, query, args)
}

func (c spoken) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Exec(ctx, query, args)
}

// transcript writes down everything that the driver interface shows of a text.
func (j *judge) transcript(q queryer, query string, args []driver.NamedValue) (lines []string, err error) {
	ctx, cancel := j.context()
	defer cancel()
	if !givesRows(query) {
		_, err := q.ExecContext(ctx, query, args)
		return []string{"Exec: " + refusal(err)}, err
	}
	rows, err := q.QueryContext(ctx, query, args)
	if err != nil {
		return []string{"Query: " + refusal(err)}, err
	}
	names := rows.Columns()
	for i, name := range names {
		line := fmt.Sprintf("column %q", name)
		if r, ok := rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
			line += " " + r.ColumnTypeDatabaseTypeName(i)
		}
		if r, ok := rows.(driver.RowsColumnTypeScanType); ok {
			line += " " + fmt.Sprint(r.ColumnTypeScanType(i))
		}
		if r, ok := rows.(driver.RowsColumnTypeLength); ok {
			length, ok := r.ColumnTypeLength(i)
			line += fmt.Sprint(" ", length, ok)
		}
		lines = append(lines, line)
	}
	row := make([]driver.Value, len(names))
	for {
		if err = rows.Next(row); err != nil {
			break
		}
		values := make([]string, len(row))
		for i, v := range row {
			values[i] = harness.Describe(v)
		}
		lines = append(lines, "row: "+strings.Join(values, "; "))
	}
	if err == io.EOF {
		err = nil
	}
	err = errors.Join(err, rows.Close())
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		err = joined.Unwrap()[0]
	}
	return append(lines, "end: "+refusal(err)), err
}

// plainly is transcript past the driver. Plain pgx meets a statement that was
// prepared before a DDL once, and then prepares it again.
func (j *judge) plainly(c *Conn, query string, args []driver.NamedValue) (lines []string, err error) {
	for range 2 {
		if lines, err = j.transcript(c.inner, query, args); code(err) != "0A000" || !strings.Contains(err.Error(), "cached plan") {
			break
		}
		if c.inner.TxStatus() == 'E' {
			if err := j.command("ROLLBACK"); err != nil {
				j.Fatal(err)
			}
			if err := j.command("BEGIN"); err != nil {
				j.Fatal(err)
			}
		}
	}
	return lines, err
}

var rowCommands = regexp.MustCompile(`(?i)^(select|values|table|with|show|explain|fetch|execute|call)\b`)

// givesRows is a guess from the first word; it only chooses between Query and Exec.
func givesRows(query string) bool {
	query = psql.WithoutComments(query)
	return rowCommands.MatchString(query) || strings.Contains(strings.ToLower(query), "returning")
}

var numbers = regexp.MustCompile(`[0-9]+`)

// refusal is an error without what differs from try to try: a failed INSERT
// takes a value from a sequence, too.
func refusal(err error) string {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &pg):
		return fmt.Sprintf("%s %s at %d", pg.Code, numbers.ReplaceAllString(pg.Message, "#"), pg.Position)
	}
	return numbers.ReplaceAllString(err.Error(), "#")
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
