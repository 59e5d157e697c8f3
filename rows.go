package cachedpg

import (
	"database/sql/driver"
	"reflect"

	"github.com/cachedpg/cachedpg/internal/core"
)

// Exactly the optional interfaces of *stdlib.Rows; a test compares them.
var (
	_ driver.Rows                           = (*Rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*Rows)(nil)
	_ driver.RowsColumnTypeLength           = (*Rows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*Rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*Rows)(nil)
)

// Rows replays a result as PostgreSQL sent it. A miss is read to its end first
// and then replayed by the same code, so that a hit cannot differ from it. A
// result too large to store is replayed up to there and read on from PostgreSQL.
type Rows core.Rows // so that a hit allocates one value, and not another one around it

// rowsOf is what a query gives, under the name of this package.
func rowsOf(rows driver.Rows, err error) (driver.Rows, error) {
	if own, ok := rows.(*core.Rows); ok {
		return (*Rows)(own), err
	}
	return rows, err // pgx's own
}

func (r *Rows) rows() *core.Rows { return (*core.Rows)(r) }

// Columns returns the names of the columns.
func (r *Rows) Columns() []string { return r.rows().Columns() }

// Next decodes the next row. The values are the caller's own.
func (r *Rows) Next(dest []driver.Value) error { return r.rows().Next(dest) }

// Close ends the result. It is safe to call more than once.
func (r *Rows) Close() error { return r.rows().Close() }

// ColumnTypeDatabaseTypeName returns the name of the type in upper case, or
// its OID if pgx does not know it.
func (r *Rows) ColumnTypeDatabaseTypeName(i int) string {
	return r.rows().ColumnTypeDatabaseTypeName(i)
}

// ColumnTypeLength returns the length limit of a variable-length type.
func (r *Rows) ColumnTypeLength(i int) (int64, bool) { return r.rows().ColumnTypeLength(i) }

// ColumnTypePrecisionScale returns the precision and scale of a numeric.
func (r *Rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return r.rows().ColumnTypePrecisionScale(i)
}

// ColumnTypeScanType returns the Go type that suits the column.
func (r *Rows) ColumnTypeScanType(i int) reflect.Type { return r.rows().ColumnTypeScanType(i) }
