package cachedpg

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// result is everything that database/sql says of a result.
type result struct {
	tb      testing.TB
	columns []column
	rows    [][]any
	err     error
}

type column struct {
	Name, Database   string
	Scan             reflect.Type
	Length           int64
	Precision, Scale int64
	Has, Nullable    [2]bool
}

// read reads a whole result.
func (v via) read(x asker, query string, args []any) (r result) {
	r.tb = v.f
	rows, err := x.QueryContext(v.askContext(), query, args...)
	if err != nil {
		return result{err: err}
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return result{err: err}
	}
	for _, t := range types {
		c := column{Name: t.Name(), Database: t.DatabaseTypeName(), Scan: t.ScanType()}
		c.Length, c.Has[0] = t.Length()
		c.Precision, c.Scale, c.Has[1] = t.DecimalSize()
		c.Nullable[0], c.Nullable[1] = t.Nullable()
		r.columns = append(r.columns, c)
	}
	for rows.Next() {
		row := make([]any, len(types))
		dest := make([]any, len(types))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return result{err: err}
		}
		for i, value := range row {
			if n, ok := value.(float64); ok && n != n {
				row[i] = "NaN" // which equals itself
			}
		}
		r.rows = append(r.rows, row)
	}
	r.err = rows.Err()
	return r
}

// is checks the rows, written with blanks and commas: "1 ann, 2 bob".
func (r result) is(want string) {
	r.tb.Helper()
	if got := r.String(); got != want {
		r.tb.Errorf("got rows %q, want %q", got, want)
	}
}

func (r result) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	rows := make([]string, len(r.rows))
	for i, row := range r.rows {
		values := make([]string, len(row))
		for j, value := range row {
			values[j] = fmt.Sprint(value)
			if b, ok := value.([]byte); ok {
				values[j] = string(b)
			}
		}
		rows[i] = strings.Join(values, " ")
	}
	return strings.Join(rows, ", ")
}

// sameError checks that an error reaches the caller as pgx returns it.
func sameError(t testing.TB, got, want error) {
	t.Helper()
	if want == nil {
		t.Fatalf("plain pgx gives no error, cachedpg %v", got)
	}
	if got == nil || got.Error() != want.Error() || reflect.TypeOf(got) != reflect.TypeOf(want) {
		t.Errorf("got error %T %v, plain pgx's is %T %v", got, got, want, want)
	}
}
