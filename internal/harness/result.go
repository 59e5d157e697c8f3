package harness

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Result is everything that database/sql says of a result.
type Result struct {
	TB      testing.TB
	Columns []column
	Rows    [][]any
	Err     error
}

type column struct {
	Name, Database   string
	Scan             reflect.Type
	Length           int64
	Precision, Scale int64
	Has, Nullable    [2]bool
}

// Read reads a whole result.
func (v Via) Read(x Asker, query string, args []any) (r Result) {
	r.TB = v.F
	rows, err := x.QueryContext(v.AskContext(), query, args...)
	if err != nil {
		return Result{Err: err}
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return Result{Err: err}
	}
	for _, t := range types {
		c := column{Name: t.Name(), Database: t.DatabaseTypeName(), Scan: t.ScanType()}
		c.Length, c.Has[0] = t.Length()
		c.Precision, c.Scale, c.Has[1] = t.DecimalSize()
		c.Nullable[0], c.Nullable[1] = t.Nullable()
		r.Columns = append(r.Columns, c)
	}
	for rows.Next() {
		row := make([]any, len(types))
		dest := make([]any, len(types))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return Result{Err: err}
		}
		for i, value := range row {
			if n, ok := value.(float64); ok && n != n {
				row[i] = "NaN" // which equals itself
			}
		}
		r.Rows = append(r.Rows, row)
	}
	r.Err = rows.Err()
	return r
}

// Is checks the rows, written with blanks and commas: "1 ann, 2 bob".
func (r Result) Is(want string) {
	r.TB.Helper()
	if got := r.String(); got != want {
		r.TB.Errorf("got rows %q, want %q", got, want)
	}
}

func (r Result) String() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	rows := make([]string, len(r.Rows))
	for i, row := range r.Rows {
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

// SameError checks that an error reaches the caller as pgx returns it.
func SameError(t testing.TB, got, want error) {
	t.Helper()
	if want == nil {
		t.Fatalf("plain pgx gives no error, cachedpg %v", got)
	}
	if got == nil || got.Error() != want.Error() || reflect.TypeOf(got) != reflect.TypeOf(want) {
		t.Errorf("got error %T %v, plain pgx's is %T %v", got, got, want, want)
	}
}
