//go:build go1.27

package cachedpg

import "database/sql/driver"

var _ driver.RowsColumnScanner = (*Rows)(nil)

// NextRow moves to the next row, whose columns ScanColumn then scans.
func (r *Rows) NextRow() error { return r.rows().NextRow() }

// ScanColumn scans as pgx's stdlib does: what database/sql knows by the
// driver.Value, so that a Scanner sees what it always saw; other destinations,
// such as slices and ranges, by pgx's codecs.
func (r *Rows) ScanColumn(scanCtx driver.ScanContext, index int, dest any) error {
	return r.rows().ScanColumn(scanCtx, index, dest)
}
